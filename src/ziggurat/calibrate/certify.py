"""The fastest setting that keeps a promise, with the stated confidence; or none, and what would be needed.

The path of settings was learned on other rows (`paths`). Here each is tested in turn on rows that decided nothing,
at the full level, until the first that fails: fixed-sequence testing, the step of Learn-then-Test that needs no
correction for many tests (Angelopoulos et al. 2021, section 2.3).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ziggurat.calibrate.bounds import p_value, rows_needed, upper_bound
from ziggurat.calibrate.paths import Tried, losses_along
from ziggurat.calibrate.risks import Risk
from ziggurat.calibrate.stored import StoredRun
from ziggurat.calibrate.testing import fixed_sequence


@dataclass(frozen=True, eq=False)
class Evidence:
    """What the certifying rows say of all settings."""

    runs: Mapping[float, StoredRun]  # by strength of pruning
    losses: Mapping[float, np.ndarray]  # (n, n_rungs), likewise
    risk: Risk

    def losses_along(self, path: Sequence[Tried]) -> Iterator[np.ndarray]:
        """Loss of each row, (n), under each setting of a path."""
        return losses_along(path, self.runs, self.losses)

    def losses_of(self, setting: Tried) -> np.ndarray:
        """Of one setting, (n)."""
        return next(self.losses_along([setting]))


@dataclass(frozen=True, eq=False)
class Certified:
    """What can be promised for one target."""

    target: float  # largest mean loss
    confidence: float
    settings: tuple[Tried, ...]  # certified, from slow to fast; none = only full depth keeps the promise
    tightest: float | None  # what is certified of the path's first setting, where none keeps the target
    rows_needed: int | None  # about how many certifying rows would certify the path's first setting; None = no number

    @property
    def fastest(self) -> Tried | None:
        """By predicted time."""
        return min(self.settings, key=lambda one: one.seconds, default=None)


def certify(path: Sequence[Tried], evidence: Evidence, target: float, confidence: float) -> Certified:
    """Tests the path at one target. ValueError for a confidence outside (0, 1)."""
    level = 1 - confidence
    settings = tuple(path[: fixed_sequence(_p_values(path, evidence, target, level), level)])
    if settings or not path:
        return Certified(target, confidence, settings, None, None)
    losses = evidence.losses_of(path[0])
    needed = rows_needed(evidence.risk, float(losses.mean()), float(losses.var()), target, confidence)
    return Certified(target, confidence, (), upper_bound(evidence.risk, losses, confidence), needed)


def _p_values(path: Sequence[Tried], evidence: Evidence, target: float, level: float) -> Iterator[float]:
    for losses in evidence.losses_along(path):
        yield p_value(evidence.risk, losses, target, level)


def least_rows(target: float, confidence: float) -> int:
    """How many rows certify `target` if none of them shows a loss: below, no 0/1 risk can be certified at all."""
    return int(np.ceil(np.log(1 - confidence) / np.log1p(-target)))
