"""The result of an evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ziggurat.measure.clock import Ratio
from ziggurat.system import json_values

Figures = Mapping[str, float | None]  # by name; None = undefined, such as a correlation with a constant


@dataclass(frozen=True)
class PointPromise:
    """The promise of a certified operating point, and whether it holds for a call."""

    target: float | None  # largest loss, as a share: 0.01 = one percentage point
    confidence: float | None  # of the promise
    criterion: str  # which loss
    rows: int  # number of certifying rows
    groups: int | None  # number of groups in which the rows were drawn; None = row by row
    broken: str | None  # why the promise does not hold for this call; None = it holds


@dataclass(frozen=True)
class SpeedBeside:
    """Speed of the model without tokenisation, and of its full depth in the same rounds; medians of five."""

    counted: str  # the unit: "texts" or "questions"
    per_second: float
    full_per_second: float  # at full depth
    ratio: Ratio  # full depth's time over this one's

    def to_dict(self) -> dict[str, float]:
        """The speed's keys in the evaluation."""
        return {
            f"{self.counted}_per_second": self.per_second,
            f"full_{self.counted}_per_second": self.full_per_second,
            "time_ratio": self.ratio.median,
            "time_ratio_low": self.ratio.low,
            "time_ratio_high": self.ratio.high,
        }


@dataclass(frozen=True)
class Evaluation:
    """Quality, cost and speed of a model on labelled rows, compared with its own full depth."""

    model: str  # folder or hub name, as it was given
    data: str  # source of the rows
    operating_point: str  # its name, or exit score and threshold
    promise: PointPromise | None  # None = the point is not certified
    n: int  # rows
    windows: int | None  # of all questions; None = inputs are not read in windows
    problem: str
    unit: str  # of losses
    figures: Figures  # of the problem: accuracy with its interval, F1, …; names of full depth's begin with full_
    metrics: Figures  # further ones of the task, likewise
    flops_ratio: float  # FLOPs of full depth over the FLOPs of the answers
    bops_ratio: float  # the same for bit operations
    mean_rungs: float  # number of the answering rung, from 1
    mean_layers: float  # encoder layers per input
    exit_histogram: Mapping[str, int]  # inputs by the name of the rung that answered
    tokens_left: tuple[float, ...]  # share of tokens read, then after each layer, of the inputs that reach it
    speed: SpeedBeside
    truncated: int  # number of truncated inputs
    seen_in_training: int  # number of rows that were used in training
    batch_size: int  # texts, or windows
    device: str
    dtype: str
    threads: int

    def to_dict(self) -> dict[str, Any]:
        """As JSON values; figures and speed are merged into the top level."""
        values = json_values(self)
        figures, _ = values.pop("figures"), values.pop("speed")
        if self.windows is None:
            del values["windows"]
        return values | figures | self.speed.to_dict()
