"""Writes docs/reproduction.md: measured rows beside the papers' tables. `make reproduce` calls it."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from statistics import mean
from typing import Any

from reproduction.models import DATA, FULL, METHODS
from scripts.markers import between
from ziggurat.measure.rows import read_rows_file

ROOT = Path(__file__).resolve().parent.parent
ROWS = ROOT / "results" / "reproduction.jsonl"
PAGE = ROOT / "docs" / "reproduction.md"
BEGIN, END = "<!-- tables:begin -->\n", "<!-- tables:end -->\n"

# Accuracy (%) and FLOPs (x) of BERT-base in MP Table 3, heads not charged; BERT itself: 94.3, 95.8, 85.3, 68.6.
PRINTED = {
    "ag_news": {"ltp": (94.3, 1.72), "early-exit": (94.3, 3.97), "magic-pyramid": (94.3, 4.95)},
    "yelp_polarity": {"ltp": (94.7, 2.32), "early-exit": (94.8, 6.18), "magic-pyramid": (94.5, 8.25)},
    "mrpc": {"ltp": (84.8, 1.48), "early-exit": (84.3, 2.13), "magic-pyramid": (83.8, 2.77)},
    "rte": {"ltp": (67.8, 1.50), "early-exit": (67.6, 1.33), "magic-pyramid": (67.5, 1.72)},
}  # fmt: skip
NAMES = {
    "ltp": "LTP", "manual-thresholds": "manual thresholds", "spatten": "SpAtten", "lat": "LAT", "top": "ToP's scores",
    "stop-words": "stop words",
    "early-exit": "FastBERT (early-exit)", "s3-entropy": "S3, entropy", "s3-count": "S3, count", "deebert": "DeeBERT",
    "pabee": "PABEE", "magic-pyramid": "Magic Pyramid", "magic-pyramid-shares": "Magic Pyramid by shares",
    "magic-pyramid-joint": "Magic Pyramid, joint",
}  # fmt: skip
# Until then these methods' heads learned constants in the lower layers: rows of an earlier date say nothing of them.
FIRST_TOKEN_HEADS, MENDED = ("s3-entropy", "s3-count", "deebert", "pabee"), "2026-12-01T15"
HEAD = "| method | accuracy | 95 % | GFLOPs | lost (points) | FLOPs (x) | time (x) | MP paper: accuracy, FLOPs (x) |"
RULE = "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"


def tables(rows: list[dict[str, Any]]) -> str:
    """One table per data set and one line per method, in the order of DATA and METHODS; seeds become their mean.

    Of several rows for one seed the last counts.
    """
    grouped: dict[str, dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for row in {(row["data"], row["what"], row["seed"]): row for row in rows}.values():
        grouped[row["data"]][row["what"]].append(row)
    order = sorted(grouped, key=lambda data: DATA.index(data) if data in DATA else len(DATA))
    return "\n".join(_table(data, grouped[data]) for data in order)


def _table(data: str, methods: dict[str, list[dict[str, Any]]]) -> str:
    first = next(iter(methods.values()))[0]
    seeds = max(len(rows) for rows in methods.values())
    head = f"### `{data}` ({first['n_accuracy']:,} {first['split']} texts, {first['tokens_mean']:.0f} tokens on average"
    lines = [f"{head}{', mean of ' + str(seeds) + ' seeds' if seeds > 1 else ''})", "", HEAD, RULE]
    named = sorted(methods.items(), key=lambda item: METHODS.index(item[0]))
    full = {row["seed"]: row["accuracy"] for row in methods.get(FULL, [])}
    lines += [_line(name, rows, seeds, full, PRINTED.get(data, {}).get(name)) for name, rows in named]
    return "\n".join([*lines, ""])


def _line(
    name: str, rows: list[dict[str, Any]], seeds: int, full: dict[int, float], printed: tuple[float, float] | None
) -> str:
    def average(key: str) -> float:
        return mean(row[key] for row in rows)

    note = " (nothing within one point: the full model)" if all(row["fell_back"] for row in rows) else ""
    if len(rows) < seeds:
        note += f" (seeds: {len(rows)})"
    if name in FIRST_TOKEN_HEADS and any(row.get("date", MENDED) < MENDED for row in rows):
        note += " (its heads had not learned; to be made anew)"
    if name != FULL and any(row["full_accuracy"] != full.get(row["seed"], row["full_accuracy"]) for row in rows):
        note += f" (beside another full model, {100 * average('full_accuracy'):.2f})"
    interval = f"{100 * average('accuracy_low'):.1f} to {100 * average('accuracy_high'):.1f}"
    measured = f"{100 * average('accuracy'):.2f} | {interval} | {average('gflops_mean'):.3f}"
    lost = 100 * (average("full_accuracy") - average("accuracy"))
    gains = f"{lost:.2f} | {average('flops_gain'):.2f} | {average('time_gain'):.2f}"
    paper = "" if printed is None else f"{printed[0]:.1f}, {printed[1]:.2f}"
    return f"| {NAMES.get(name, name)}{note} | {measured} | {gains} | {paper} |"


def with_tables(page: str, text: str) -> str:
    """The page with the text between its markers."""
    return between(page, BEGIN, END, text)


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text("utf-8"), tables(read_rows_file(ROWS))), "utf-8")
