"""Rows out of a file, a folder of files or a Hugging Face data set; every mistake in them names its place."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ziggurat.data.tables import READERS, Table, first_line, read_table
from ziggurat.errors import UserError, install

Cell = int | str | float | tuple[int | str | float, ...]  # a label: a class, an amount, or all labels that apply
_NUMBER = re.compile(r"-?(0|[1-9]\d{0,17})(\.\d+)?")


@dataclass(frozen=True)
class Columns:
    """What the columns of a source are called."""

    text: str = "text"
    pair: str | None = None  # second text of a pair; None = "text_pair" where there is such a column
    label: str | None = "label"  # None = read no labels, whatever is there


DEFAULT_COLUMNS = Columns()


@dataclass(frozen=True)
class Rows:
    """What a source holds, in its order; nothing is mapped, split or tokenised yet."""

    texts: list[str]  # (n), none of them blank
    pairs: list[str] | None  # (n), may be empty strings
    labels: list[Cell | None] | None  # (n); None in the list = this row has none
    source: str  # as the user wrote it, for messages
    label_names: tuple[str, ...] | None = None  # of a data set whose classes have an order; None = those that occur
    tables: tuple[Table, ...] = ()  # of which these are all rows; () = their place is not known

    def __len__(self) -> int:
        return len(self.texts)

    def place(self, row: int) -> str:
        """Where the row with this index stands, for messages: file and line where they are known."""
        before = 0
        for table in self.tables:
            if row < before + len(table.numbers):
                return table.place(row - before)
            before += len(table.numbers)
        return f"{self.source}: row {row + 1}"


def read_rows(source: str, columns: Columns = DEFAULT_COLUMNS, labels_required: bool = False) -> Rows:
    """Rows of a .jsonl, .ndjson, .json, .csv, .tsv or .parquet file, a folder of them, or `hf:NAME[:CONFIG]@SPLIT`.

    A label is int, str, float or a list of them (as a tuple); true and false become 1 and 0; a CSV or TSV label column
    that holds nothing but integers becomes ints, one of numbers, not all of them whole, floats. Without a label column
    (or with an empty one) `labels` is None.

    Raises:
        UserError: unreadable source, missing column, blank text, NaN label, labels for some rows only, or (where
            `labels_required`) none at all. The message names file, row and fix.
    """
    tables = [_read_hub(source, columns)] if source.startswith("hf:") else [read_table(f) for f in _data_files(source)]
    for table in tables:
        if not table.numbers:
            raise UserError(f"{table.name}: no rows; put rows into it or remove it")
    existing = tables[0].cells.keys()
    pair = columns.pair if columns.pair is not None else "text_pair" if "text_pair" in existing else None
    label = columns.label if labels_required or columns.label in existing else None
    _require_columns(tables, [columns.text, pair, label])
    _require_same(tables, [columns.pair or "text_pair", *([columns.label] if columns.label else [])])
    texts = [text for table in tables for text in _texts(table, columns.text, may_be_blank=False)]
    pairs = None if pair is None else [text for table in tables for text in _texts(table, pair, may_be_blank=True)]
    labels = None if label is None else _labels(tables, label, labels_required)
    return Rows(texts, pairs, labels, source, tables=tuple(tables))


def _data_files(source: str) -> list[Path]:
    """The file itself, or the data files of a folder by name."""
    path = Path(source).expanduser()
    known = ", ".join(READERS)
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.suffix.lower() in READERS and not p.name.startswith("."))
        if not files:
            raise UserError(f"{source}: no data files in this folder; it needs {known}")
        return files
    if not path.exists():
        raise UserError(f"{source}: no such file or folder{_hub_hint(source)}")
    if path.suffix.lower() not in READERS:
        raise UserError(f"{source}: unknown extension {path.suffix!r}; use one of {known}")
    return [path]


def _hub_hint(source: str) -> str:
    """What to write if a name without a file was meant as a data set on the hub."""
    name, _, split = source.partition("@")
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?(:[\w.-]+)?", name) or Path(name).suffix.lower() in READERS:
        return "; check the path"
    return f"; for a Hugging Face data set write hf:{name}@{split or 'train'}"


def _read_hub(source: str, columns: Columns) -> Table:
    address, at, split = source.removeprefix("hf:").rpartition("@")
    name, _, config = address.partition(":")
    if not (name and at and split):
        raise UserError(f"{source}: no split named; write hf:NAME@SPLIT or hf:NAME:CONFIG@SPLIT, as in hf:ag_news@test")
    dataset = hub_dataset(name, config or None, split, source, "check name and network")
    cells = {column: list(dataset[column]) for column in dataset.column_names}
    label = dataset.features.get(columns.label)
    classes, several = (getattr(kind, "names", None) for kind in (label, getattr(label, "feature", None)))
    if classes is not None:  # class indices; -1 is the hub's way to withhold a label
        cells[columns.label] = [None if i is None or i < 0 else classes[i] for i in cells[columns.label]]
    elif several is not None:  # all classes that apply
        cells[columns.label] = [None if some is None else [several[i] for i in some] for some in cells[columns.label]]
    return Table(source, "row", range(1, len(dataset) + 1), cells)


def hub_dataset(name: str, config: str | None, split: str, source: str, fix: str) -> Any:
    """A split of a data set on the hub, a `datasets.Dataset`; UserError with the fix where it cannot be had."""
    try:
        import datasets
    except ImportError as error:
        raise UserError(f"{source}: Hugging Face data sets need a package; {install('train')}") from error
    try:
        return datasets.load_dataset(name, config, split=split)
    except Exception as error:  # no network, unknown name, config or split: these have no base class in common
        raise UserError(f"{source}: cannot be loaded, {fix} ({first_line(error)})") from error


def _require_columns(tables: Iterable[Table], wanted: Sequence[str | None]) -> None:
    for table in tables:
        for column in wanted:
            if column is not None and column not in table.cells:
                existing = ", ".join(map(repr, table.cells))
                raise UserError(f"{table.name}: no column {column!r}; it has {existing}; name the right one")


def _require_same(tables: Sequence[Table], optional: Iterable[str]) -> None:
    """Pairs or labels that only a later file has would be lost without a word."""
    for column in optional:
        for table in tables:
            if column in table.cells and column not in tables[0].cells:
                raise UserError(f"{tables[0].name}: no column {column!r}, but {table.name} has one; make them alike")


def _texts(table: Table, column: str, may_be_blank: bool) -> list[str]:
    for row, text in enumerate(table.cells[column]):
        if not isinstance(text, str):
            found = "is missing" if text is None else f"is of type {type(text).__name__}"
            raise table.error(row, f"{column!r} {found}; it must be a string")
        if not may_be_blank and not text.strip():
            raise table.error(row, f"{column!r} is blank; fill it or remove the row")
    return list(table.cells[column])


def _labels(tables: Sequence[Table], column: str, required: bool) -> list[Cell | None] | None:
    """The labels of all tables, or None where no row has one and none is required."""
    labels = [_label(table, column, row) for table in tables for row in range(len(table.numbers))]
    if not required and all(label is None for label in labels):
        return None
    if None in labels:
        places = [(table, row) for table in tables for row in range(len(table.numbers))]
        table, row = places[labels.index(None)]
        raise table.error(row, f"no {column!r}; label the row or move it to a file without labels")
    return _typed([str(label) for label in labels]) or labels if any(table.untyped for table in tables) else labels


def _typed(labels: list[str]) -> list[Cell | None]:
    """The labels of a CSV file as the numbers that they all are; [] if they are not.

    Only the column as a whole says what its cells are. A code such as 007 must not become 7, so a number counts only if
    it is written the way it would be printed.
    """
    if not all(map(_NUMBER.fullmatch, labels)):
        return []
    if not any("." in label for label in labels):
        return [] if "-0" in labels else [int(label) for label in labels]
    numbers = [float(label) for label in labels]
    return [] if all(number.is_integer() for number in numbers) else [*numbers]


def _label(table: Table, column: str, row: int) -> Cell | None:
    label = table.cells[column][row]
    if isinstance(label, list):
        return tuple(_one_label(table, column, row, each) for each in label)
    if label is None or (isinstance(label, str) and not label.strip()):
        return None
    return _one_label(table, column, row, label)


def _one_label(table: Table, column: str, row: int, label: Any) -> int | str | float:
    if isinstance(label, float) and not math.isfinite(label):
        raise table.error(row, f"{column!r} is {label}; label the row or remove it")
    if not isinstance(label, int | str | float):
        kind = type(label).__name__
        raise table.error(row, f"{column!r} is of type {kind}; it must be an integer, a string, a number or a list")
    return int(label) if isinstance(label, bool) else label
