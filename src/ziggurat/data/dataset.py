"""Rows with a role: rows that train, choose, certify and test are disjoint by their content."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace
from enum import StrEnum
from types import MappingProxyType

import numpy as np

from ziggurat.data.builtin import STDLIB_DOCS, stdlib_docs
from ziggurat.data.catalogue import parse_source
from ziggurat.data.groups import stand_ins
from ziggurat.data.labels import Names, label_array, label_keys, labelled, names_of, problem_of, unlabelled
from ziggurat.data.sources import DEFAULT_COLUMNS, FAIL, NULL, Columns, Rows, read_rows
from ziggurat.data.squad import asks_questions, read_questions
from ziggurat.data.tables import Source
from ziggurat.data.task_rows import task_rows
from ziggurat.errors import UserError
from ziggurat.system import cached_property
from ziggurat.types import ProblemType


class Role(StrEnum):
    """The permitted use of a row; each row has exactly one role."""

    TRAIN = "train"  # fits weights
    SELECT = "select"  # chooses between models and operating points
    CERTIFY = "certify"  # certifies the chosen operating point
    TEST = "test"  # reports; decides nothing


REASONS = MappingProxyType(
    {
        Role.TRAIN: "may not choose or certify: the model has seen them",
        Role.SELECT: "may not train or certify: choices were made on them",
        Role.CERTIFY: "may not train or choose: a guarantee holds only for rows that decided nothing before it",
        Role.TEST: "may not train, choose or certify: they only report",
    }
)


@dataclass(frozen=True)
class Fractions:
    """The share of the rows that each role gets, in the order of `Role`; they sum to 1."""

    train: float = 0.8
    select: float = 0.1
    certify: float = 0.1
    test: float = 0.0

    def __post_init__(self) -> None:
        values = astuple(self)
        if not all(0 <= value <= 1 for value in values) or not math.isclose(sum(values), 1, abs_tol=1e-6):
            shares = ", ".join(f"{role} {value}" for role, value in zip(Role, values, strict=True))
            raise UserError(f"fractions: {shares}; each must be between 0 and 1 and their sum 1")


STDLIB_FRACTIONS = Fractions(train=0.6, select=0.1, certify=0.1, test=0.2)


@dataclass(frozen=True, eq=False)
class Dataset:
    """Texts with labels and one role."""

    texts: list[str]  # (n)
    pairs: list[str] | None  # (n), second texts
    labels: np.ndarray | None  # of classes (n) int64, index into label_names, -1 = unlabelled; else see `data.labels`
    label_names: Names  # in the order of the model's outputs
    role: Role
    source: str  # where the rows come from, for messages
    problem: ProblemType = ProblemType.SINGLE_LABEL
    ids: list[str] | None = None  # (n) identifiers of rows in the source; None = it has none
    articles: list[str] | None = None  # (n) the article of each second text; None = rows have no articles

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, indices: np.ndarray) -> Dataset:
        """The rows with these indices, (m) int, in the order of `indices`."""
        pairs, ids, articles = (
            None if column is None else [column[i] for i in indices] for column in (self.pairs, self.ids, self.articles)
        )
        labels, texts = None if self.labels is None else self.labels[indices], [self.texts[i] for i in indices]
        return replace(self, texts=texts, pairs=pairs, labels=labels, ids=ids, articles=articles)

    @property
    def classes(self) -> np.ndarray:
        """Class index of each row, (n) int64; UserError if rows are unlabelled, or have no classes."""
        if self.problem is not ProblemType.SINGLE_LABEL:
            raise UserError(f"{self.source}: this step is about classes, and the model's problem is {self.problem}")
        return self.truth

    @property
    def truth(self) -> np.ndarray:
        """The labels, (n, …); UserError if rows are unlabelled."""
        if self.labels is None or not labelled(self.labels).all():
            raise UserError(f"{self.source}: has unlabelled rows; this step needs a label on every row")
        return self.labels

    @property
    def labels_or_none(self) -> np.ndarray:
        """The labels, (n, …); unlabelled rows have their problem's missing value."""
        return unlabelled(len(self), len(self.label_names), self.problem) if self.labels is None else self.labels

    @cached_property
    def hashes(self) -> np.ndarray:
        """Content hash of each row, (n) uint64: models record the hashes of the rows that they were trained on.

        Case, white space and labels do not count. For a row with an article it is the hash of the second text: a model
        that has read a context has seen all questions about it.
        """
        if self.articles is not None:
            return content_hashes(self.pairs or ())
        return _hash_rows(self.texts, self.pairs, purpose=b"row")

    @cached_property
    def group_hashes(self) -> np.ndarray:
        """Content hash of each row's group, (n) uint64: rows of a group get the same role.

        A group is an article; for rows without articles it is the group of rows that share text (`groups.stand_ins`).
        """
        if self.articles is not None:
            return content_hashes(self.articles)
        return self.hashes[stand_ins(self.texts, self.pairs, self.hashes)]

    @cached_property
    def digest(self) -> str:
        """Hash of the whole set, labels included: 32 hex digits that do not depend on the order of the rows."""
        labels = np.full(len(self), -1) if self.labels is None else label_keys(self.labels)
        hashes = self.hashes if self.articles is None else _hash_rows(self.texts, self.pairs, purpose=b"row")
        order = np.lexsort((labels, hashes))
        state = hashlib.blake2b(repr(self.label_names).encode("utf-8", "backslashreplace"), digest_size=16)
        state.update(hashes[order].astype("<u8").tobytes())
        state.update(labels[order].astype("<i8").tobytes())
        return state.hexdigest()

    def require(self, *roles: Role) -> Dataset:
        """Itself if its role is one of `roles`; otherwise a UserError explains why these rows are not allowed."""
        if self.role in roles:
            return self
        raise UserError(
            f"{self.role} rows of {self.source} {REASONS[self.role]}; this step takes {' or '.join(roles)} rows"
        )


def load(
    source: Source,
    columns: Columns = DEFAULT_COLUMNS,
    labels_required: bool = False,
    problem: ProblemType | None = None,
) -> Rows:
    """Rows of any source of `read_rows` (also in memory), of questions, of a named task, or of `stdlib-docs`.

    `problem` decides whether rows are questions about texts; None = the form of the file decides.
    """
    if source == STDLIB_DOCS:
        return stdlib_docs()
    if asks_questions(source, problem, columns):
        return read_questions(source, labels_required)
    named = parse_source(source)
    if named is None:
        return read_rows(source, columns, labels_required)
    if replace(columns, on_error=FAIL) not in (DEFAULT_COLUMNS, replace(DEFAULT_COLUMNS, label=None)):
        raise UserError(
            f"{source}: a task knows its columns; leave out --text-column, --pair-column, --label-column, --encoding"
        )
    if columns.on_error == NULL:
        raise UserError(f"{source}: --on-error null: rows of a task that cannot be read are left out; write skip")
    return task_rows(named, columns.label is not None, labels_required)


def load_builtin() -> dict[Role, Dataset]:
    """The built-in data set in its fixed roles."""
    return split_roles(stdlib_docs(), STDLIB_FRACTIONS, grouped=False)


def split_roles(
    rows: Rows,
    fractions: Fractions = Fractions(),
    label_names: Names | None = None,
    problem: ProblemType | None = None,
    grouped: bool = True,
) -> dict[Role, Dataset]:
    """One data set for each role whose fraction is above 0.

    The role depends only on the content, up to case and white space, not on the order of rows. A row that shares no
    text with other rows gets its role from its own content, so it has the same role in all files. Rows that share text
    form a group and get their role from the longest row of the group (`groups.stand_ins`): no row certifies a model
    that was trained on a part of it. Not `grouped`: each row gets its role from its own content.

    `label_names` defaults to those of the data set, else to the sorted distinct labels; `problem` to the one that the
    labels indicate. Among labelled rows, unlabelled ones train; they are left out if labelled rows of their group are
    held out. If no row has a label, rows get roles as usual, but `label_names` must be given.

    Raises:
        UserError: no labels, one class only, labels of mixed types, an unknown label, or a role that gets no rows.
    """
    problem = problem_of(rows, problem)
    names = (rows.label_names or names_of(rows, problem)) if label_names is None else label_names
    labels = label_array(rows, names, problem)
    if labels is None and label_names is None and rows.articles is None:
        raise UserError(f"{rows.source}: no labels; add a label column or name the right one")
    dataset = _dataset(rows, labels, names, Role.TRAIN, problem)
    standing = stand_ins(rows.texts, rows.pairs, dataset.hashes) if _grouped(rows, grouped) else np.arange(len(rows))
    groups, places = dataset.hashes[standing], _places(rows, fractions)[standing]
    bare = np.zeros(len(rows), dtype=bool) if labels is None else ~labelled(labels)
    withheld = bare & (places != 0) & np.isin(groups, groups[~bare])
    places[bare] = 0  # 0 = train, the first role
    sets = {}
    for place, (role, fraction) in enumerate(zip(Role, astuple(fractions), strict=True)):
        members = (places == place) & ~withheld
        if fraction > 0 and not (members & ~bare).any():
            raise _too_few(rows, role, fraction, len(np.unique(groups)))
        if members.any():
            sets[role] = replace(dataset.take(np.flatnonzero(members)), role=role)
    return sets


def has_role(rows: Rows, fractions: Fractions, role: Role, grouped: bool = True) -> np.ndarray:
    """Which rows `split_roles` would give this role if all were labelled, (n) bool."""
    found = _places(rows, fractions) == list(Role).index(role)
    if not _grouped(rows, grouped):
        return found
    return found[stand_ins(rows.texts, rows.pairs, _hash_rows(rows.texts, rows.pairs, b"row"))]


def _grouped(rows: Rows, grouped: bool) -> bool:
    """Whether rows that share text get the same role; rows with articles are grouped by article instead."""
    return grouped and rows.articles is None


def as_dataset(
    rows: Rows, role: Role, label_names: Names, problem: ProblemType | str = ProblemType.SINGLE_LABEL
) -> Dataset:
    """All rows in one role, with labels in the problem's format; 1 and "1" are the same label.

    Raises:
        UserError: a label that is not in `label_names`, or unlabelled rows among labelled ones in a role that measures.
    """
    labels = label_array(rows, label_names, ProblemType(problem))
    if role is not Role.TRAIN and labels is not None and not labelled(labels).all():
        place = rows.place(int(np.argmin(labelled(labels))))
        raise UserError(f"{place} has no label; label it or remove it, only train rows may lack one")
    return _dataset(rows, labels, label_names, role, ProblemType(problem))


def _dataset(rows: Rows, labels: np.ndarray | None, names: Names, role: Role, problem: ProblemType) -> Dataset:
    return Dataset(rows.texts, rows.pairs, labels, names, role, rows.source, problem, rows.ids, rows.articles)


def content_hashes(texts: Sequence[str]) -> np.ndarray:
    """Content hash of each text, (n) uint64; case and white space do not count."""
    return _hash_rows(texts, None, purpose=b"row")


def _places(rows: Rows, fractions: Fractions) -> np.ndarray:
    """Index into `Role` for each row, (n) int64: the interval of the fractions into which the row's hash falls."""
    edges = np.cumsum(astuple(fractions))
    edges[np.flatnonzero(astuple(fractions))[-1] :] = np.inf  # rounding must not open a role whose fraction is 0
    # Not `hashes`: a sample by `hashes` must be independent of roles.
    texts, pairs = (rows.texts, rows.pairs) if rows.articles is None else (rows.articles, None)
    return np.searchsorted(edges, _hash_rows(texts, pairs, purpose=b"role") / 2.0**64, side="right")


def _hash_rows(texts: Sequence[str], pairs: Sequence[str] | None, purpose: bytes) -> np.ndarray:
    """Hash of each row's casefolded, whitespace-collapsed text, (n) uint64; purposes give independent hashes."""
    plain = [_plain(text) for text in texts]
    if pairs is not None:  # \x1f is white space, so no plain text holds it
        plain = [f"{text}\x1f{_plain(pair)}" for text, pair in zip(plain, pairs, strict=True)]
    return np.array([_hash(text, purpose) for text in plain], dtype=np.uint64)


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


def _hash(text: str, purpose: bytes) -> int:
    # JSON files may hold lone surrogates, which strict UTF-8 refuses.
    state = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8, person=purpose)
    return int.from_bytes(state.digest(), "little")


def _too_few(rows: Rows, role: Role, fraction: float, groups: int) -> UserError:
    """The error of a role without rows; with 5 / fraction groups of rows its probability is below 1 % (e^-5)."""
    if rows.articles is not None:
        return UserError(
            f"{rows.source}: no {role} questions: {len(set(rows.articles))} articles are too few for a fraction of "
            f"{fraction:g}; use more articles, for roles share none"
        )
    needed = math.ceil(5 / fraction)
    shared = f" that are {groups} by the text they share" if groups < len(rows) else ""
    return UserError(
        f"{rows.source}: no {role} rows: {len(rows)} rows{shared} are too few for a fraction of {fraction:g}; "
        f"use about {needed} different labelled rows or more"
    )
