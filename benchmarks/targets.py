"""The targets that the engine's speed is held to, and what the latest rows say about each; `tables.py` shows them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from scripts.shared import Row

# Keys of `over` in rows of `ziggurat compare`.
OPENVINO, ONNX = "OpenVINO int8, sorted", "ONNX Runtime float32, sorted"
OPENVINO_UNSORTED = "OpenVINO int8, as it comes"
FULL = "ziggurat full depth"
WITHIN = 0.01  # of full depth's accuracy
PEAK_TOPS = 2.0  # int8 TOP/s of two threads, the scale of the products' target
MANY_ROWS = 54
Figure = tuple[float, float, float]  # median, least, most of the rounds


@dataclass(frozen=True)
class Target:
    """A limit, and what was measured against it."""

    measure: str
    limit: float | None  # None = only reported
    at_least: bool
    unit: str  # behind a number
    digits: int
    measured: tuple[Figure, str] | None  # the figure and a remark; None = not measured

    @property
    def cells(self) -> list[str]:
        """One line of the table: measure, target, measured."""
        sign = ">=" if self.at_least else "<="
        limit = "reported" if self.limit is None else f"{sign} {self._number(self.limit)}"
        return [self.measure, limit, self._measured()]

    def _measured(self) -> str:
        if self.measured is None:
            return "not measured"
        (median, low, high), remark = self.measured
        text = self._number(median)
        if low != high:
            text += f" ({self._number(low, '')} to {self._number(high, '')})"
        text += f", {remark}" if remark else ""
        missed = self.limit is not None and (median < self.limit if self.at_least else median > self.limit)
        return f"{text}: **missed**" if missed else text

    def _number(self, value: float, unit: str | None = None) -> str:
        return f"{value:.{self.digits}f}{self.unit if unit is None else unit}"


def targets(peers: Sequence[Row], engine: Sequence[Row]) -> list[Target]:
    """All targets, from the rows of one run beside peers and of the latest run of each of the engine's own races."""
    return [*_beside_peers(peers), *_engine_targets(engine)]


def _beside_peers(rows: Sequence[Row]) -> list[Target]:
    def target(
        measure: str, limit: float, row: Row | None, peer: str, at_least: bool = True, remark: str = ""
    ) -> Target:
        if row is None or peer not in row["over"]:
            return Target(measure, limit, at_least, "x", 2, None)
        median, low, high = row["over"][peer]
        figure = (median, low, high) if at_least else (1 / median, 1 / high, 1 / low)
        return Target(measure, limit, at_least, "x", 2, (figure, remark))

    full, single = (our_row(rows, FULL, "int8", "model", one_text) for one_text in (False, True))
    clocks = (("model", False), ("model", True), ("process", False))
    exits, exits_single, exits_strings = (within_a_point(rows, timed, one_text) for timed, one_text in clocks)
    floats = our_row(rows, FULL, "float32", "model", False)
    return [
        target("int8, full depth, texts as they come, over OpenVINO int8 sorted", 1.35, full, OPENVINO),
        target("one text, p50, full depth, of OpenVINO int8's as they come", 0.3, single, OPENVINO_UNSORTED, False),
        target("one text, p50, full depth, of OpenVINO int8's sorted", 0.65, single, OPENVINO, False),
        target("one text, p50, exits within 1 point, of OpenVINO int8's sorted", 0.25, exits_single, OPENVINO, False,
               _point_and_loss(exits_single, rows)),
        target("exits within 1 point over OpenVINO int8 sorted, model only", 4, exits, OPENVINO, True,
               _point_and_loss(exits, rows)),
        target("the same from strings", 3, exits_strings, OPENVINO, True, _point_and_loss(exits_strings, rows)),
        target("float32, full depth, texts as they come, over ONNX Runtime float32 sorted", 1.2, floats, ONNX),
    ]  # fmt: skip


def our_row(rows: Iterable[Row], system: str, dtype: str, timed: str, single: bool) -> Row | None:
    """The compiled engine's row for unsorted texts; `single`: of one text at a time."""
    wanted = (system, "native", dtype, timed, "as it comes", single)
    for row in rows:
        key = (row["what"], row["engine"], row["dtype"], row["timed"], row["order"], "latency_ms_p50" in row)
        if key == wanted:
            return row
    return None


def within_a_point(rows: Sequence[Row], timed: str, single: bool) -> Row | None:
    """The faster int8 point, `balanced` or `fast`, within a point of full depth's accuracy, float32's if known."""
    full = our_row(rows, FULL, "float32", timed, single) or our_row(rows, FULL, "int8", timed, single)
    points = [our_row(rows, f"ziggurat {point}", "int8", timed, single) for point in ("balanced", "fast")]
    fitting = [row for row in points if row is not None and full is not None and _loss(row, full) <= WITHIN + 1e-9]
    return max(fitting, key=lambda row: row["texts_per_second_p50"], default=None)


def _loss(row: Row, full: Row) -> float:
    return full["accuracy"] - row["accuracy"]


def _point_and_loss(row: Row | None, rows: Sequence[Row]) -> str:
    """The operating point's name, and the points of accuracy that it loses."""
    if row is None:
        return ""
    full = our_row(rows, FULL, "float32", "model", False) or our_row(rows, FULL, "int8", "model", False)
    lost = "" if full is None else f", {100 * _loss(row, full):+.2f} points lost"
    return f"`{row['what'].removeprefix('ziggurat ')}`{lost}"


def _engine_targets(rows: Sequence[Row]) -> list[Target]:
    def worst_of(race: str, worst: Callable[..., Row], key: str, **having: str) -> tuple[Figure, str] | None:
        """The worst figure of a race's rows that have these values, and the system that it belongs to."""
        fitting = [row for row in rows if row["race"] == race and all(row[name] == having[name] for name in having)]
        if race == "roofline":
            fitting = [row for row in fitting if row["rows"] >= MANY_ROWS]
        if not fitting:
            return None
        row = worst(fitting, key=lambda row: _figure(row[key])[0])
        return _figure(row[key]), _system(row)

    idle = [
        Target(f"time over full depth's, {rule}, worst of dtypes and batches", limit, False, "x", 3,
               worst_of("never acting", max, "over_full", what=system))
        for system, rule, limit in (
            ("pruning", "every layer scores its tokens and drops none", 1.03),
            ("pruning before the last layer", "the same without the last layer's scores", 1.03),
            ("exits", "every exit is asked and no input exits", None),
        )
    ]  # fmt: skip
    saved = [
        Target(f"time saved over FLOPs saved, {acts}, worst of points, dtypes and batches", 0.9, True, "", 2,
               worst_of("savings", min, "efficiency_computed", acts=acts))
        for acts in ("exits", "exits and pruning")
    ]  # fmt: skip
    return [
        Target("one text, p50, of OpenVINO int8's as they come, engines just loaded, first time through the texts",
               0.3, False, "x", 2,
               worst_of("fresh", max, "of_theirs", what="OpenVINO", **{"pass": "first"})),
        *idle,
        *saved,
        Target("the same over FLOPs as papers count them, with all of full depth's last layer", None, True, "", 2,
               worst_of("savings", min, "efficiency")),
        Target("accuracy lost in int8, worst operating point", 0.3, False, " points", 2,
               worst_of("answers", max, "points_lost", dtype="int8")),
        Target("same answer at the same rung in int8 as in float32, worst operating point", 98, True, " %", 1,
               worst_of("answers", min, "same_decision", dtype="int8")),
        Target("cold start, the slower dtype", 0.5, False, " s", 2, worst_of("cold start", max, "seconds")),
        Target("memory above the weights, 32 x 128 tokens", 64, False, " MiB", 1, worst_of("memory", max, "growth")),
        Target(f"int8 products of {MANY_ROWS} rows and more, slowest shape", 0.85 * PEAK_TOPS, True, " TOP/s", 2,
               worst_of("roofline", min, "tops", what="linear i8")),
        *(
            Target(f"AVX2 {dtype} over transformers float32", None, True, "x", 1,
                   worst_of("avx2", max, "over_torch", what="avx2", dtype=dtype))
            for dtype in ("float32", "int8")
        ),
    ]  # fmt: skip


def _figure(value: float | Sequence[float]) -> Figure:
    return (value, value, value) if isinstance(value, float) else (value[0], value[1], value[2])


def _system(row: Row) -> str:
    """Which of a race's systems a row is about."""
    if row["race"] == "roofline":
        return f"{row['d_in']} x {row['d_out']}, {row['rows']} rows"
    name = f"`{row['what']}`, " if row["race"] in ("savings", "answers") else ""
    return f"{name}{row['dtype']}" + (f", batch {row['batch']}" if row["race"] in ("savings", "never acting") else "")
