"""The result of a calibration."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ziggurat.system import json_values
from ziggurat.types import Certificate, OperatingPoint


@dataclass(frozen=True)
class RowsUsed:
    """Number of rows of the source in each role."""

    order: int  # search rows, which choose the settings to test
    certify: int  # certifying rows
    left_out: int  # rows that trained the model, and are not used


@dataclass(frozen=True)
class TargetResult:
    """The result for one target."""

    name: str  # of the operating point
    target: float  # largest loss, as a share: 0.01 = one percentage point
    certified: int  # number of settings that keep it
    tightest: float | None  # smallest loss that the rows certify for a faster setting; None = no setting is faster
    rows_needed: int | None  # rows that might certify the target; None = no number of rows would
    note: str | None  # why the point is not faster
    point: OperatingPoint | None  # None = no setting keeps the promise

    @property
    def certificate(self) -> Certificate | None:
        """The certificate of the point; None if there is no point."""
        return None if self.point is None else self.point.certificate

    @property
    def is_faster(self) -> bool:
        """Whether the point prunes or exits early."""
        point = self.point
        return point is not None and (point.pruning > 0 or any(limit is not None for limit in point.thresholds))


@dataclass(frozen=True)
class Calibration:
    """The certified operating points, and the data and options of the calibration."""

    model: str  # as it was given
    data: str  # source of the rows
    problem: str
    criterion: str  # which loss
    confidence: float  # of each promise
    reference: str | None  # model that losses are relative to; None = the model itself at full depth
    rows: RowsUsed
    groups: int  # number of groups of certifying rows that share text
    grouped: bool  # whether a group counts once
    overlap: float  # share of certifying texts that are part of a training text, or contain one
    settings: int  # number on all paths
    batch_size: int  # inputs
    profile: str | None  # key of the machine profile that predicted times; None = without a profile
    note: str | None  # criterion that is promised in place of the task's own measure
    unit: str  # of a loss times 100
    points: tuple[TargetResult, ...]
    html: Path | None = None  # the written page

    def to_dict(self) -> dict[str, Any]:
        """As JSON values; `html` only where there is a page."""
        return {key: value for key, value in json_values(self).items() if key != "html" or value is not None}
