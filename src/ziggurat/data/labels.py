"""What the labels of rows are: classes, sets of them, or numbers; and the arrays that everything after it reads.

An array's dtype says what it holds: (n) int64 the index of a class, -1 = unlabelled; (n, n_labels) int8 which labels
apply, 1 or 0, -1 throughout = unlabelled; (n) float64 a number, NaN = unlabelled; (n) object the spans of the second
text that answer the first, a tuple of `squad.Gold`, None = unlabelled.
"""

from __future__ import annotations

import hashlib
import math
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from ziggurat.data.cells import Cell
from ziggurat.errors import UserError
from ziggurat.types import ProblemType

if TYPE_CHECKING:
    from ziggurat.data.sources import Rows


class Called:
    """Finds the class of a row's label.

    Formats spell a label in several ways: 1, 1.0 and "1", or true, "True" and 1. Case and white space are ignored
    unless two names differ only by them. If the classes have no names, LABEL_1 is 1. A number is never the index of a
    class that has a name: rows may use another order of classes.
    """

    def __init__(self, names: Sequence[int | str]) -> None:
        """`names` in the order of the model's outputs; UserError where two of them are the same."""
        refuse_repeated(names, "the model's labels")
        self._exact = {str(name): place for place, name in enumerate(names)}
        if is_unnamed(names):
            self._exact |= {f"LABEL_{place}": place for place in range(len(names))}
            self._exact |= {str(place): place for place in range(len(names))}
        times = Counter(map(plain, self._exact))
        self._plain = {plain(name): place for name, place in self._exact.items() if times[plain(name)] == 1}

    def find(self, label: object) -> int | None:
        """The index of a label's class; None = no class has this name."""
        for written in _spellings(label):
            if written in self._exact:
                return self._exact[written]
        return self._plain.get(plain(label))


def plain(label: object) -> str:
    """A label without differences that are usually mistakes: case, white space, Unicode forms of a character."""
    return " ".join(unicodedata.normalize("NFKC", str(label)).casefold().split())


def _spellings(label: object) -> tuple[str, ...]:
    if isinstance(label, bool):
        return str(int(label)), str(label), str(label).lower(), str(label).upper()
    if isinstance(label, int):
        return str(label), f"{label}.0"
    if isinstance(label, float) and label.is_integer():
        return str(label), str(int(label))
    return (str(label),)


def refuse_repeated(names: Sequence[object], where: str) -> None:
    """UserError if two classes have the same name: labels would be ambiguous."""
    given = Counter(str(name) for name in names if name is not None)
    name, times = given.most_common(1)[0] if given else ("", 0)
    if times > 1:
        places = ", ".join(str(place) for place, other in enumerate(names) if str(other) == name)
        raise UserError(f"{where}: classes {places} have one name, {name!r}; give each a name of its own")


def is_unnamed(names: Sequence[object]) -> bool:
    """Whether classes lack real names: they are called 0, 1, … or LABEL_0, LABEL_1, … in order."""
    return all(
        not isinstance(name, bool) and (name is None or str(name) in (str(place), f"LABEL_{place}"))
        for place, name in enumerate(names)
    )


Names = tuple[int | str, ...]
Scalar = int | str | float  # one label of a row
SPAN_ENDS = ("start", "end")  # the names of the two outputs that a model of spans has for every token
VALUE = "value"  # the name of a regression's one output
SEPARATOR = "|"  # between the labels of a row where a cell can hold but one string; alone it says that none applies
_SHOWN = 20


def problem_of(rows: Rows, wanted: ProblemType | None = None) -> ProblemType:
    """What the labels ask: `wanted`, else lists are labels that may all apply, fractions are a regression.

    UserError for an ambiguous case: numbers written as decimals, all of them whole.
    """
    if wanted is not None:
        return wanted
    if rows.articles is not None:
        return ProblemType.QUESTION_ANSWERING
    given = [label for label in rows.labels or () if label is not None]
    if any(isinstance(label, tuple) for label in given):
        return ProblemType.MULTI_LABEL
    numbers = [label for label in given if isinstance(label, float)]
    if not numbers:
        return ProblemType.SINGLE_LABEL
    if all(number.is_integer() for number in numbers):
        raise UserError(
            f"{rows.source}: labels are whole numbers written as decimals ({numbers[0]}); for amounts say "
            f"--problem {ProblemType.REGRESSION}, for classes --problem {ProblemType.SINGLE_LABEL}"
        )
    return ProblemType.REGRESSION


def names_of(rows: Rows, problem: ProblemType) -> Names:
    """What the outputs of a model for these rows are called: the labels that occur, integers by value, or `VALUE`.

    UserError for labels of mixed types, or a single class.
    """
    if problem is ProblemType.REGRESSION:
        _numbers(rows, (VALUE,))
        return (VALUE,)
    if problem is ProblemType.QUESTION_ANSWERING:
        return SPAN_ENDS
    _refuse_vectors(rows)
    found: set[Any] = {name for label in _known(rows) for name in _NAMED[problem](rows, label)}
    words = {name for name in found if isinstance(name, str)}
    if words and words != found:
        number, word = (min(map(str, kind)) for kind in (found - words, words))
        kind = "integers" if number.removeprefix("-").isdecimal() else "numbers"
        raise UserError(f"{rows.source}: labels mix {kind} ({number}) and strings ({word!r}); use one kind")
    if any(isinstance(name, float) for name in found):
        found = {str(float(name)) for name in found}  # 4.0 beside 4.5
    if len(found) == 1 and problem is ProblemType.SINGLE_LABEL:
        raise UserError(f"{rows.source}: every label is {found.pop()!r}; a classifier needs at least two classes")
    return tuple(sorted(found))


def _refuse_vectors(rows: Rows) -> None:
    """UserError for lists of zeros and ones that are all as long as each other."""
    lists = [label for label in _known(rows) if isinstance(label, tuple)]
    n = len(lists[0]) if lists else 0
    bits = ("0", "1", "0.0", "1.0")
    if n > 1 and all(len(labels) == n and all(str(label) in bits for label in labels) for labels in lists):
        raise UserError(
            f"{_place(rows, lists[0])}: {list(lists[0])} is no list of labels; write the names of those that apply "
            "and no vector, or a column of 0 and 1 for each: --label-column A,B"
        )


def label_array(rows: Rows, names: Names, problem: ProblemType) -> np.ndarray | None:
    """The rows' labels as the array of their problem; None if no row has one.

    A class may be spelled as `Called` says. UserError names the row of a label that is unknown, or of another problem.
    """
    if rows.labels is None or all(label is None for label in rows.labels):
        return None
    return _ARRAYS[problem](rows, names)


def names_same(names: Sequence[int | str], other_names: Sequence[int | str]) -> bool:
    """Whether two classifiers' outputs are the same in the same order: of one output each, a number, always."""
    return len(names) == len(other_names) == 1 or list(map(str, names)) == list(map(str, other_names))


def labelled(labels: np.ndarray) -> np.ndarray:
    """Which rows of a label array have one, (n) bool."""
    if labels.dtype == object:
        return np.array([label is not None for label in labels], dtype=bool)
    if np.issubdtype(labels.dtype, np.floating):
        return ~np.isnan(labels)
    return labels.reshape(len(labels), -1)[:, 0] >= 0


def unlabelled(n: int, n_names: int, problem: ProblemType) -> np.ndarray:
    """The array of n rows without a label."""
    if problem is ProblemType.QUESTION_ANSWERING:
        return np.full(n, None, dtype=object)
    if problem is ProblemType.REGRESSION:
        return np.full(n, np.nan)
    return np.full((n, n_names), -1, dtype=np.int8) if problem is ProblemType.MULTI_LABEL else np.full(n, -1)


def label_keys(labels: np.ndarray) -> np.ndarray:
    """One integer for each row's label, (n) int64: of a class its index, else a hash."""
    if labels.ndim == 1 and np.issubdtype(labels.dtype, np.integer):
        return labels
    contents = (
        repr(row).encode("utf-8", "backslashreplace") if labels.dtype == object else row.tobytes() for row in labels
    )
    rows = (hashlib.blake2b(content, digest_size=8).digest() for content in contents)
    return np.array([int.from_bytes(digest, "little", signed=True) for digest in rows], dtype=np.int64)


def _known(rows: Rows) -> Iterable[Cell]:
    return (label for label in rows.labels or () if label is not None)


def _place(rows: Rows, label: Cell) -> str:
    return rows.place((rows.labels or []).index(label))


def _class(rows: Rows, label: Cell) -> tuple[Scalar, ...]:
    """A class by itself, truth and whole numbers as integers; UserError for a list."""
    if isinstance(label, tuple):
        raise UserError(
            f"{_place(rows, label)}: a list of labels, but one class is wanted; write one, or say "
            f"--problem {ProblemType.MULTI_LABEL} where any of them may apply"
        )
    if isinstance(label, bool | float):
        return (int(label) if float(label).is_integer() else label,)
    return (label,)


def _set(rows: Rows, label: Cell) -> tuple[Scalar, ...]:
    """The labels that apply, each once; UserError for an amount, or a vector of zeros and ones."""
    found: tuple[Any, ...] = label if isinstance(label, tuple) else _class(rows, label)
    if isinstance(label, str):
        found = tuple(name.strip() for name in label.split(SEPARATOR) if name.strip())
    if any(isinstance(name, bool | float) for name in found) or len(set(map(str, found))) < len(found):
        raise UserError(
            f"{_place(rows, label)}: {list(found)} is no list of labels; write the names of those that apply, each "
            "once, and no vector"
        )
    return found


def _unknown(rows: Rows, row: int, label: Any, names: Names) -> UserError:
    known = ", ".join(map(repr, names[:_SHOWN])) + (", …" if len(names) > _SHOWN else "")
    numbers = str(label).isdecimal() and not any(str(name).isdecimal() for name in names)
    why = "; a number is not taken for a place among names, whose order may be another: write names" if numbers else ""
    return UserError(f"{rows.place(row)}: unknown label {label!r}; the known ones are {known}{why}")


def _classes(rows: Rows, names: Names) -> np.ndarray:
    called = Called(names)
    indices = np.full(len(rows), -1, dtype=np.int64)
    for row, label in enumerate(rows.labels or ()):
        if label is not None:
            _class(rows, label)  # refuses a list
            place = called.find(label)  # as it was written: true may be called 1 or True
            if place is None:
                raise _unknown(rows, row, label, names)
            indices[row] = place
    return indices


def _sets(rows: Rows, names: Names) -> np.ndarray:
    called = Called(names)
    lacking = [name for name in names if str(name) not in rows.label_names] if rows.label_names else []
    if lacking:  # of label columns, whose rows say nothing about any other label
        raise UserError(f"{rows.source}: no column for label {lacking[0]!r}; name all {len(names)} with --label-column")
    table = np.full((len(rows), len(names)), -1, dtype=np.int8)
    for row, label in enumerate(rows.labels or ()):
        if label is not None:
            table[row] = 0
            for name in _set(rows, label):
                place = called.find(name)
                if place is None:
                    raise _unknown(rows, row, name, names)
                table[row, place] = 1
    return table


def _numbers(rows: Rows, names: Names) -> np.ndarray:
    values = np.full(len(rows), np.nan)
    for row, label in enumerate(rows.labels or ()):
        if label is not None:
            try:
                values[row] = float(label)  # a tuple raises, as a word does
            except (TypeError, ValueError):
                values[row] = math.inf
            if not math.isfinite(values[row]):
                raise UserError(
                    f"{rows.place(row)}: label {label!r} is not a number, and a regression is asked for; "
                    "write one, or choose another --problem"
                )
    return values


def _golds(rows: Rows, names: Names) -> np.ndarray:
    found = np.full(len(rows), None, dtype=object)
    for row, golds in enumerate(rows.labels or ()):
        found[row] = golds
    return found


_NAMED: Mapping[ProblemType, Callable[[Rows, Cell], Sequence[Scalar]]] = MappingProxyType(
    {ProblemType.SINGLE_LABEL: _class, ProblemType.MULTI_LABEL: _set}
)
_ARRAYS: Mapping[ProblemType, Callable[[Rows, Names], np.ndarray]] = MappingProxyType(
    {
        ProblemType.SINGLE_LABEL: _classes,
        ProblemType.MULTI_LABEL: _sets,
        ProblemType.REGRESSION: _numbers,
        ProblemType.QUESTION_ANSWERING: _golds,
    }
)
