"""CSV and TSV: finds where rows begin and end."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from typing import NamedTuple

from ziggurat.data.decoding import lines_of
from ziggurat.errors import UserError

SEPARATORS = (",", ";", "\t", "|")
_NAMED_SEPARATOR = re.compile(r"(sep=([,;\t|]))(?=\r|\n)")
_QUOTED_TABS = re.compile(r'(?:(?:"(?:[^"]++|"")*+"|[^"\t\r\n]*+)(?:\t|\r\n?|\n|\Z))*+')  # RFC 4180, whole file
_MOST_LINES = 8  # of a cell whose every line has a row's separators: longer ones do not happen by chance


class Record(NamedTuple):
    """One row's cells, and the lines from 1 that it stands on."""

    start: int
    end: int
    cells: list[str]


def comma_separated(text: str, place: str, separator: str = ",") -> list[Record]:
    """Records in RFC 4180 quoting; UserError for broken quotes, or such as seem to swallow rows.

    Another separator than a comma is found where it alone gives every record, or failing that most, as many cells as
    the header has; Excel's first line `sep=;` names it.
    """
    if named := _NAMED_SEPARATOR.match(text):
        text, separator = text[named.end(1) :], named[2]  # with its line end, so that lines keep their numbers
    ragged = None  # with most rows as wide as the header: the caller says which are not
    for candidate in (separator, *(other for other in SEPARATORS if other != separator)):
        try:
            records = _quoted(text, candidate, place)
        except UserError:
            continue
        width = len(records[0].cells) if records else 0
        alike = sum(len(record.cells) == width for record in records)
        if alike == len(records) and width > 1:
            _refuse_swallowing(text, candidate, records, place)
            return records
        if ragged is None and alike > max(1, len(records) // 2) and width > 1:
            ragged = records
    return ragged or _quoted(text, separator, place)


def tab_separated(text: str, place: str) -> tuple[list[Record], str | None]:
    """Records between tabs, and a note for the user about quotes (None = no note).

    Pandas quotes cells as in CSV; in corpora a quote is an ordinary character. Cells count as quoted if all quotes of
    the file are valid in RFC 4180, unless each line has the tabs of a row although a quoted cell would span several
    lines.
    """
    plain = [Record(n, n, line.split("\t")) for n, line in enumerate(lines_of(text), start=1) if line]
    if '"' not in text or _QUOTED_TABS.fullmatch(text) is None:
        return plain, None
    records = _quoted(text, "\t", place)
    long = [record for record in records if record.end > record.start]
    if not long:
        return records, None
    alike = len({len(record.cells) for record in plain}) == 1
    where = f"{place}, line {long[0].start}: a quote that closes in line {long[0].end}"
    if alike and len(plain[0].cells) > 1:
        return plain, f"{where}; every line is a row, so quotes are read as they stand"
    if alike or _swallowing(text, "\t", records):
        raise UserError(f"{where}: one row or {long[0].end - long[0].start + 1}? Write the file as JSON lines or CSV")
    return records, None


def header_cells(cells: Sequence[str]) -> list[str]:
    """Names of columns; those without one are called as pandas calls them."""
    return [cell.strip() or f"Unnamed: {place}" for place, cell in enumerate(cells)]


def _quoted(text: str, separator: str, place: str) -> list[Record]:
    reader = csv.reader(_lines(text), delimiter=separator, strict=True)
    records: list[Record] = []
    limit = csv.field_size_limit(2**31 - 1)  # the default refuses a cell of more than 131,072 characters
    start = 1
    try:
        for cells in reader:
            if cells:  # an empty line is no record
                records.append(Record(start, reader.line_num, cells))
            start = reader.line_num + 1
    except csv.Error as error:
        raise UserError(
            f'{place}, line {start}: {error}; put a text with quotes or line ends in quotes and double each "'
        ) from error
    finally:
        csv.field_size_limit(limit)
    return records


def _lines(text: str) -> io.StringIO:
    """An iterable of lines for the csv module, which would take a carriage return alone for the end of one."""
    return io.StringIO(text, newline="\n" if "\n" in text else "")


def _swallowing(text: str, separator: str, records: Sequence[Record]) -> Record | None:
    """A record that may have swallowed others: each of its many lines, or each line of the file, looks like a row."""
    long = [record for record in records if record.end - record.start >= 2]
    if not long:
        return None
    lines = list(_lines(text))
    width = len(records[0].cells)
    alike = [line.count(separator) == width - 1 or not line.strip() for line in lines]
    all_alike = all(alike)
    for record in long:
        n = record.end - record.start + 1
        if all(alike[record.start - 1 : record.end]) and (all_alike or n >= (3 if separator == "\t" else _MOST_LINES)):
            return record
    return None


def _refuse_swallowing(text: str, separator: str, records: Sequence[Record], place: str) -> None:
    found = _swallowing(text, separator, records)
    if found is not None:
        raise UserError(
            f"{place}, line {found.start}: a quote that closes in line {found.end} would make one row of "
            f"{found.end - found.start + 1} lines that look like rows; close it, or double it if it is part of the text"
        )
