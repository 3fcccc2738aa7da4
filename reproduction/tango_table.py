"""Writes the cascades' tables in docs/reproduction.md from measured rows. `make tango` calls it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from scripts.markers import between
from ziggurat.measure.rows import read_rows_file

ROOT = Path(__file__).resolve().parent.parent
ROWS = ROOT / "results" / "cascades.jsonl"
PAGE = ROOT / "docs" / "reproduction.md"
BEGIN, END = "<!-- cascades:begin -->\n", "<!-- cascades:end -->\n"

SPEED = (
    "| method | accuracy at 99 % | speed-up, batch 1 | batch 32 | FLOPs (x) | accuracy at 98 % | speed-up, batch 1 "
    "| batch 32 | FLOPs (x) |"
)
THROUGHPUT = "| method | accuracy | texts/s, batch 1 | texts/s, batch 32 | last tier, batch 32 | speed-up |"


def tables(rows: Sequence[dict[str, Any]]) -> str:
    """For each data set Tango's Table 2, speed-ups at two shares of the accuracy, and its Table 3, throughput.

    They are of the least seed that there is; of several rows for the same setting the last counts.
    """
    least = {row["data"]: min(other["seed"] for other in rows if other["data"] == row["data"]) for row in rows}
    rows = [row for row in rows if row["seed"] == least[row["data"]]]
    data = dict.fromkeys((row["data"], tuple(row["small"])) for row in rows if row["small"])
    parts = [
        _of_data(name, [row for row in rows if row["data"] == name and tuple(row["small"]) in (small, ())])
        for name, small in data
    ]
    return "\n".join(parts)


def _of_data(name: str, rows: Sequence[dict[str, Any]]) -> str:
    first = rows[0]
    head = f"### Cascades on `{name}` ({first['n_accuracy']:,} {first['split']} texts; the full model: "
    lines = [f"{head}{100 * first['full_accuracy']:.2f})", "", SPEED, _rule(SPEED)]
    shared = [row for row in rows if row["share"] is not None]
    for what in dict.fromkeys(row["what"] for row in shared):
        cells = [cell for share in (0.99, 0.98) for cell in _speeds(shared, what, share)]
        lines.append(f"| {what} | {' | '.join(cells)} |")
    lines += ["", THROUGHPUT, _rule(THROUGHPUT)]
    for what, share in dict.fromkeys((row["what"], row["share"]) for row in rows if not row.get("computed")):
        lines.append(_throughput(rows, what, share))
    return "\n".join([*lines, ""])


def _speeds(rows: Iterable[dict[str, Any]], what: str, share: float) -> list[str]:
    by_batch = {row["batch"]: row for row in rows if (row["what"], row["share"]) == (what, share)}
    one, many = by_batch[1], by_batch[32]
    return [
        f"{100 * many['accuracy']:.2f}",
        *(_times(gain) for gain in (one["time_gain"], many["time_gain"], many["flops_gain"])),
    ]


def _throughput(rows: Iterable[dict[str, Any]], what: str, share: float | None) -> str:
    by_batch = {row["batch"]: row for row in rows if (row["what"], row["share"]) == (what, share)}
    one, many = by_batch[1], by_batch[32]
    name = what if share is None else f"{what} at {100 * share:.0f} %"
    speeds = (one["texts_per_second_p50"], many["texts_per_second_p50"], many["full_texts_per_second_p50"])
    texts = " | ".join(f"{speed:,.0f}" for speed in speeds)
    return f"| {name} | {100 * many['accuracy']:.2f} | {texts} | {_times(many['time_gain'])} |"


def _times(gain: float) -> str:
    return f"{gain:,.1f}" if gain < 100 else f"{gain:,.0f}"


def _rule(head: str) -> str:
    return "| --- |" + " ---: |" * (head.count("|") - 2)


if __name__ == "__main__":
    PAGE.write_text(between(PAGE.read_text("utf-8"), BEGIN, END, tables(read_rows_file(ROWS))), "utf-8")
