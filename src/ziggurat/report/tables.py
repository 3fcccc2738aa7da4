"""Tables of rows: Markdown for documents, CSV for programs, aligned text for a terminal."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

from ziggurat.report.metrics import MEASURES
from ziggurat.system import legible

Row = Mapping[str, Any]  # a result row, or `dataclasses.asdict` of a point

ABSENT = "–"  # shown for a missing value or None


@dataclass(frozen=True)
class Column:
    """A column: key in a row, header, format."""

    key: str
    header: str
    unit: str = ""  # appended to the header: "time (ms)"
    format: str = ""  # for Python's format(), in Markdown and terminal; CSV has full precision

    @property
    def title(self) -> str:
        """Header and unit."""
        return f"{self.header} ({self.unit})" if self.unit else self.header

    def show(self, row: Row) -> str:
        """The row's value, formatted."""
        value = row.get(self.key)
        return ABSENT if value is None else format(value, self.format)

    def is_numeric(self, rows: Sequence[Row]) -> bool:
        """Whether the column's values are numbers, which are aligned right."""
        values = [row[self.key] for row in rows if row.get(self.key) is not None]
        return bool(values) and all(isinstance(value, Real) and not isinstance(value, bool) for value in values)


ACCURACY_COLUMNS = (
    Column("accuracy", "accuracy", "", ".2%"),
    Column("accuracy_low", "from", "", ".2%"),
    Column("accuracy_high", "to", "95 %", ".2%"),
)

RESULT_COLUMNS = (
    Column("what", "system"),
    Column("data", "data"),
    Column("batch", "batch", "texts"),
    Column("dtype", "dtype"),
    Column("padding", "padding"),
    Column("texts_per_second_p50", "median", "texts/s", ".0f"),
    Column("time_gain", "time", "x", ".2f"),
    Column("flops_gain", "FLOPs", "x", ".2f"),
    *ACCURACY_COLUMNS,
    Column("warning", "warning"),
)

METRIC_COLUMNS = (
    Column("metric", "metric"),
    Column("quality", "quality", "", ".4f"),
)  # for answers that are not classes
_EXACT = Column("exact_match", "exact match", "", ".4f")

POINT_COLUMNS = (
    Column("label", "curve"),
    Column("threshold", "threshold", "", ".3f"),
    Column("accuracy", "accuracy", "", ".2%"),
    Column("cost_ratio", "FLOPs", "x fewer", ".2f"),
)


def result_columns(rows: Sequence[Row]) -> tuple[Column, ...]:
    """Columns for result rows: accuracy with its interval, or another problem's metric; then the task's metrics."""
    names = [name.replace("-", "_") for name in MEASURES if name != "accuracy"]
    shown = {row.get("metric") for row in rows}
    present = [Column(name, name.replace("_", "-"), "", ".4f") for name in names if any(name in row for row in rows)]
    task_metrics = [column for column in present if column.key not in shown]
    first = RESULT_COLUMNS.index(ACCURACY_COLUMNS[0])
    rest = RESULT_COLUMNS[first + len(ACCURACY_COLUMNS) :]
    quality = METRIC_COLUMNS if any("metric" in row for row in rows) else ACCURACY_COLUMNS
    spans = (_EXACT,) if any("exact_match" in row for row in rows) else ()
    return (*RESULT_COLUMNS[:first], *quality, *spans, *task_metrics, *rest)


def markdown(rows: Sequence[Row], columns: Sequence[Column]) -> str:
    """A Markdown table with aligned source; ends with a newline."""
    titles, *body = _cells(rows, columns, escape=True)
    widths, numeric = _widths([titles, *body], minimum=3), _numeric(rows, columns)
    rule = ["-" * (width - 1) + ":" if right else "-" * width for width, right in zip(widths, numeric, strict=True)]
    lines = [_flush(titles, widths, numeric), rule, *(_flush(line, widths, numeric) for line in body)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def aligned(rows: Sequence[Row], columns: Sequence[Column]) -> str:
    """Plain text in columns, for a terminal; ends with a newline."""
    lines = _cells(rows, columns)
    widths, numeric = _widths(lines), _numeric(rows, columns)
    return "".join("  ".join(_flush(line, widths, numeric)).rstrip() + "\n" for line in lines)


def csv_text(rows: Sequence[Row], columns: Sequence[Column]) -> str:
    """CSV with units in the header and full precision; missing values are empty. Lines end with a newline."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(column.title for column in columns)
    writer.writerows([row.get(column.key) for column in columns] for row in rows)
    return out.getvalue()


def _cells(rows: Sequence[Row], columns: Sequence[Column], escape: bool = False) -> list[list[str]]:
    lines = [[column.title for column in columns], *([column.show(row) for column in columns] for row in rows)]
    # Escape bars and newlines, which would start a new cell or end the row.
    return [[legible(cell).replace("|", r"\|") for cell in line] for line in lines] if escape else lines


def _widths(lines: Sequence[Sequence[str]], minimum: int = 0) -> list[int]:
    return [max(minimum, *map(len, column)) for column in zip(*lines, strict=True)]


def _numeric(rows: Sequence[Row], columns: Sequence[Column]) -> list[bool]:
    return [column.is_numeric(rows) for column in columns]


def _flush(line: Sequence[str], widths: Sequence[int], numeric: Sequence[bool]) -> list[str]:
    return [
        cell.rjust(width) if right else cell.ljust(width)
        for cell, width, right in zip(line, widths, numeric, strict=True)
    ]
