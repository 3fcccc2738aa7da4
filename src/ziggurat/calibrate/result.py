"""What a calibration returns."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ziggurat.system import json_values
from ziggurat.types import Certificate, OperatingPoint


@dataclass(frozen=True)
class RowsUsed:
    """How many rows of the source played which part."""

    order: int  # chose which settings are tested
    certify: int  # certified
    left_out: int  # trained the model, and are not used


@dataclass(frozen=True)
class TargetResult:
    """The outcome for one target."""

    name: str  # of the operating point
    target: float  # loss at most, as a share: 0.01 = one point
    certified: int  # settings that keep it
    tightest: float | None  # smallest loss that the rows would certify for a faster setting; None = nothing is faster
    rows_needed: int | None  # rows that might certify the target; None = no number of rows would
    note: str | None  # why the point is not faster
    point: OperatingPoint | None  # None = nothing keeps the promise

    @property
    def certificate(self) -> Certificate | None:
        """Of the point; None where there is none."""
        return None if self.point is None else self.point.certificate

    @property
    def is_faster(self) -> bool:
        """Whether the point does anything else than full depth."""
        point = self.point
        return point is not None and (point.pruning > 0 or any(limit is not None for limit in point.thresholds))


@dataclass(frozen=True)
class Calibration:
    """The operating points that were certified, and on what."""

    model: str  # as it was given
    data: str  # source of the rows
    problem: str
    criterion: str  # which loss
    confidence: float  # probability with which each promise holds
    reference: str | None  # model that losses are counted from; None = the model itself at full depth
    rows: RowsUsed
    groups: int  # that the certifying rows fall into, by the text that they share
    grouped: bool  # whether a group counts once
    overlap: float  # share of certifying texts that are parts of texts that trained the model, or the reverse
    settings: int  # that were tried
    batch_size: int  # inputs
    profile: str | None  # key of the machine's profile that predicted times; None = they were not predicted by one
    note: str | None  # what is promised in place of the task's own measure
    unit: str  # of a loss times 100
    points: tuple[TargetResult, ...]
    html: Path | None = None  # page that was written

    def to_dict(self) -> dict[str, Any]:
        """As JSON values; `html` only where there is a page."""
        return {key: value for key, value in json_values(self).items() if key != "html" or value is not None}
