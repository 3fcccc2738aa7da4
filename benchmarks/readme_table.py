"""Writes the results table of README.md from the rows in results/. `make readme` calls it and a test checks it."""

from __future__ import annotations

from pathlib import Path

from benchmarks.performance_tables import latest_run, peers_table, said
from scripts.markers import between
from ziggurat.measure.rows import read_rows_file

ROOT = Path(__file__).resolve().parent.parent
ROWS = ROOT / "results" / "peers.jsonl"
MODEL, CASCADE = "ag-exit", "ag-cascade"
BEGIN, END = "<!-- results:begin -->\n", "<!-- results:end -->\n"
OURS = {("ziggurat full depth", "int8"), ("ziggurat fast", "int8")}


def results_section() -> str:
    """The text between the markers: what was measured, how, and the table."""
    every = read_rows_file(ROWS)
    rows = [row for row in latest_run(every, {MODEL}) if row["peer"] or (row["what"], row["dtype"]) in OURS]
    fast = [row for row in latest_run(every, {CASCADE}) if (row["what"], row["dtype"]) == ("ziggurat fast", "int8")]
    cascade = [row | {"what": "ziggurat, static tier in front"} for row in fast]
    n = rows[0]["n_accuracy"]
    how = (
        "Texts a second from token ids and from strings: peers sorted, at their best batch size, ours as texts come. "
        f"Accuracy of {n:,} test texts. `fast` was chosen on select rows; the cascade, of another run which scored "
        f"{cascade[0]['n_accuracy']:,}, is certified to lose at most one point."
    )
    return f"{how}\n\n{peers_table([*rows, *cascade])}\n{said(rows[0], 'Measured')} More: `docs/performance.md`.\n"


def with_results(readme: str, section: str) -> str:
    """The README with the section between its markers."""
    return between(readme, BEGIN, END, section)


if __name__ == "__main__":
    readme = ROOT / "README.md"
    readme.write_text(with_results(readme.read_text("utf-8"), results_section()), "utf-8")
