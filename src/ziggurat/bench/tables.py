"""Tables of a comparison: one for each way of timing, and Ziggurat's speed relative to each peer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ziggurat.report.tables import ACCURACY_COLUMNS, Column, Row, aligned

COLUMNS = (
    Column("what", "system"),
    Column("engine", "engine"),
    Column("dtype", "dtype"),
    Column("order", "order"),
    Column("batch", "batch", "texts"),
    Column("streams", "streams"),
    Column("texts_per_second_p50", "median", "texts/s", ".0f"),
    Column("latency_ms_p50", "latency p50", "ms", ".2f"),
    Column("latency_ms_p95", "p95", "ms", ".2f"),
    Column("time_gain", "time", "x", ".2f"),
    Column("flops_gain", "FLOPs", "x", ".2f"),
    *ACCURACY_COLUMNS,
)
_TIMED = {"model": "the model alone", "process": "from strings, tokenising included"}


def comparison_tables(rows: Sequence[Row]) -> str:
    """All tables with their titles, as one text."""
    parts = []
    for single in (False, True):
        for timed, words in _TIMED.items():
            timed_so = [row for row in rows if row["timed"] == timed and ("latency_ms_p50" in row) == single]
            if timed_so:
                parts.append(_part(timed_so, f"{'one text at a time' if single else 'best batch size'}: {words}"))
    return "\n".join(parts)


def _part(rows: Sequence[Row], title: str) -> str:
    columns = [column for column in COLUMNS if any(row.get(column.key) is not None for row in rows)]
    text = f"{title}\n{aligned(rows, columns)}"
    ratios = ratio_rows(rows)
    if not ratios:
        return text
    points = [key for key in ratios[0] if key != "peer"]
    head = "\ntimes as fast as each peer, Ziggurat in its fastest dtype and order: median [least, most] of the rounds\n"
    return text + head + aligned(ratios, [Column("peer", "peer"), *(Column(point, point) for point in points)])


def ratio_rows(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """One row per peer and order, with the formatted ratio of each operating point."""
    best: dict[str, Row] = {}
    for row in rows:
        if not row["peer"] and (row["what"] not in best or _speed(row) > _speed(best[row["what"]])):
            best[row["what"]] = row
    peers = list(next(iter(best.values()))["over"]) if best else []
    return [{"peer": peer} | {_title(row): _ratio(row["over"], peer) for row in best.values()} for peer in peers]


def _speed(row: Row) -> float:
    return -row["latency_ms_p50"] if "latency_ms_p50" in row else row["texts_per_second_p50"]


def _title(row: Row) -> str:
    return f"{row['what'].removeprefix('ziggurat ')} ({row['engine']} {row['dtype']}, {row['order']})"


def _ratio(over: Mapping[str, Sequence[float]], peer: str) -> str:
    median, low, high = over[peer]
    return f"{median:.2f} [{low:.2f}, {high:.2f}]"
