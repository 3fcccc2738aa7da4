"""Questions about texts, as SQuAD 1.1 and 2.0 write them; every mistake in a file names its question."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ziggurat.data.catalogue import parse_source
from ziggurat.data.dataset import REASONS, Fractions, Role, content_hashes, has_role
from ziggurat.data.decoding import decoded, format_of, unpacked
from ziggurat.data.sources import Rows
from ziggurat.data.tables import Source, Table, read_table
from ziggurat.data.task_rows import task_questions
from ziggurat.errors import UserError, first_line
from ziggurat.system import cached_property
from ziggurat.types import Problem

Gold = tuple[str, int]  # an answer's text, and the character of its context with which it begins
SPAN_ENDS = ("start", "end")  # what a model of spans says of every token: a label each
_COLUMNS = ("question", "context")


@dataclass(frozen=True, eq=False)
class Questions:
    """Questions, each with the text that it is about. Not answerable: no answer at all (SQuAD 2.0)."""

    ids: list[str]
    texts: list[str]  # (n) the questions
    contexts: list[str]  # (n)
    articles: list[str]  # (n) what the context is a part of; roles are shared out by it
    answers: list[tuple[Gold, ...]] | None  # (n); None = unknown, as in files for `predict`
    role: Role
    source: str  # for messages

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def problem(self) -> Problem:
        """What is asked of a model."""
        return Problem.QUESTION_ANSWERING

    @property
    def label_names(self) -> tuple[str, ...]:
        """What a model's two outputs for every token are called."""
        return SPAN_ENDS

    @property
    def labels(self) -> None:
        """None: texts have none here, windows do (`data.windows.gold_tokens`)."""
        return None

    @property
    def pairs(self) -> list[str]:
        """The second text of each: its context."""
        return self.contexts

    @property
    def golds(self) -> list[tuple[Gold, ...]]:
        """The answers; UserError if there are none."""
        if self.answers is None:
            raise UserError(f"{self.source}: has no answers; this step needs them for every question")
        return self.answers

    @cached_property
    def hashes(self) -> np.ndarray:
        """Content hash of each question's context, (n) uint64: who has read the text has seen the question."""
        return content_hashes(self.contexts)

    @cached_property
    def digest(self) -> str:
        """Hash of the whole set, answers included: 32 hex digits that do not depend on the order of the questions."""
        golds = [()] * len(self) if self.answers is None else self.answers
        rows = sorted(map(repr, zip(self.texts, self.contexts, golds, strict=True)))
        return hashlib.blake2b("\n".join(rows).encode("utf-8", "backslashreplace"), digest_size=16).hexdigest()

    def take(self, indices: np.ndarray) -> Questions:
        """The questions with these indices, (m) int, in their order."""
        ids, texts, contexts, articles = (
            [column[i] for i in indices] for column in (self.ids, self.texts, self.contexts, self.articles)
        )
        answers = None if self.answers is None else [self.answers[i] for i in indices]
        return replace(self, ids=ids, texts=texts, contexts=contexts, articles=articles, answers=answers)

    def has_role(self, fractions: Fractions, role: Role) -> np.ndarray:
        """Which questions `split_questions` gives this role, (n) bool."""
        return has_role(Rows(self.articles, None, None, self.source), fractions, role, grouped=False)

    def require(self, *roles: Role) -> Questions:
        """Itself if its role is one of `roles`, else a UserError that says why these are the wrong ones."""
        if self.role in roles:
            return self
        raise UserError(
            f"{self.role} rows of {self.source} {REASONS[self.role]}; this step takes {' or '.join(roles)} rows"
        )


def holds_questions(source: Source) -> bool:
    """Whether a file's form is SQuAD's: its JSON, or rows with a question, a context, answers; or a task has spans."""
    wanted = {*_COLUMNS, "answers"}
    if isinstance(source, Table):
        return wanted <= source.cells.keys()
    if (named := parse_source(source)) is not None:
        return named.task.problem is Problem.QUESTION_ANSWERING
    path = Path(source).expanduser()
    form = format_of(path)
    if form not in (".json", ".jsonl", ".ndjson", ".parquet") or not path.is_file():
        return False  # no other format can hold answers
    if form == ".parquet":
        return wanted <= read_table(path).cells.keys()
    content = unpacked(path)
    if form == ".json" and _is_squad(content):
        return True
    first = content if form == ".json" else content.lstrip().partition(b"\n")[0]
    return all(b'"%s"' % name.encode() in first for name in wanted)


def _is_squad(content: bytes) -> bool:
    """Whether a file's bytes are one object with the keys of SQuAD's own JSON; in a text quotes have a backslash."""
    is_object = content.lstrip(b"\xef\xbb\xbf \r\n\t").startswith(b"{")
    return is_object and all(b'"%s"' % key in content for key in (b"paragraphs", b"qas"))


def read_questions(source: Source, role: Role = Role.TEST, answers_required: bool = True) -> Questions:
    """Questions of a SQuAD file (JSON), or of rows with question, context and answers {text, answer_start}.

    Raises:
        UserError: unreadable file, another form, an empty question or context, an answer that is not in its context at
            its offset. The message names file, question and fix.
    """
    if isinstance(source, Table):
        return questions_in(source.require_whole(), str(source), role, answers_required)
    if (named := parse_source(source)) is not None:
        if named.task.problem is not Problem.QUESTION_ANSWERING:
            raise UserError(f"{source}: has labels, and spans that answer questions are wanted; take squad or squad_v2")
        return questions_in(task_questions(named), source, role, answers_required)
    path = Path(source).expanduser()
    if not path.is_file():
        raise UserError(f"{source}: no such file; give SQuAD's JSON or rows with {', '.join(_COLUMNS)} and answers")
    return questions_in(path, source, role, answers_required)


def questions_in(place: Path | Table, source: str, role: Role = Role.TEST, answers_required: bool = True) -> Questions:
    """The questions of a file, or of rows that are read already; errors as `read_questions`, which name `source`."""
    content = _squad_json(place) if isinstance(place, Path) else None
    table = read_table(place) if isinstance(place, Path) and content is None else place
    found = list(_of_rows(table) if isinstance(table, Table) else _of_squad(content or {}, source))
    if not found:
        raise UserError(f"{source}: no questions; put some into it")
    for one in found:
        _check(one, source)
    known = [one.answers is not None for one in found]
    if answers_required and not all(known):
        raise UserError(
            f"{source}: question {found[known.index(False)].id!r} has no answers; add them ([] = no answer)"
        )
    ids, texts, contexts, articles, answers = zip(*map(_columns, found), strict=True)
    given = None if not any(known) else [() if one is None else one for one in answers]
    return Questions(list(ids), list(texts), list(contexts), list(articles), given, role, source)


def split_questions(questions: Questions, fractions: Fractions = Fractions()) -> dict[Role, Questions]:
    """Questions in their roles, disjoint by article: no context of one role is in another.

    The role comes from the article's title alone (from the context where rows name none). UserError for a role without
    questions.
    """
    sets = {}
    for role, fraction in zip(Role, astuple(fractions), strict=True):
        here = np.flatnonzero(questions.has_role(fractions, role))
        if fraction > 0 and not len(here):
            raise UserError(
                f"{questions.source}: no {role} questions: {len(set(questions.articles))} articles are too few for a "
                f"fraction of {fraction:g}; use more articles, for roles share none"
            )
        if len(here):
            sets[role] = replace(questions.take(here), role=role)
    return sets


@dataclass(frozen=True)
class _Question:
    """One, as a file has it."""

    id: str
    text: Any
    context: Any
    article: str
    answers: tuple[Any, ...] | None


def _columns(one: _Question) -> tuple[str, str, str, str, tuple[Gold, ...] | None]:
    return one.id, one.text, one.context, one.article, one.answers


def _squad_json(path: Path) -> Mapping[str, Any] | None:
    """The object of a SQuAD file; None for a file of rows. UserError if it is broken."""
    content = unpacked(path) if format_of(path) == ".json" else b""
    if not _is_squad(content):
        return None
    try:
        found: Mapping[str, Any] = json.loads(decoded(content, str(path))[0])
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not readable as JSON, mend it ({first_line(error)})") from None
    return found


def _of_squad(content: Mapping[str, Any], source: str) -> Iterator[_Question]:
    try:
        for article in content["data"]:
            for paragraph in article["paragraphs"]:
                context = paragraph["context"]
                for asked in paragraph["qas"]:
                    answers = asked.get("answers", [] if asked.get("is_impossible") else None)
                    golds = None if answers is None else tuple((one["text"], one["answer_start"]) for one in answers)
                    title = str(article.get("title") or context)
                    yield _Question(str(asked["id"]), asked["question"], context, title, golds)
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{source}: not SQuAD's form ({first_line(error)}); see data[].paragraphs[].qas[]") from None


def _of_rows(table: Table) -> Iterator[_Question]:
    for name in _COLUMNS:
        if name not in table.cells:
            raise UserError(f"{table.name}: no column {name!r}; questions need {', '.join(_COLUMNS)} and answers")
    missing = [None] * len(table.numbers)
    cells = {name: table.cells.get(name, missing) for name in (*_COLUMNS, "id", "title", "answers")}
    for row, number in enumerate(table.numbers):
        own = {name: column[row] for name, column in cells.items()}
        context = own["context"]
        identity = str(number) if own["id"] is None else str(own["id"])
        yield _Question(identity, own["question"], context, str(own["title"] or context), _golds(table, row, own))


def _golds(table: Table, row: int, own: Mapping[str, Any]) -> tuple[Any, ...] | None:
    """Hugging Face's `answers`: {text: [...], answer_start: [...]}."""
    answers = own["answers"]
    if answers is None:
        return None
    try:
        return tuple(zip(answers["text"], answers["answer_start"], strict=True))
    except (KeyError, TypeError, ValueError):
        raise table.error(row, 'answers must be {"text": […], "answer_start": […]}, as long as each other') from None


def _check(one: _Question, source: str) -> None:
    """UserError for a question, context or answer that cannot be."""
    where = f"{source}: question {one.id!r}"
    for name, text in (("question", one.text), ("context", one.context)):
        if not isinstance(text, str) or not text.strip():
            raise UserError(f"{where}: its {name} is empty or no text; write one or remove it")
    golds: Sequence[Any] = one.answers or ()
    for text, start in golds:
        if not isinstance(text, str) or type(start) is not int or not text:
            raise UserError(f"{where}: answer {text!r} at {start!r}: must be a text and a whole number")
        if start < 0 or one.context[start : start + len(text)] != text:
            raise UserError(
                f"{where}: answer {text!r} is not in its context at character {start}; mend answer_start or the text"
            )
