"""Questions about texts, as SQuAD 1.1 and 2.0 write them; every mistake in a file names its question."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ziggurat.data.catalogue import parse_source
from ziggurat.data.decoding import decoded, format_of, unpacked
from ziggurat.data.sources import FAIL, Columns, Rows
from ziggurat.data.tables import Source, Table, read_table
from ziggurat.data.task_rows import task_questions
from ziggurat.errors import UserError, first_line
from ziggurat.types import ProblemType

Gold = tuple[str, int]  # an answer's text, and the character of its context with which it begins
_COLUMNS = ("question", "context")


def holds_questions(source: Source) -> bool:
    """Whether a file's form is SQuAD's: its JSON, or rows with a question, a context, answers; or a task has spans."""
    wanted = {*_COLUMNS, "answers"}
    if isinstance(source, Table):
        return wanted <= source.cells.keys()
    if (named := parse_source(source)) is not None:
        return named.task.problem is ProblemType.QUESTION_ANSWERING
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


def asks_questions(source: Source, problem: ProblemType | None, columns: Columns) -> bool:
    """Whether a source's rows are read as questions about texts: as `problem` says, None = by the form of the file.

    UserError for options in `columns` that do not apply to questions.
    """
    questions = holds_questions(source) if problem is None else problem is ProblemType.QUESTION_ANSWERING
    if questions and (columns.encoding is not None or columns.on_error != FAIL):
        raise UserError("--encoding, --on-error: not for questions, which are read whole and as UTF-8; leave them out")
    return questions


def read_questions(source: Source, answers_required: bool = True) -> Rows:
    """Questions of a SQuAD file (JSON), or of rows with question, context and answers {text, answer_start}.

    Texts are the questions, pairs their contexts, labels tuples of `Gold`: no gold = the context has no answer.

    Raises:
        UserError: unreadable file, another form, an empty question or context, an answer that is not in its context at
            its offset. The message names file, question and fix.
    """
    if isinstance(source, Table):
        return questions_in(source.require_whole(), str(source), answers_required)
    if (named := parse_source(source)) is not None:
        if named.task.problem is not ProblemType.QUESTION_ANSWERING:
            raise UserError(f"{source}: has labels, and spans that answer questions are wanted; take squad or squad_v2")
        return questions_in(task_questions(named), source, answers_required)
    path = Path(source).expanduser()
    if not path.is_file():
        raise UserError(f"{source}: no such file; give SQuAD's JSON or rows with {', '.join(_COLUMNS)} and answers")
    return questions_in(path, source, answers_required)


def questions_in(place: Path | Table, source: str, answers_required: bool = True) -> Rows:
    """The questions of a file, or of rows that are read already; errors as `read_questions`, which name `source`."""
    content = _squad_json(place) if isinstance(place, Path) else None
    table = read_table(place) if isinstance(place, Path) and content is None else place
    found = list(_of_rows(table) if isinstance(table, Table) else _of_squad(content or {}, source))
    if not found:
        raise UserError(f"{source}: no questions; put some into it")
    for question in found:
        _check(question, source)
    known = [question.answers is not None for question in found]
    if answers_required and not all(known):
        raise UserError(
            f"{source}: question {found[known.index(False)].id!r} has no answers; add them ([] = no answer)"
        )
    ids, texts, contexts, articles, answers = (list(column) for column in zip(*map(_columns, found), strict=True))
    return Rows(texts, contexts, answers if any(known) else None, source, ids=ids, articles=articles)


@dataclass(frozen=True)
class _Question:
    """A question as it stands in a file."""

    id: str
    text: Any
    context: Any
    article: str
    answers: tuple[Any, ...] | None


def _columns(question: _Question) -> tuple[str, str, str, str, tuple[Gold, ...] | None]:
    return question.id, question.text, question.context, question.article, question.answers


def _squad_json(path: Path) -> Mapping[str, Any] | None:
    """The object of a SQuAD file; None for a file of rows. UserError if it is broken."""
    content = unpacked(path) if format_of(path) == ".json" else b""
    if not _is_squad(content):
        return None
    try:
        found: Mapping[str, Any] = json.loads(decoded(content, str(path))[0])
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not readable as JSON, fix it ({first_line(error)})") from None
    return found


def _of_squad(content: Mapping[str, Any], source: str) -> Iterator[_Question]:
    try:
        for article in content["data"]:
            for paragraph in article["paragraphs"]:
                context = paragraph["context"]
                for entry in paragraph["qas"]:
                    answers = entry.get("answers", [] if entry.get("is_impossible") else None)
                    golds = None if answers is None else tuple((gold["text"], gold["answer_start"]) for gold in answers)
                    title = str(article.get("title") or context)
                    yield _Question(str(entry["id"]), entry["question"], context, title, golds)
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{source}: not SQuAD's form ({first_line(error)}); see data[].paragraphs[].qas[]") from None


def _of_rows(table: Table) -> Iterator[_Question]:
    for name in _COLUMNS:
        if name not in table.cells:
            raise UserError(f"{table.name}: no column {name!r}; questions need {', '.join(_COLUMNS)} and answers")
    missing = [None] * len(table.numbers)
    cells = {name: table.cells.get(name, missing) for name in (*_COLUMNS, "id", "title", "answers")}
    for row, number in enumerate(table.numbers):
        record = {name: column[row] for name, column in cells.items()}
        context = record["context"]
        identity, title = str(number) if record["id"] is None else str(record["id"]), str(record["title"] or context)
        yield _Question(identity, record["question"], context, title, _golds(table, row, record))


def _golds(table: Table, row: int, record: Mapping[str, Any]) -> tuple[Any, ...] | None:
    """Hugging Face's `answers`: {text: [...], answer_start: [...]}."""
    answers = record["answers"]
    if answers is None:
        return None
    try:
        return tuple(zip(answers["text"], answers["answer_start"], strict=True))
    except (KeyError, TypeError, ValueError):
        raise table.error(row, 'answers must be {"text": […], "answer_start": […]}, as long as each other') from None


def _check(question: _Question, source: str) -> None:
    """UserError for an invalid question, context or answer."""
    where = f"{source}: question {question.id!r}"
    for name, text in (("question", question.text), ("context", question.context)):
        if not isinstance(text, str) or not text.strip():
            raise UserError(f"{where}: its {name} is empty or no text; write one or remove it")
    golds: Sequence[Any] = question.answers or ()
    for text, start in golds:
        if not isinstance(text, str) or type(start) is not int or not text:
            raise UserError(f"{where}: answer {text!r} at {start!r}: must be a text and a whole number")
        if start < 0 or question.context[start : start + len(text)] != text:
            raise UserError(
                f"{where}: answer {text!r} is not in its context at character {start}; fix answer_start or the text"
            )
