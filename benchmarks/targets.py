"""The bars that the engine is held to, and what the latest rows say of each: `performance_tables` writes the table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

Row = dict[str, Any]
OPENVINO, ONNX = "OpenVINO int8, sorted", "ONNX Runtime float32, sorted"
AS_THEY_COME = "OpenVINO int8, as it comes"
FULL = "ziggurat full depth"
WITHIN = 0.01  # of full depth's accuracy
PEAK_TOPS = 2.0  # of int8 on two threads, that products are held against
MANY_ROWS = 54


@dataclass(frozen=True)
class Bar:
    """A limit, and how what was measured is read from rows."""

    measure: str
    limit: float | None  # None = only reported
    at_least: bool
    unit: str  # behind a number
    digits: int
    found: tuple[float, float, float, str] | None  # median, least, most, a remark; None = not measured

    @property
    def line(self) -> str:
        """Of the table: measure, bar, measured."""
        sign = ">=" if self.at_least else "<="
        bar = "reported" if self.limit is None else f"{sign} {self._number(self.limit)}"
        return f"| {self.measure} | {bar} | {self._measured()} |"

    def _measured(self) -> str:
        if self.found is None:
            return "not measured"
        median, low, high, remark = self.found
        text = self._number(median)
        if low != high:
            text += f" ({self._number(low, '')} to {self._number(high, '')})"
        text += f", {remark}" if remark else ""
        missed = self.limit is not None and (median < self.limit if self.at_least else median > self.limit)
        return f"{text}: **missed**" if missed else text

    def _number(self, value: float, unit: str | None = None) -> str:
        return f"{value:.{self.digits}f}{self.unit if unit is None else unit}"


def bars(peers: Sequence[Row], engine: Sequence[Row]) -> list[Bar]:
    """Every bar, from the rows of one run beside peers and of the latest run of each of the engine's own races."""
    return [*_beside_peers(peers), *_own(engine)]


def _beside_peers(rows: Sequence[Row]) -> list[Bar]:
    def bar(measure: str, limit: float, row: Row | None, peer: str, at_least: bool = True, remark: str = "") -> Bar:
        found = None if row is None or peer not in row["over"] else tuple(row["over"][peer])
        if found is not None and not at_least:
            found = (1 / found[0], 1 / found[2], 1 / found[1])
        return Bar(measure, limit, at_least, "x", 2, None if found is None else (*found, remark))

    full, single = (ours(rows, FULL, "int8", "model", one) for one in (False, True))
    exits, singles, whole = (
        within_a_point(rows, timed, one) for timed, one in (("model", False), ("model", True), ("process", False))
    )
    remarks = [_named(row, rows) for row in (exits, singles, whole)]
    floats = ours(rows, FULL, "float32", "model", False)
    return [
        bar("int8, full depth, texts as they come, over OpenVINO int8 sorted", 1.35, full, OPENVINO),
        bar("one text, p50, full depth, of OpenVINO int8's as they come", 0.3, single, AS_THEY_COME, False),
        bar("one text, p50, full depth, of OpenVINO int8's sorted", 0.65, single, OPENVINO, False),
        bar("one text, p50, exits within 1 point, of OpenVINO int8's sorted", 0.25, singles, OPENVINO, False,
            remarks[1]),
        bar("exits within 1 point over OpenVINO int8 sorted, model only", 4, exits, OPENVINO, True, remarks[0]),
        bar("the same from strings", 3, whole, OPENVINO, True, remarks[2]),
        bar("float32, full depth, texts as they come, over ONNX Runtime float32 sorted", 1.2, floats, ONNX),
    ]  # fmt: skip


def ours(rows: Iterable[Row], what: str, dtype: str, timed: str, single: bool) -> Row | None:
    """The compiled engine's row of texts as they come."""
    key = (what, "native", dtype, timed, "as it comes", single)
    for row in rows:
        mine = (row["what"], row["engine"], row["dtype"], row["timed"], row["order"], "latency_ms_p50" in row)
        if mine == key:
            return row
    return None


def within_a_point(rows: Sequence[Row], timed: str, single: bool) -> Row | None:
    """The faster int8 point, `balanced` or `fast`, within a point of full depth's accuracy, float32's if known."""
    full = ours(rows, FULL, "float32", timed, single) or ours(rows, FULL, "int8", timed, single)
    found = [ours(rows, f"ziggurat {point}", "int8", timed, single) for point in ("balanced", "fast")]
    fitting = [row for row in found if row is not None and full is not None and _loss(row, full) <= WITHIN + 1e-9]
    return max(fitting, key=lambda row: row["texts_per_second_p50"], default=None)


def _loss(row: Row, full: Row) -> float:
    return full["accuracy"] - row["accuracy"]


def _named(row: Row | None, rows: Sequence[Row]) -> str:
    """Which point it is, and what it loses."""
    if row is None:
        return ""
    full = ours(rows, FULL, "float32", "model", False) or ours(rows, FULL, "int8", "model", False)
    lost = "" if full is None else f", {100 * _loss(row, full):+.2f} points lost"
    return f"`{row['what'].removeprefix('ziggurat ')}`{lost}"


def _own(rows: Sequence[Row]) -> list[Bar]:
    def race(name: str, worst: Callable[..., Row], key: str, pick: Callable[[Row], bool] = bool) -> Row | None:
        found = [row for row in rows if row["race"] == name and pick(row)]
        return worst(found, key=lambda row: _median(row[key])) if found else None

    def bar(
        measure: str, limit: float | None, at_least: bool, unit: str, digits: int, row: Row | None, key: str
    ) -> Bar:
        found = None if row is None else (*_three(row[key]), _where(row))
        return Bar(measure, limit, at_least, unit, digits, found)

    idle = [
        bar(f"time over full depth's, {said}, worst of dtypes and batches", limit, False, "x", 3,
            race("never acting", max, "over_full", lambda row, what=what: row["what"] == what), "over_full")
        for what, said, limit in (
            ("pruning", "every layer scores its tokens and none leaves", 1.03),
            ("pruning before the last layer", "the same without the last layer's scores", 1.03),
            ("exits", "every exit is asked and nobody leaves", None),
        )
    ]  # fmt: skip
    saved = [
        bar(f"time saved over FLOPs saved, {acts}, worst of points, dtypes and batches", 0.9, True, "", 2,
            race("savings", min, "efficiency_computed", lambda row, acts=acts: row["acts"] == acts),
            "efficiency_computed")
        for acts in ("exits", "exits and pruning")
    ]  # fmt: skip
    fresh = race("fresh", max, "of_theirs", lambda row: (row["what"], row["pass"]) == ("OpenVINO", "first"))
    narrow = partial(race, "answers", pick=lambda row: row["dtype"] == "int8")
    many = race("roofline", min, "tops", lambda row: row["what"] == "linear i8" and row["rows"] >= MANY_ROWS)
    counted = race("savings", min, "efficiency")
    return [
        bar("one text, p50, of OpenVINO int8's as they come, engines just loaded, first time through the texts",
            0.3, False, "x", 2, fresh, "of_theirs"),
        *idle,
        *saved,
        bar("the same over FLOPs as papers count them, with all of full depth's last layer", None, True, "", 2, counted,
            "efficiency"),
        bar("accuracy lost in int8, worst operating point", 0.3, False, " points", 2, narrow(max, "points_lost"),
            "points_lost"),
        bar("same answer at the same rung in int8 as in float32, worst operating point", 98, True, " %", 1,
            narrow(min, "same_decision"), "same_decision"),
        bar("cold start, the slower dtype", 0.5, False, " s", 2, race("cold start", max, "seconds"), "seconds"),
        bar("memory above the weights, 32 x 128 tokens", 64, False, " MiB", 1, race("memory", max, "growth"), "growth"),
        bar(f"int8 products of {MANY_ROWS} rows and more, slowest shape", 0.85 * PEAK_TOPS, True, " TOP/s", 2, many,
            "tops"),
        *(
            bar(f"AVX2 {dtype} over transformers float32", None, True, "x", 1,
                race("avx2", max, "over_torch", lambda row, name=("avx2", dtype): (row["what"], row["dtype"]) == name),
                "over_torch")
            for dtype in ("float32", "int8")
        ),
    ]  # fmt: skip


def _three(value: float | Sequence[float]) -> tuple[float, float, float]:
    return (value, value, value) if isinstance(value, float) else (value[0], value[1], value[2])


def _median(value: float | Sequence[float]) -> float:
    return _three(value)[0]


def _where(row: Row) -> str:
    """Which of several systems it is."""
    if row["race"] == "roofline":
        return f"{row['d_in']} x {row['d_out']}, {row['rows']} rows"
    name = f"`{row['what']}`, " if row["race"] in ("savings", "answers") else ""
    return f"{name}{row['dtype']}" + (f", batch {row['batch']}" if row["race"] in ("savings", "never acting") else "")
