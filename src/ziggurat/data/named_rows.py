"""Rows of a named task: its texts joined, its classes called by their names."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ziggurat.data.catalogue import Shape, Task
from ziggurat.data.cells import Cell
from ziggurat.data.layouts import task_table
from ziggurat.data.named import Named
from ziggurat.data.sources import Rows
from ziggurat.data.tables import Table
from ziggurat.errors import UserError
from ziggurat.types import Problem


def task_rows(named: Named, labels: bool = True, labels_required: bool = False) -> Rows:
    """The split's rows; classes are called by their names, amounts are floats. `labels` False = leave them out.

    Rows without a (first) text or, among labelled ones, without a label are left out, and their number is logged: the
    releases have some. UserError where the split is not there or not what it should be.
    """
    task = named.task
    if task.problem is Problem.QUESTION_ANSWERING:
        raise UserError(
            f"{named.source}: questions, answered by a span; labels are wanted here, take a task that has some"
        )
    rows = _read(*task_table(named), named, labels)
    if labels_required and rows.labels is None:
        raise UserError(
            f"{named.source}: its rows have no labels (those of test rows are often secret); "
            f"take the split {task.evaluation!r}: --task {task.name}"
        )
    return rows


def called_like(rows: Rows, labels: Sequence[int | str], task: Task | None = None) -> Rows:
    """The rows of a task under a model's own labels: numbers from 0, or the same words in another spelling.

    Plain rows of classes 0, 1, … are taken for those of the `task` that the model was trained on. Any others, and rows
    for a model with other labels, stay as they are.
    """
    names = rows.label_names or ()
    if task is not None and not names and _are_numbered(rows, len(task.names)):
        names = task.names
        rows = replace(rows, labels=[names[int(str(label))] for label in rows.labels or ()])
    spelled = {str(label).casefold(): label for label in labels}
    if list(labels) == list(range(len(names))):
        own: dict[Any, int | str] = dict(zip(names, labels, strict=True))
    elif len(names) == len(labels) and spelled.keys() == {name.casefold() for name in names}:
        own = {name: spelled[name.casefold()] for name in names}
    else:
        return rows
    called: list[Cell | None] = [
        tuple(own[one] for one in each) if isinstance(each, tuple) else own.get(each) for each in rows.labels or ()
    ]
    return replace(rows, labels=rows.labels and called, label_names=None)


def _are_numbered(rows: Rows, n: int) -> bool:
    """Whether every row has one of the class numbers 0 … n - 1."""
    return bool(rows.labels) and all(type(label) is int and 0 <= label < n for label in rows.labels or ())


def _read(table: Table, shape: Shape, named: Named, labels: bool) -> Rows:
    for column in [*shape.texts, *([] if shape.pair is None else [shape.pair])]:
        if column not in table.cells:
            existing = ", ".join(map(repr, table.cells))
            raise UserError(f"{table.name}: no column {column!r} of {named.task.name}; it has {existing}")
    texts = [_joined(cells, named.task) for cells in zip(*(table.cells[name] for name in shape.texts), strict=True)]
    seconds = [None] * len(texts) if shape.pair is None else table.cells[shape.pair]
    found = _labels(table, shape, named.task) if labels else [None] * len(texts)
    labelled = any(label is not None for label in found)
    whole = [
        bool(text.strip()) and (shape.pair is None or isinstance(second, str)) and (label is not None or not labelled)
        for text, second, label in zip(texts, seconds, found, strict=True)
    ]
    kept = [row for row, is_whole in enumerate(whole) if is_whole]
    if not kept:
        raise UserError(f"{table.name}: no rows of {named.task.name}; put rows into it, or get it again")
    if len(kept) < len(whole):
        message = "%s: %d broken or blank rows are left out, the first in %s %d"
        place = table.numbers[whole.index(False)]
        logging.getLogger(__name__).warning(message, table.name, len(whole) - len(kept), table.unit, place)
    pairs = None if shape.pair is None else [_joined([seconds[row]], named.task) for row in kept]
    return Rows(
        [texts[row] for row in kept],
        pairs,
        [found[row] for row in kept] if labelled else None,
        named.source,
        named.task.names or None,
    )


def _joined(cells: Iterable[Any], task: Task) -> str:
    text = " ".join(str(cell) for cell in cells if cell is not None and str(cell).strip())
    if task.escaped:  # in this order: the hub's copies left some quotes doubled
        text = text.replace('\\""', '"').replace('\\"', '"').replace("\\n", "\n")
    return text


def _labels(table: Table, shape: Shape, task: Task) -> list[int | str | float | None]:
    """Names of classes, or amounts; None where a row has none, which files and the hub write in several ways."""
    if shape.label not in table.cells:
        return [None] * len(table.numbers)
    named: Mapping[str, str] = {str(place): name for place, name in enumerate(task.names, start=shape.first)}
    read = _amount if task.problem is Problem.REGRESSION else lambda cell: named.get(cell, cell)
    found: list[int | str | float | None] = []
    for row, cell in enumerate(table.cells[shape.label]):
        text = "" if cell is None else str(cell).strip()
        label = None if text in ("", "-1", "-1.0", "-") else read(text)
        if label is not None and task.names and label not in task.names:
            raise table.error(row, f"label {text!r} is none of {task.name}: {_known(task.names, named)}")
        if isinstance(label, float) and math.isnan(label):
            raise table.error(row, f"label {text!r} is no number; {task.name} has amounts")
        found.append(label)
    return found


def _amount(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _known(names: Sequence[str], numbers: Mapping[str, str]) -> str:
    first, *_, last = numbers
    return f"give {first} to {last}, or {', '.join(names)}"
