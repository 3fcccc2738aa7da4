"""Writes the results table of README.md from the rows in results/. `make readme` calls it and a test checks it."""

from __future__ import annotations

from pathlib import Path

from markers import between

from ziggurat.report.rows import read_rows_file
from ziggurat.report.tables import RESULT_COLUMNS, markdown

ROOT = Path(__file__).resolve().parent.parent
ROWS = ROOT / "results" / "ag_news.jsonl"
COMMAND = "ziggurat bench runs/ag --data ag_news/test.jsonl --out results/ag_news.jsonl --figure docs/figure"
BEGIN, END = "<!-- results:begin -->\n", "<!-- results:end -->\n"
HIDDEN = {"data", "dtype", "padding", "warning"}  # the same in every row, or said by the system's name


def results_section() -> str:
    """The text between the markers: what was measured, how, and the table."""
    rows = read_rows_file(ROWS)
    first = rows[0]
    what = f"`{first['data']}`, accuracy on {first['n_accuracy']:,} {first['split']} texts, time on {first['n_texts']}"
    texts = f"of them ({first['tokens_mean']:.0f} tokens on average)"
    machine = f"{first['cpu']}, {first['threads']} threads, {first['dtype']}"
    how = f"the model's time alone, median of {first['rounds']} interleaved rounds"
    table = markdown(rows, [column for column in RESULT_COLUMNS if column.key not in HIDDEN])
    unit = "Gains are over Ziggurat's own full depth."
    return f"{what} {texts}; {machine}; {how}. {unit}\n\n{table}\nMade by `{COMMAND}`.\n"


def with_results(readme: str, section: str) -> str:
    """The README with the section between its markers."""
    return between(readme, BEGIN, END, section)


if __name__ == "__main__":
    readme = ROOT / "README.md"
    readme.write_text(with_results(readme.read_text("utf-8"), results_section()), "utf-8")
