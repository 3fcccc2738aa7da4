"""What an evaluation returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ziggurat.measure.clock import Ratio
from ziggurat.system import json_values

Figures = Mapping[str, float | None]  # by name; None = not defined, as a correlation with a constant


@dataclass(frozen=True)
class PointPromise:
    """What a certified operating point promises, and whether that holds for a call."""

    target: float | None  # loss at most, as a share: 0.01 = one point
    confidence: float | None  # probability that it is kept
    criterion: str  # which loss
    rows: int  # that certified it
    groups: int | None  # that the rows were drawn in; None = one by one
    broken: str | None  # why the promise does not hold for this call; None = it does


@dataclass(frozen=True)
class SpeedBeside:
    """Speed of the model alone, without tokenisation, beside its full depth in the same rounds; medians of five."""

    counted: str  # what is answered: "texts" or "questions"
    per_second: float
    full_per_second: float  # at full depth
    ratio: Ratio  # full depth's time over this one's

    def to_dict(self) -> dict[str, float]:
        """As keys of the evaluation."""
        return {
            f"{self.counted}_per_second": self.per_second,
            f"full_{self.counted}_per_second": self.full_per_second,
            "time_ratio": self.ratio.median,
            "time_ratio_low": self.ratio.low,
            "time_ratio_high": self.ratio.high,
        }


@dataclass(frozen=True)
class Evaluation:
    """How good a model is on labelled rows, what it costs and how fast it is, beside its own full depth."""

    model: str  # folder or hub name, as it was given
    data: str  # source of the rows
    operating_point: str  # its name, or exit score and threshold
    promise: PointPromise | None  # None = the point is not certified
    n: int  # rows
    windows: int | None  # that all questions were read in; None = inputs are not read in windows
    problem: str
    unit: str  # of losses
    figures: Figures  # of the problem: accuracy with its interval, F1, …; with full_ before a name those of full depth
    metrics: Figures  # of the task, beside those, likewise
    flops_ratio: float  # FLOPs of full depth over those that were spent
    bops_ratio: float  # the same of bit operations
    mean_rungs: float  # rungs per input, 1 = the first answered
    mean_layers: float  # encoder layers per input
    exit_histogram: Mapping[str, int]  # inputs by the name of the rung that answered
    tokens_left: tuple[float, ...]  # share that is read, then that each layer leaves, of the inputs that come so far
    speed: SpeedBeside
    truncated: int  # inputs that are longer than the model reads
    seen_in_training: int  # rows that trained the model or chose something for it
    batch_size: int  # texts, or windows
    device: str
    dtype: str
    threads: int

    def to_dict(self) -> dict[str, Any]:
        """As JSON values; figures and speed are keys of the evaluation itself."""
        values = json_values(self)
        figures, _ = values.pop("figures"), values.pop("speed")
        if self.windows is None:
            del values["windows"]
        return values | figures | self.speed.to_dict()
