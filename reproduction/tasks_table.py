"""Writes the tables of scores and spans in docs/reproduction.md from measured rows. `make tasks` calls it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scripts.markers import between
from ziggurat.measure.rows import read_rows_file

ROOT = Path(__file__).resolve().parent.parent
ROWS = ROOT / "results" / "tasks.jsonl"
PAGE = ROOT / "docs" / "reproduction.md"
BEGIN, END = "<!-- tasks:begin -->\n", "<!-- tasks:end -->\n"
TITLES = {"pearson": "Pearson", "spearman": "Spearman", "exact_match": "exact match", "f1": "F1"}


def tables(rows: Sequence[dict[str, Any]]) -> str:
    """One table for each data set and dtype, one line for each setting, in the order of the rows."""
    groups = dict.fromkeys((row["data"], row["dtype"]) for row in rows)
    parts = []
    for data, dtype in groups:
        mine = [row for row in rows if (row["data"], row["dtype"]) == (data, dtype)]
        names = [name for name in TITLES if name in mine[0]]
        titles = ["setting", *(TITLES[name] for name in names), "layers", "FLOPs (x)", "time (x)"]
        parts.append(f"### `{data}` ({mine[0]['n']:,} {mine[0]['split']} rows, {dtype})\n\n")
        parts.append(f"| {' | '.join(titles)} |\n| --- |{' ---: |' * (len(titles) - 1)}\n")
        parts += [_line(row, names) for row in mine] + ["\n"]
    return "".join(parts).rstrip("\n") + "\n"


def _line(row: dict[str, Any], names: Sequence[str]) -> str:
    figures = [f"{row[name]:.4f}" for name in names]
    gains = [f"{row['mean_layers']:.2f}", f"{row['flops_gain']:.2f}", f"{row['time_gain']:.2f}"]
    return f"| {' | '.join([row['what'], *figures, *gains])} |\n"


def main() -> None:
    """Fills the page in."""
    PAGE.write_text(between(PAGE.read_text("utf-8"), BEGIN, END, tables(read_rows_file(ROWS))), "utf-8")


if __name__ == "__main__":
    main()
