"""Writes the results table of README.md from the rows in results/; `make readme` calls it, a test checks that it was."""

from __future__ import annotations

from pathlib import Path

from ziggurat.report.rows import read_rows_file
from ziggurat.report.tables import RESULT_COLUMNS, Column, markdown

ROOT = Path(__file__).resolve().parent.parent
ROWS = ROOT / "results" / "ag_news.jsonl"
BEGIN, END = "<!-- results:begin -->\n", "<!-- results:end -->\n"
COMMAND = (
    "ziggurat bench runs/ag --data ag_news/test.jsonl --batch 1,32 --out results/ag_news.jsonl --figure docs/figure"
)
HIDDEN = {"data", "dtype", "padding", "warning"}  # the same in every row, or said by the system's name


def results_section(rows_file: Path = ROWS) -> str:
    """The text between the markers: what was measured, how, and the table."""
    rows = read_rows_file(rows_file)
    first = rows[0]
    columns: list[Column] = [column for column in RESULT_COLUMNS if column.key not in HIDDEN]
    return (
        f"`{first['data']}`, {first['n_accuracy']:,} {first['split']} texts (accuracy) and {first['n_texts']} of them (time, "
        f"{first['tokens_mean']:.0f} tokens on average); {first['cpu']}, {first['threads']} threads, {first['dtype']}, "
        f"the model's time alone, median of {first['rounds']} interleaved rounds. Gains are over Ziggurat's own full depth.\n\n"
        f"{markdown(rows, columns)}\n"
        f"Made by `{COMMAND}` after the training command above; rows in `results/{rows_file.name}`.\n"
    )


def with_results(readme: str, section: str) -> str:
    """The README with the section between its markers."""
    before, rest = readme.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}{section}{END}{after}"


if __name__ == "__main__":
    readme = ROOT / "README.md"
    readme.write_text(with_results(readme.read_text("utf-8"), results_section()), "utf-8")
