"""Cells as texts and labels. A ValueError describes what is wrong with a cell; the caller adds the row."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ziggurat.data.arrow import named

Cell = int | str | float | tuple[int | str | float, ...]  # a label: a class, an amount, or all labels that apply
_NUMBER = re.compile(r"-?(0|[1-9]\d{0,17})(\.\d+)?")
_TRUTH = {"true": True, "false": False}
_NO_VALUE = ("nan", "NaN", "-nan", "-NaN", "NA", "<NA>", "N/A", "n/a", "#N/A", "#NA", "NULL", "null", "None")
ABSENT = frozenset((*_NO_VALUE, "-", "?"))  # what pandas reads as no value, and how SNLI and UCI's files write it
_BRACKETED_NAME = re.compile(r"\[[^\W\d][^,'\"\[\]]*\]")  # as in [Sport], which is no list
_APPLIES = {"1": True, "1.0": True, "0": False, "0.0": False, **_TRUTH}


def text_of(cell: Any, column: str, may_be_blank: bool) -> str:
    """The text in a cell."""
    if not isinstance(cell, str):
        missing = cell is None or (isinstance(cell, float) and math.isnan(cell))
        found = "is missing" if missing else f"is of type {type(cell).__name__}"
        raise ValueError(f"{column!r} {found}; it must be a string")
    if not may_be_blank and not cell.strip():
        raise ValueError(f"{column!r} is blank; fill it or remove the row")
    return cell


def label_of(cells: Sequence[Any], columns: Sequence[str], classes: Mapping[str, Sequence[str]]) -> Cell | None:
    """The label in a row's cell; for several cells of 0 and 1, the columns that apply. None = no label."""
    if len(columns) > 1:
        return _those_that_apply(cells, columns)
    (cell,), (column,) = cells, columns
    if column in classes:
        try:
            cell = named(cell, classes[column])
        except (IndexError, TypeError):
            raise ValueError(f"{column!r} is {cell!r}, and there are {len(classes[column])} classes") from None
    if isinstance(cell, list):
        return tuple(_one_label(label, column) for label in cell)
    if cell is None or (isinstance(cell, str) and not cell.strip()):
        return None
    return _one_label(cell, column)


def typed(labels: Sequence[Any]) -> list[Cell | None]:
    """Labels of a column without types, as in CSV files: converted if all are numbers, or all are true or false.

    A single cell does not tell its type; the column does. A code such as 007 must not become 7, so a number counts only
    in its printed form.
    """
    words = [str(label) for label in labels]
    if all(word.lower() in _TRUTH for word in words):
        return [_TRUTH[word.lower()] for word in words]
    if not all(map(_NUMBER.fullmatch, words)):
        return list(labels)
    if any("." in word for word in words):
        return [float(word) for word in words]
    return list(labels) if "-0" in words else [int(word) for word in words]


def absent_among_numbers(labels: Sequence[Any]) -> list[int]:
    """Rows with an absent value, such as `nan`, in a column without types whose other cells are numbers or truths."""
    given = {row: label for row, label in enumerate(labels) if label is not None}
    absent = [row for row, label in given.items() if str(label).strip() in ABSENT]
    present = [label for label in given.values() if str(label).strip() not in ABSENT]
    return absent if absent and present and not any(isinstance(label, str) for label in typed(present)) else []


def are_lists(cells: Iterable[Any]) -> bool:
    """Whether a column without types holds lists as pandas writes them into CSV: `['a', 'b']`."""
    given = [cell.strip() for cell in cells if isinstance(cell, str) and cell.strip()]
    bracketed = bool(given) and all(cell[0] + cell[-1] == "[]" for cell in given)
    return bracketed and not all(_BRACKETED_NAME.fullmatch(cell) for cell in given)


def list_of(cell: Any) -> Any:
    """The list that a string spells in JSON or in Python; a cell without one as it is. ValueError for other strings."""
    if not isinstance(cell, str) or not cell.strip():
        return cell
    for spelled in (cell, cell.replace("'", '"') if '"' not in cell else cell):
        try:
            return json.loads(spelled)
        except (ValueError, RecursionError):
            continue
    raise ValueError(f'{cell!r} looks like a list and is none; write ["a", "b"], or a column of 0 and 1 for each label')


def _those_that_apply(cells: Sequence[Any], columns: Sequence[str]) -> tuple[str, ...] | None:
    if all(cell is None or cell == "" for cell in cells):
        return None
    found = []
    for cell, column in zip(cells, columns, strict=True):
        applies = _APPLIES.get(str(cell).strip().lower())
        if applies is None:
            raise ValueError(f"{column!r} is {cell!r}; of several label columns each says 0 or 1")
        if applies:
            found.append(column)
    return tuple(found)


def _one_label(label: Any, column: str) -> int | str | float:
    if isinstance(label, float) and not math.isfinite(label):
        raise ValueError(f"{column!r} is {label}; label the row or remove it")
    if not isinstance(label, int | str | float):
        kind = type(label).__name__
        raise ValueError(f"{column!r} is of type {kind}; it must be an integer, a string, a number or a list")
    return label
