"""Rows out of a file, a folder of files or a Hugging Face data set; every mistake in them names its place."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from ziggurat.data.arrow import names_in
from ziggurat.data.cells import Cell, absent_among_numbers, are_lists, label_of, list_of, text_of, typed
from ziggurat.data.folders import tables_in
from ziggurat.data.tables import Source, Table, without_header
from ziggurat.errors import UserError, first_line, install

FAIL, SKIP, NULL = ON_ERROR = ("fail", "skip", "null")
_PAIR = "text_pair"
_NAMED = 3  # rows, or columns of a long header, by name


@dataclass(frozen=True)
class Columns:
    """Names of the columns of a source, and options for reading it."""

    text: str = "text"  # or a number, from 0, in a CSV or TSV file without a header; `a.b` = b in the objects of a
    pair: str | None = None  # second text of a pair; None = "text_pair" where there is such a column
    label: str | None = "label"  # `a,b` = columns of 0 and 1, of labels that may all apply; None = read no labels
    encoding: str | None = None  # of its files; None = as their first bytes say, else UTF-8
    on_error: str = FAIL  # rows that cannot be read: "fail", "skip" them, or "null": `predict` answers null

    def __post_init__(self) -> None:
        if self.on_error not in ON_ERROR:
            raise UserError(f"on_error {self.on_error!r}: is not known; choose one of {', '.join(ON_ERROR)}")


DEFAULT_COLUMNS = Columns()


@dataclass(frozen=True)
class Rows:
    """Rows of a source, in its order, before any mapping, splitting or tokenisation."""

    texts: list[str]  # (n)
    pairs: list[str] | None  # (n), may be empty strings
    labels: list[Any] | None  # (n) `Cell`s, of questions tuples of `squad.Gold`; None in the list = this row has none
    source: str  # as the user wrote it, for messages
    label_names: tuple[str, ...] | None = None  # of a data set whose classes have an order; None = those that occur
    tables: tuple[Table, ...] = ()  # of which these are all rows; () = their place is not known
    left_out: Mapping[int, str] = field(default_factory=dict)  # index among all rows of the source → what is wrong
    ids: list[str] | None = None  # (n) identifiers of rows in the source; None = it has none
    articles: list[str] | None = None  # (n) the article of each second text; None = rows have no articles

    def __len__(self) -> int:
        return len(self.texts)

    def place(self, row: int) -> str:
        """Place of the row with this index, for messages: file and line where they are known."""
        return _place(self.tables, row) or f"{self.source}: row {row + 1}"


def read_rows(source: Source, columns: Columns = DEFAULT_COLUMNS, labels_required: bool = False) -> Rows:
    """Rows of a file, a folder of files, FOLDER@SPLIT, or `hf:NAME[:CONFIG]@SPLIT`; `tables` has the formats.

    Or those of a table in memory, as `memory.as_rows` makes it.

    A label is int, bool, str, float or a list of them (as a tuple); a CSV or TSV label column becomes bools if all of
    it is true or false, ints or floats if all of it are numbers. Without a label column (or with an empty one)
    `labels` is None. A blank text is an error where labels are read; where rows are but to be answered
    (`columns.label` None) it is a text like others. What had to be guessed and what is left out is logged.

    Raises:
        UserError: unreadable source, missing column, no labels although they are `labels_required`; with
            `columns.on_error` "fail" a row that cannot be read: no text, NaN for a label, a label for others only. The
            message names file, row and fix.
    """
    tables = _tables(source, columns)
    pair, labels = _columns_in(tables, columns, labels_required)
    faults: dict[int, str] = _broken(tables)
    answered = columns.label is None and columns.on_error == FAIL  # whether blank texts are
    texts = _cells(tables, columns.text, faults, answered)
    pairs = None if pair is None else _cells(tables, pair, faults, may_be_blank=True)
    cells = _labels(tables, labels, faults, labels_required) if labels else None
    if faults and columns.on_error == FAIL:
        raise _fault(tables, faults)
    if len(faults) == len(texts):
        raise UserError(f"{_place(tables, 0)}: {faults[0]} (and no other row of {source} can be read)")
    readable = [row for row in range(len(texts)) if row not in faults]
    if cells is not None:
        cells = [cells[row] for row in readable]
        cells = typed(cells) if len(labels) == 1 and any(table.untyped for table in tables) else cells
    rows = Rows(
        [texts[row] for row in readable],
        None if pairs is None else [pairs[row] for row in readable],
        cells,
        str(source),
        labels if len(labels) > 1 and cells is not None else None,
        _without(tables, faults),
        {row: f"{_place(tables, row)}: {faults[row]}" for row in sorted(faults)},
    )
    _log_reading(rows, tables)
    return rows


def _tables(source: Source, columns: Columns) -> list[Table]:
    if isinstance(source, Table):
        tables = [source if columns.on_error != FAIL else source.require_whole()]
    elif source.startswith("hf:"):
        tables = [_read_hub(source)]
    else:
        tables = tables_in(source, columns.encoding, columns.on_error != FAIL)
    for table in tables:
        if not table.numbers:
            raise UserError(f"{table.name}: no rows; put rows into it or remove it")
    named = (columns.text, columns.pair, columns.label)
    numbers = [name for name in named if name is not None and name.isdecimal()]
    return [
        without_header(table, columns.label) if any(number not in table.cells for number in numbers) else table
        for table in tables
    ]


def _read_hub(source: str) -> Table:
    address, at, split = source.removeprefix("hf:").rpartition("@")
    name, _, config = address.partition(":")
    if not (name and at and split):
        raise UserError(f"{source}: no split named; write hf:NAME@SPLIT or hf:NAME:CONFIG@SPLIT, as in hf:ag_news@test")
    dataset = hub_dataset(name, config or None, split, source, "check name and network")
    cells = {column: list(dataset[column]) for column in dataset.column_names}
    return Table(source, "row", range(1, len(dataset) + 1), cells, classes=names_in(dataset.features.to_dict()))


def hub_dataset(name: str, config: str | None, split: str, source: str, fix: str) -> Any:
    """A split of a data set on the hub, a `datasets.Dataset`; UserError with the fix if it cannot be loaded."""
    try:
        import datasets
    except ImportError as error:
        raise UserError(f"{source}: Hugging Face data sets need a package; {install('train')}") from error
    try:
        return datasets.load_dataset(name, config, split=split)
    except Exception as error:  # no network, unknown name, config or split: these have no base class in common
        raise UserError(f"{source}: cannot be loaded, {fix} ({first_line(error)})") from error


def _columns_in(tables: Sequence[Table], columns: Columns, required: bool) -> tuple[str | None, tuple[str, ...]]:
    """The columns of the second texts and of the labels, if there are any; UserError for a missing column."""
    first = tables[0]
    pair = columns.pair if columns.pair is not None else _PAIR if first.column(_PAIR) is not None else None
    label = columns.label
    labels: tuple[str, ...] = ()
    if label is not None and (required or label != DEFAULT_COLUMNS.label or first.column(label) is not None):
        labels = (label,) if first.column(label) is not None else tuple(name.strip() for name in label.split(","))
    if columns.text in labels:
        raise UserError(f"--label-column {label}: is the column of the texts; name the one with the labels")
    for table in tables:
        _require(table, columns.text, "--text-column")
        _require(table, pair, "--pair-column")
        for name in labels:
            _require(table, name, "--label-column")
    for column in (columns.pair or _PAIR, *([] if label is None or labels else [label])):
        for table in tables:  # a column of only a later file would be ignored silently
            if table.column(column) is not None and first.column(column) is None:
                raise UserError(f"{first.name}: no column {column!r}, but {table.name} has one; make them alike")
    return pair, labels


def _require(table: Table, column: str | None, option: str) -> None:
    if column is None or table.column(column) is not None:
        return
    names = [repr(name if len(name) <= 40 else name[:39] + "…") for name in table.cells]
    known = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
    headless = f"; if it has no header count them from 0, as in {option} 0" if table.first is not None else ""
    raise UserError(f"{table.name}: no column {column!r}; it has {known}; name the right one with {option}{headless}")


def _broken(tables: Iterable[Table]) -> dict[int, str]:
    """Rows that cannot be read at all, by their index among those of all tables."""
    faults: dict[int, str] = {}
    before = 0
    for table in tables:
        faults |= {before + row: problem for row, problem in table.broken.items()}
        before += len(table.numbers)
    return faults


def _cells(tables: Iterable[Table], column: str, faults: dict[int, str], may_be_blank: bool) -> list[str]:
    """The texts of a column of all tables; a cell without a text becomes "" and a fault."""
    texts = []
    for row, cell in enumerate(chain.from_iterable(table.column(column) or () for table in tables)):
        try:
            texts.append(text_of(cell, column, may_be_blank))
        except ValueError as error:
            texts.append("")
            faults.setdefault(row, str(error))
    return texts


def _labels(
    tables: Sequence[Table], columns: Sequence[str], faults: dict[int, str], required: bool
) -> list[Cell | None] | None:
    """The labels of all tables, or None where no row has one and none is required; a missing one is a fault."""
    labels: list[Cell | None] = []
    missing, wrong = [], {}
    untyped = len(columns) == 1 and any(table.untyped for table in tables)
    lists = untyped and are_lists(chain.from_iterable(table.column(columns[0]) or () for table in tables))
    for table in tables:
        for cells in zip(*(table.column(column) or () for column in columns), strict=True):
            row = len(labels)
            try:
                labels.append(label_of([list_of(cells[0])] if lists else cells, columns, table.classes))
            except ValueError as error:
                labels.append(None)
                wrong[row] = str(error)
            else:
                if labels[-1] is None:
                    missing.append(row)
    missing += absent_among_numbers(labels) if untyped else []
    if len(missing) == len(labels) and not required:
        return None
    wanted = " and ".join(map(repr, columns))
    lacking = dict.fromkeys(missing, f"no {wanted}; label the row or move it to a file without labels")
    for row, problem in (lacking | wrong).items():
        faults.setdefault(row, problem)
    return labels


def _fault(tables: Sequence[Table], faults: Mapping[int, str]) -> UserError:
    row = min(faults)
    more = f" ({len(faults):,} rows are like that; --on-error skip leaves them out)" if len(faults) > 1 else ""
    return UserError(f"{_place(tables, row)}: {faults[row]}{more or ', or leave it out with --on-error skip'}")


def _place(tables: Iterable[Table], row: int) -> str:
    before = 0
    for table in tables:
        if row < before + len(table.numbers):
            return table.place(row - before)
        before += len(table.numbers)
    return ""


def _without(tables: Iterable[Table], faults: Mapping[int, str]) -> tuple[Table, ...]:
    """The tables without these rows."""
    found, before = [], 0
    for table in tables:
        n = len(table.numbers)
        readable = [row for row in range(n) if before + row not in faults]
        found.append(table if len(readable) == n else table.take(readable))
        before += n
    return tuple(found)


def _log_reading(rows: Rows, tables: Iterable[Table]) -> None:
    """Logs guesses, skipped rows and blank texts, one line each."""
    log = logging.getLogger(__name__).warning
    for note in chain.from_iterable(table.notes for table in tables):
        log(note)
    if rows.left_out:
        named = "; ".join([*rows.left_out.values()][:_NAMED])
        log(f"{rows.source}: {len(rows.left_out):,} of {len(rows) + len(rows.left_out):,} rows cannot be read: {named}")
    log_blank(rows)


def log_blank(rows: Rows) -> None:
    """Logs number and places of blank texts: models answer them, too, from their special tokens alone."""
    blank = [row for row, text in enumerate(rows.texts) if not text.strip()]
    if blank:
        places = ", ".join(rows.place(row) for row in blank[:_NAMED]) + (", …" if len(blank) > _NAMED else "")
        message = "%s: %d of %d texts are blank and read as empty ones (--on-error skip leaves such rows out): %s"
        logging.getLogger(__name__).warning(message, rows.source, len(blank), len(rows), places)
