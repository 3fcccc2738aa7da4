"""Writes the tables of docs/reproduction.md: measured rows beside the papers' figures.

    python -m reproduction.tables

`make reproduce`, `make tango` and `make tasks` call it; a test compares the page with the rows in results/.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import mean

from reproduction.models import DATA, FULL, METHODS
from scripts.shared import DOCS, RESULTS, Row, filled, grouped, stored_rows, table

PAGE = DOCS / "reproduction.md"

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
# Rows of these methods from before this time show constants: their heads in the lower layers did not learn.
FIRST_TOKEN_HEADS, MENDED = ("s3-entropy", "s3-count", "deebert", "pabee"), "2026-12-01T15"
METRICS = {"pearson": "Pearson", "spearman": "Spearman", "exact_match": "exact match", "f1": "F1"}
SHARES = (0.99, 0.98)  # of the last tier's accuracy, as TangoBERT's Table 2 has them


def page(text: str, methods: Sequence[Row], cascades: Sequence[Row], tasks: Sequence[Row]) -> str:
    """The page with all tables between their markers."""
    text = filled(text, "tables", methods_tables(methods))
    text = filled(text, "cascades", cascades_tables(cascades))
    return filled(text, "tasks", tasks_tables(tasks))


# --- methods beside the papers -------------------------------------------------------------------------------------


def methods_tables(rows: Iterable[Row]) -> str:
    """One table per data set and one line per method, in the order of DATA and METHODS; seeds become their mean.

    Of several rows for one seed the last counts.
    """
    latest = {(row["data"], row["what"], row["seed"]): row for row in rows}.values()
    by_data = {data: group for (data,), group in grouped(latest, "data")}
    order = sorted(by_data, key=lambda data: DATA.index(data) if data in DATA else len(DATA))
    return "\n".join(_methods_table(data, by_data[data]) for data in order)


def _methods_table(data: str, rows: Sequence[Row]) -> str:
    methods = {system: group for (system,), group in grouped(rows, "what")}
    seeds = max(map(len, methods.values()))
    mean_of = f", mean of {seeds} seeds" if seeds > 1 else ""
    first = rows[0]
    title = f"`{data}` ({first['n_accuracy']:,} {first['split']} texts, {first['tokens_mean']:.0f} tokens on average"
    full = {row["seed"]: row["accuracy"] for row in methods.get(FULL, [])}
    lines = [
        _method_cells(name, methods[name], seeds, full, PRINTED.get(data, {}).get(name))
        for name in sorted(methods, key=METHODS.index)
    ]
    head = ["method", "accuracy", "95 %", "GFLOPs", "lost (points)", "FLOPs (x)", "time (x)"]
    return f"### {title}{mean_of})\n\n" + table([*head, "MP paper: accuracy, FLOPs (x)"], lines)


def _method_cells(
    name: str, rows: Sequence[Row], seeds: int, full: dict[int, float], printed: tuple[float, float] | None
) -> list[str]:
    def average(key: str) -> float:
        return mean(row[key] for row in rows)

    return [
        NAMES.get(name, name) + _note(name, rows, seeds, full),
        f"{100 * average('accuracy'):.2f}",
        f"{100 * average('accuracy_low'):.1f} to {100 * average('accuracy_high'):.1f}",
        f"{average('gflops_mean'):.3f}",
        f"{100 * (average('full_accuracy') - average('accuracy')):.2f}",
        f"{average('flops_gain'):.2f}",
        f"{average('time_gain'):.2f}",
        "" if printed is None else f"{printed[0]:.1f}, {printed[1]:.2f}",
    ]


def _note(name: str, rows: Sequence[Row], seeds: int, full: dict[int, float]) -> str:
    """What a reader has to know about a method's rows."""
    note = " (nothing within one point: the full model)" if all(row["fell_back"] for row in rows) else ""
    if len(rows) < seeds:
        note += f" (seeds: {len(rows)})"
    if name in FIRST_TOKEN_HEADS and any(row.get("date", MENDED) < MENDED for row in rows):
        note += " (its heads had not learned; to be made anew)"
    if name != FULL and any(row["full_accuracy"] != full.get(row["seed"], row["full_accuracy"]) for row in rows):
        note += f" (beside another full model, {100 * mean(row['full_accuracy'] for row in rows):.2f})"
    return note


# --- cascades ------------------------------------------------------------------------------------------------------


def cascades_tables(rows: Sequence[Row]) -> str:
    """For each data set TangoBERT's Table 2, speed-ups at two shares of the accuracy, and its Table 3, throughput.

    Rows of the least seed are shown; of several rows for the same setting the last counts.
    """
    least = {data: min(row["seed"] for row in group) for (data,), group in grouped(rows, "data")}
    rows = [row for row in rows if row["seed"] == least[row["data"]]]
    cascades = dict.fromkeys((row["data"], tuple(row["small"])) for row in rows if row["small"])
    return "\n".join(
        _cascade_tables(data, [row for row in rows if row["data"] == data and tuple(row["small"]) in (small, ())])
        for data, small in cascades
    )


def _cascade_tables(data: str, rows: Sequence[Row]) -> str:
    first = rows[0]
    title = f"Cascades on `{data}` ({first['n_accuracy']:,} {first['split']} texts; the full model: "
    with_share = dict.fromkeys(row["what"] for row in rows if row["share"] is not None)
    gains = [
        [system, *(cell for share in SHARES for cell in _gain_cells(rows, system, share))] for system in with_share
    ]
    timed = dict.fromkeys((row["what"], row["share"]) for row in rows if not row.get("computed"))
    speeds = [_throughput_cells(rows, system, share) for system, share in timed]
    at_share = ["speed-up, batch 1", "batch 32", "FLOPs (x)"]
    gains_head = ["method", "accuracy at 99 %", *at_share, "accuracy at 98 %", *at_share]
    speeds_head = ["method", "accuracy", "texts/s, batch 1", "texts/s, batch 32", "last tier, batch 32", "speed-up"]
    tables = f"{table(gains_head, gains)}\n{table(speeds_head, speeds)}"
    return f"### {title}{100 * first['full_accuracy']:.2f})\n\n{tables}"


def _by_batch(rows: Iterable[Row], system: str, share: float | None) -> tuple[Row, Row]:
    """A setting's rows of batch size 1 and 32."""
    by_batch = {row["batch"]: row for row in rows if (row["what"], row["share"]) == (system, share)}
    return by_batch[1], by_batch[32]


def _gain_cells(rows: Iterable[Row], system: str, share: float) -> list[str]:
    single, batched = _by_batch(rows, system, share)
    gains = (single["time_gain"], batched["time_gain"], batched["flops_gain"])
    return [f"{100 * batched['accuracy']:.2f}", *map(_times, gains)]


def _throughput_cells(rows: Iterable[Row], system: str, share: float | None) -> list[str]:
    single, batched = _by_batch(rows, system, share)
    name = system if share is None else f"{system} at {100 * share:.0f} %"
    keys = ((single, "texts_per_second_p50"), (batched, "texts_per_second_p50"), (batched, "full_texts_per_second_p50"))
    speeds = [f"{row[key]:,.0f}" for row, key in keys]
    return [name, f"{100 * batched['accuracy']:.2f}", *speeds, _times(batched["time_gain"])]


def _times(gain: float) -> str:
    return f"{gain:,.1f}" if gain < 100 else f"{gain:,.0f}"


# --- scores and questions ------------------------------------------------------------------------------------------


def tasks_tables(rows: Sequence[Row]) -> str:
    """One table for each data set and dtype, one line for each setting, in the order of the rows."""
    parts = []
    for (data, dtype), group in grouped(rows, "data", "dtype"):
        first = group[0]
        metrics = [name for name in METRICS if name in first]
        lines = [
            [row["what"], *(f"{row[name]:.4f}" for name in metrics), f"{row['mean_layers']:.2f}",
             f"{row['flops_gain']:.2f}", f"{row['time_gain']:.2f}"]
            for row in group
        ]  # fmt: skip
        head = ["setting", *(METRICS[name] for name in metrics), "layers", "FLOPs (x)", "time (x)"]
        parts.append(f"### `{data}` ({first['n']:,} {first['split']} rows, {dtype})\n\n{table(head, lines)}")
    return "\n".join(parts)


def main() -> None:
    """Writes the page."""
    rows = (stored_rows(RESULTS / f"{name}.jsonl") for name in ("reproduction", "cascades", "tasks"))
    PAGE.write_text(page(PAGE.read_text("utf-8"), *rows), "utf-8")


if __name__ == "__main__":
    main()
