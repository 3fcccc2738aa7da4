"""Records that `bench` and `compare` return: one for each timed system."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ziggurat.bench.peers.opening import LeftOut
from ziggurat.measure.clock import Ratio, Speed
from ziggurat.measure.rows import checked_row
from ziggurat.system import json_values

Figures = Mapping[str, Any]  # by name: accuracy with interval, or another problem's figures, and FLOPs


@dataclass(frozen=True)
class BenchRow:
    """Speed and quality of one system. A result row, see `measure.rows.SCHEMA`."""

    system: str  # its name, or that of the operating point
    data: str
    split: str
    model: str  # name of its folder
    device: str
    threads: int
    batch: int  # texts
    dtype: str
    padding: str  # "as it comes", "sorted" or "packed"
    timed: str  # "model" (tensors in, tensors out) or "process" (texts in, answers out)
    speed: Speed
    tokens: Mapping[str, float]  # of the timed texts: mean, and 99th percentile
    quality: Figures  # on all rows
    origin: Mapping[str, Any]  # date, commit, machine and versions

    @property
    def n_accuracy(self) -> int:
        """Number of rows that quality is measured on."""
        return int(self.quality["n_accuracy"])

    def to_dict(self) -> dict[str, Any]:
        """As JSON values; with a `warning` where fewer FLOPs took more time."""
        values = {"what" if key == "system" else key: value for key, value in json_values(self).items()}
        parts = [
            values.pop(name) for name in ("origin", "speed", "tokens", "quality")
        ]  # their keys are merged into the row
        return checked_row(values | {key: value for part in parts for key, value in part.items()})


@dataclass(frozen=True)
class BenchResult:
    """All rows of one run."""

    rows: tuple[BenchRow, ...]
    figures: tuple[Path, ...] = ()  # files, if a figure was drawn

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return dict(json_values(self)) | {"rows": [row.to_dict() for row in self.rows]}


@dataclass(frozen=True)
class Entered:
    """Settings of a system in a comparison."""

    engine: str
    peer: bool  # whether it is another project's engine
    order: str  # of the texts: "as it comes" or "sorted"
    streams: int  # batches that run in parallel
    calibration: str | None  # calibration texts of an int8 peer; None = not calibrated
    latencies: tuple[float, float] | None  # ms of one text: median and 95th percentile; None = batches were timed
    over: Mapping[str, Ratio] | None  # times as fast as each peer; None = this is a peer

    def to_dict(self) -> dict[str, Any]:
        """As keys of the row, without None."""
        found: dict[str, Any] = {name: getattr(self, name) for name in ("engine", "peer", "order", "streams")}
        if self.calibration is not None:
            found["calibration"] = self.calibration
        if self.latencies is not None:
            found |= dict(zip(("latency_ms_p50", "latency_ms_p95"), self.latencies, strict=True))
        if self.over is not None:
            found["over"] = {peer: [ratio.median, ratio.low, ratio.high] for peer, ratio in self.over.items()}
        return found


@dataclass(frozen=True)
class ComparisonRow:
    """A result row of a comparison."""

    row: BenchRow
    entered: Entered

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return self.row.to_dict() | self.entered.to_dict()


@dataclass(frozen=True)
class Comparison:
    """Result of `compare`."""

    rows: tuple[ComparisonRow, ...]
    left_out: tuple[LeftOut, ...]  # engines that cannot run here, with the reason
    calibration: str | None  # calibration texts of int8 peers; None = no int8 peer
    figures: tuple[Path, ...] = ()  # files, if a figure was drawn

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return dict(json_values(self)) | {"rows": [row.to_dict() for row in self.rows]}
