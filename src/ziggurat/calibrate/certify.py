"""The fastest setting that keeps a promise, with the stated confidence; or none, and what would be needed.

The path of settings was learned on other rows (`paths`). Here each is tested in turn on rows that decided nothing,
at the full level, until the first that fails: fixed-sequence testing, the step of Learn-then-Test that needs no
correction for many tests (Angelopoulos et al. 2021, section 2.3).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from ziggurat.calibrate.bounds import fixed_sequence, p_value, rows_needed, upper_bound
from ziggurat.calibrate.candidates import StoredRun
from ziggurat.calibrate.grouping import Groups, per_draw
from ziggurat.calibrate.paths import Tried, losses_along
from ziggurat.calibrate.risks import Risk


@dataclass(frozen=True, eq=False)
class Evidence:
    """What the certifying rows say of all settings."""

    runs: Mapping[float, StoredRun]  # by strength of pruning
    losses: Mapping[float, np.ndarray]  # (n, n_rungs), likewise
    risk: Risk
    groups: Groups | None = None  # that the rows were drawn in; None = each was drawn by itself

    def losses_along(self, path: Sequence[Tried]) -> Iterator[np.ndarray]:
        """Loss of each draw, (n) or (n_groups), under each setting of a path."""
        for losses in losses_along(path, self.runs, self.losses):
            yield per_draw(losses, self.groups, self.risk)

    def losses_of(self, setting: Tried) -> np.ndarray:
        """Of one setting, likewise."""
        return next(self.losses_along([setting]))

    @property
    def rows_per_draw(self) -> float:
        """Mean size of a group."""
        return 1.0 if self.groups is None else len(self.groups.rows) / len(self.groups)


@dataclass(frozen=True, eq=False)
class Certified:
    """What can be promised for one target."""

    target: float  # largest mean loss, over groups where rows were drawn in groups
    confidence: float
    settings: tuple[Tried, ...]  # certified, from slow to fast; none = only full depth keeps the promise
    tightest: float | None  # what is certified of a path's first setting, where none keeps the target
    rows_needed: int | None  # about how many certifying rows would certify a path's first setting; None = no number

    @property
    def fastest(self) -> Tried | None:
        """By predicted time."""
        return min(self.settings, key=lambda one: one.seconds, default=None)


def certify(paths: Sequence[Sequence[Tried]], evidence: Evidence, target: float, confidence: float) -> Certified:
    """Tests paths at one target, each at its share of the level: fixed sequences with several starts (Learn then Test).

    ValueError for a confidence outside (0, 1).
    """
    level = (1 - confidence) / max(1, len(paths))
    passed = [path[: fixed_sequence(_p_values(path, evidence, target, level), level)] for path in paths]
    settings = sorted(chain.from_iterable(passed), key=lambda one: -one.seconds)
    if settings or not paths:
        return Certified(target, confidence, tuple(settings), None, None)
    first = [evidence.losses_of(path[0]) for path in paths]
    draws = [
        rows_needed(evidence.risk, float(losses.mean()), float(losses.var()), target, 1 - level) for losses in first
    ]
    return Certified(
        target,
        confidence,
        (),
        tightest=min(upper_bound(evidence.risk, losses, 1 - level) for losses in first),
        rows_needed=min((int(np.ceil(n * evidence.rows_per_draw)) for n in draws if n is not None), default=None),
    )


def _p_values(path: Sequence[Tried], evidence: Evidence, target: float, level: float) -> Iterator[float]:
    for losses in evidence.losses_along(path):
        yield p_value(evidence.risk, losses, target, level)


def least_rows(target: float, confidence: float) -> int:
    """How many draws certify `target` if none of them shows a loss: below, no 0/1 risk can be certified at all."""
    return int(np.ceil(np.log(1 - confidence) / np.log1p(-target)))
