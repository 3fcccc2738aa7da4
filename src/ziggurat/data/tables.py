"""Files in, tables of cells out: JSON, CSV, TSV, plain text, Parquet and Arrow. `sources` interprets the cells."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ziggurat.data.arrow import arrow_table, class_names
from ziggurat.data.decoding import decoded, format_of, lines_of, unpacked
from ziggurat.data.delimited import Record, comma_separated, header_cells, tab_separated
from ziggurat.errors import UserError, first_line

TEXT = "text"  # the only column of a file of plain texts
_DEFAULT_NAMES = {TEXT, "text_pair", "label"}


@dataclass(frozen=True)
class Table:
    """One file's cells by column, unchecked."""

    name: str  # of the file
    unit: str  # what `numbers` count: "line", "row" or "file"
    numbers: Sequence[int | str]  # (n), from 1: where each row stands
    cells: Mapping[str, Sequence[Any]]  # column → (n); None = missing
    untyped: bool = False  # every cell is a string, whatever it stands for
    classes: Mapping[str, Sequence[str]] = field(default_factory=dict)  # column of class indices → their names
    broken: Mapping[int, str] = field(default_factory=dict)  # row that cannot be read → what is wrong with it
    notes: tuple[str, ...] = ()  # for the user, about how the file was read
    first: Record | None = None  # what was taken for the header, for a file that has none
    twice: frozenset[str] = frozenset()  # names that several columns have

    def __str__(self) -> str:
        return self.name

    def error(self, row: int, problem: str) -> UserError:
        """A mistake in the row with this index."""
        return UserError(f"{self.place(row)}: {problem}")

    def place(self, row: int) -> str:
        """Where the row with this index stands, for messages."""
        return f"{self.name}, {self.unit} {self.numbers[row]}"

    def column(self, name: str) -> Sequence[Any] | None:
        """A column's cells, (n), or of `a.b` what stands under b in the objects of a; None where there is none.

        UserError where several have the name.
        """
        if name in self.twice:
            raise UserError(f"{self.name}: two columns have the same name, {name!r}; rename one in its first line")
        if name in self.cells:
            return self.cells[name]
        outer, dot, inner = name.partition(".")
        if not dot or outer not in self.cells:
            return None
        objects = [cell if isinstance(cell, Mapping) else {} for cell in self.cells[outer]]
        return from_objects(self, objects).column(inner)

    def require_whole(self) -> Table:
        """Itself; UserError for the first row that cannot be read."""
        for row, problem in self.broken.items():
            raise self.error(row, problem)
        return self

    def take(self, rows: Sequence[int]) -> Table:
        """These rows alone, none of them broken."""
        cells = {name: [column[row] for row in rows] for name, column in self.cells.items()}
        return replace(self, numbers=[self.numbers[row] for row in rows], cells=cells, broken={})


Source = str | Table  # of rows: the name of a file or a data set, or rows in memory as `memory.as_rows` makes them


def read_table(path: Path, encoding: str | None = None, lenient: bool = False) -> Table:
    """The cells of one file with an extension in `READERS`, packed or not.

    UserError names file and line of what is broken; `lenient`: rows that cannot be read are in `broken` instead.
    """
    table = READERS[format_of(path)](path, unpacked(path), encoding)
    return table if lenient else table.require_whole()


def read_text(path: Path) -> str:
    """The text of a file in UTF-8, without a byte order mark."""
    return decoded(unpacked(path), str(path))[0]


def from_objects(like: Table, objects: Sequence[Mapping[str, Any]]) -> Table:
    """The table with the cells of JSON objects; a key that an object lacks is a missing cell."""
    names = dict.fromkeys(name for record in objects for name in record)  # a set that keeps the order
    return replace(like, cells={name: [record.get(name) for record in objects] for name in names})


def _of_objects(path: Path, unit: str, numbers: Sequence[int], objects: Iterable[Any], note: str | None) -> Table:
    """A table of what JSON has in a row's place: objects, or exceptions that say why there is none."""
    rows, broken = list(objects), {}
    for row, found in enumerate(rows):
        if not isinstance(found, dict):
            wrong = f"not valid JSON, fix or remove it ({first_line(found)})" if isinstance(found, Exception) else ""
            broken[row], rows[row] = wrong or 'not an object; write {"text": …, "label": …}', {}
    return from_objects(Table(str(path), unit, numbers, {}, broken=broken, notes=_notes(note)), rows)


def _json_or_error(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # ValueError: bad syntax, or an integer of thousands of digits
        return error


def _read_jsonl(path: Path, content: bytes, encoding: str | None) -> Table:
    text, note = decoded(content, str(path), encoding)
    lines = {n: line for n, line in enumerate(lines_of(text), start=1) if line.strip()}
    return _of_objects(path, "line", list(lines), map(_json_or_error, lines.values()), note)


def _read_json(path: Path, content: bytes, encoding: str | None) -> Table:
    """One list of objects, one object that pandas or `datasets` writes, or an object on each line."""
    text, note = decoded(content, str(path), encoding)
    found = _json_or_error(text)
    if isinstance(found, Exception):
        first = next((line for line in lines_of(text) if line.strip()), "")
        if isinstance(_json_or_error(first), dict):
            return _read_jsonl(path, content, encoding)
        raise UserError(f"{path}: not valid JSON, fix or remove it ({first_line(found)})")
    rows = found if isinstance(found, list) else _rows_of(found) if isinstance(found, dict) else None
    if rows is None:
        raise UserError(f"{path}: not a list of objects; write one list, or one object per line in a .jsonl file")
    return _of_objects(path, "row", range(1, len(rows) + 1), rows, note)


def _rows_of(found: dict[str, Any]) -> list[Any] | None:
    """The rows of an object that has them under "data", or column by column; None for any other.

    What pandas calls the orients split, table, columns and index, a dictionary of lists, or one row by itself.
    """
    data, columns = found.get("data"), found.get("columns")
    if isinstance(data, list) and all(isinstance(row, list) for row in data) and isinstance(columns, list):
        complete = all(len(row) == len(columns) for row in data)
        return [dict(zip(map(str, columns), row, strict=True)) for row in data] if complete else None
    if isinstance(data, list) and all(isinstance(row, dict) for row in data):
        return data
    values = list(found.values())
    if values and all(isinstance(value, list) for value in values):
        alike = len(set(map(len, values))) == 1
        return [dict(zip(found, row, strict=True)) for row in zip(*values, strict=True)] if alike else None
    if values and all(isinstance(value, dict) for value in values):
        if all(name.isdigit() for name in found):
            return values
        index = dict.fromkeys(key for value in values for key in value)
        return [{name: value.get(key) for name, value in found.items()} for key in index]
    return [found]


def _read_csv(path: Path, content: bytes, encoding: str | None) -> Table:
    text, note = decoded(content, str(path), encoding, guess=True)
    return _under_header(path, comma_separated(text, str(path)), _notes(note))


def _read_tsv(path: Path, content: bytes, encoding: str | None) -> Table:
    text, note = decoded(content, str(path), encoding, guess=True)
    records, quotes = tab_separated(text, str(path))
    return _under_header(path, records, _notes(note, quotes))


def read_headless(path: Path, names: Sequence[str]) -> Table:
    """Cells of a CSV file without a header under these names."""
    records = comma_separated(read_text(path), str(path))
    return _under_header(path, [Record(0, 0, list(names)), *records], ()).require_whole()


def without_header(table: Table, label: str | None) -> Table:
    """The table with its header as the first row, its columns called 0, 1, …; `label` is the number of the labels'.

    UserError where this is a header to all appearances.
    """
    if table.first is None:
        return table
    first, columns = table.first.cells, list(table.cells.values())
    cells = {str(place): [name, *column] for place, (name, column) in enumerate(zip(first, columns, strict=True))}
    if _is_header(first, columns, cells.get(label or "", ())):
        raise UserError(
            f"{table.name}, line {table.first.start}: looks like a header; name columns by it, not by numbers: "
            f"{', '.join(map(repr, table.cells))} (if it is a row, put a line with names above it)"
        )
    broken = {row + 1: problem for row, problem in table.broken.items()}
    numbers = [table.first.start, *table.numbers]
    note = f"{table.name}: columns are counted from 0, and line {table.first.start} is read as a row, not as a header"
    notes = (*table.notes, note)
    return replace(table, numbers=numbers, cells=cells, broken=broken, notes=notes, first=None, twice=frozenset())


def _is_header(first: Sequence[str], columns: Sequence[Sequence[Any]], labels: Sequence[Any]) -> bool:
    """Whether the first row is a header: names over numbers, default names of columns, or a label that occurs only
    there while all other labels occur several times.
    """
    if _DEFAULT_NAMES & {cell.strip().casefold() for cell in first}:
        return True
    if any(
        cells and not _is_number(name) and all(map(_is_number, cells))
        for name, cells in zip(first, columns, strict=True)
    ):
        return True
    counts = Counter(labels)
    return len(counts) > 1 and counts.pop(labels[0]) == 1 and min(counts.values()) > 1


def _is_number(cell: Any) -> bool:
    try:
        float(cell)
    except (TypeError, ValueError):
        return False
    return True


def _under_header(path: Path, records: Sequence[Record], notes: tuple[str, ...]) -> Table:
    """A table of records of strings, of which the first names the columns."""
    first, rows = (records[0], records[1:]) if records else (Record(1, 1, []), [])
    header = header_cells(first.cells)
    broken = {
        row: f"{len(record.cells)} cells under {len(header)} columns; put a text that holds the separator in quotes"
        for row, record in enumerate(rows)
        if len(record.cells) != len(header)
    }
    missing: list[str | None] = [None] * len(header)
    filled = [missing if row in broken else record.cells for row, record in enumerate(rows)]
    names = [f"{name}.{header[:n].count(name)}" if name in header[:n] else name for n, name in enumerate(header)]
    twice = frozenset(name for name in header if header.count(name) > 1)
    cells = {name: [row[place] for row in filled] for place, name in enumerate(names)}
    numbers = [record.start for record in rows]
    return Table(str(path), "line", numbers, cells, True, broken=broken, notes=notes, first=first, twice=twice)


def _read_txt(path: Path, content: bytes, encoding: str | None) -> Table:
    """One text on each line, blank ones included, for answers stand beside them."""
    text, note = decoded(content, str(path), encoding, guess=True)
    lines = lines_of(text)
    lines = lines if lines[-1] else lines[:-1]
    if len(lines) > 1 and lines[0].count("\t") > 0 and len({line.count("\t") for line in lines}) == 1:
        raise UserError(f"{path}: has tabs as a table has, and .txt is one text on each line; call it {path.stem}.tsv")
    return Table(str(path), "line", range(1, len(lines) + 1), {TEXT: lines}, notes=_notes(note))


def _read_arrow(path: Path, content: bytes, encoding: str | None) -> Table:
    table = arrow_table(path, content)
    try:
        cells = table.to_pydict()
    except Exception as error:  # values that Python has no type for: these have no base class in common
        raise UserError(f"{path}: cannot be read, write it again with plain columns ({first_line(error)})") from error
    return Table(str(path), "row", range(1, len(table) + 1), cells, classes=class_names(table.schema.metadata))


def _notes(*perhaps: str | None) -> tuple[str, ...]:
    return tuple(note for note in perhaps if note is not None)


READERS: Mapping[str, Callable[[Path, bytes, str | None], Table]] = MappingProxyType(
    {
        ".jsonl": _read_jsonl,
        ".ndjson": _read_jsonl,
        ".json": _read_json,
        ".csv": _read_csv,
        ".tsv": _read_tsv,
        ".tab": _read_tsv,
        ".txt": _read_txt,
        ".parquet": _read_arrow,
        ".arrow": _read_arrow,
        ".feather": _read_arrow,
    }
)
