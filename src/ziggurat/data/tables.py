"""Files in, tables of cells out: JSON, CSV, TSV and Parquet. What the cells mean is checked in `sources`."""

from __future__ import annotations

import codecs
import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ziggurat.errors import UserError, install
from ziggurat.files import refuse_pointer


@dataclass(frozen=True)
class Table:
    """One file's cells by column, before anybody has checked them."""

    name: str  # of the file
    unit: str  # what `numbers` count: "line" or "row"
    numbers: Sequence[int]  # (n), from 1: where each row stands
    cells: Mapping[str, Sequence[Any]]  # column → (n); None = missing
    untyped: bool = False  # every cell is a string, whatever it stands for

    def error(self, row: int, problem: str) -> UserError:
        """A mistake in the row with this index."""
        return UserError(f"{self.place(row)}: {problem}")

    def place(self, row: int) -> str:
        """Where the row with this index stands, for messages."""
        return f"{self.name}, {self.unit} {self.numbers[row]}"


def read_table(path: Path) -> Table:
    """The cells of one file with an extension in `READERS`; UserError names file and line of what is broken."""
    try:
        return READERS[path.suffix.lower()](path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or first_line(error)})") from error


def first_line(error: BaseException) -> str:
    """What another library says went wrong, short enough for a one-line message."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def read_text(path: Path) -> str:
    """The file's text without a byte order mark."""
    refuse_pointer(path)
    content = path.read_bytes().removeprefix(codecs.BOM_UTF8)
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}, line {line}: not valid UTF-8; save the file as UTF-8") from error


def _parse_json(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # ValueError: bad syntax, or an integer of thousands of digits
        raise UserError(f"{place}: not valid JSON, mend or remove it ({first_line(error)})") from error


def _from_objects(path: Path, unit: str, numbers: Sequence[int], objects: Sequence[Any]) -> Table:
    """A table of JSON objects; a key that an object lacks is a missing cell."""
    for number, record in zip(numbers, objects, strict=True):
        if not isinstance(record, dict):
            raise UserError(f'{path}, {unit} {number}: not an object; write {{"text": …, "label": …}}')
    names = dict.fromkeys(name for record in objects for name in record)  # a set that keeps the order
    return Table(str(path), unit, numbers, {name: [record.get(name) for record in objects] for name in names})


def _read_jsonl(path: Path) -> Table:
    # Not splitlines(): it would also cut at characters such as U+2028, which JSON allows inside a string.
    lines = {n: line for n, line in enumerate(read_text(path).split("\n"), start=1) if line.strip()}
    objects = [_parse_json(line, f"{path}, line {n}") for n, line in lines.items()]
    return _from_objects(path, "line", list(lines), objects)


def _read_json(path: Path) -> Table:
    content = _parse_json(read_text(path), str(path))
    if not isinstance(content, list):
        raise UserError(f"{path}: not a list of objects; write one list, or one object per line in a .jsonl file")
    return _from_objects(path, "row", range(1, len(content) + 1), content)


def _read_csv(path: Path) -> Table:
    return read_delimited(path, ",")


def _read_tsv(path: Path) -> Table:
    return read_delimited(path, "\t")


def read_delimited(path: Path, delimiter: str, names: Sequence[str] | None = None) -> Table:
    """Cells in RFC 4180 quoting under a header; `names` are the columns of a file that has none."""
    reader = csv.reader(io.StringIO(read_text(path), newline=""), delimiter=delimiter, strict=True)
    records: dict[int, list[str]] = {}  # by the line on which they start: a quoted cell may span several
    limit = csv.field_size_limit(2**31 - 1)  # the default refuses a cell of more than 131,072 characters
    try:
        start = 1
        for record in reader:
            if record:  # an empty line is no record
                records[start] = record
            start = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f'{path}, line {start}: {error}; put a text with quotes in quotes and double each "') from error
    finally:
        csv.field_size_limit(limit)
    header = list(names) if names is not None else records.pop(next(iter(records), 0), [])
    if len(set(header)) < len(header):
        raise UserError(f"{path}: two columns have the same name; the first line must be a header")
    for start, record in records.items():
        if len(record) != len(header):
            problem = f"{len(record)} cells under {len(header)} columns"
            raise UserError(f"{path}, line {start}: {problem}; put a text that holds the separator in quotes")
    cells = {name: [record[i] for record in records.values()] for i, name in enumerate(header)}
    return Table(str(path), "line", list(records), cells, untyped=True)


def _read_parquet(path: Path) -> Table:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise UserError(f"{path}: reading Parquet needs pyarrow; {install('train')}") from error
    refuse_pointer(path)
    try:
        table = pyarrow.parquet.read_table(path)
    except pyarrow.ArrowException as error:
        raise UserError(f"{path}: not a readable Parquet file, write it again ({first_line(error)})") from error
    return Table(str(path), "row", range(1, len(table) + 1), table.to_pydict())


READERS: Mapping[str, Callable[[Path], Table]] = MappingProxyType(
    {
        ".jsonl": _read_jsonl,
        ".ndjson": _read_jsonl,
        ".json": _read_json,
        ".csv": _read_csv,
        ".tsv": _read_tsv,
        ".parquet": _read_parquet,
    }
)
