"""Certifies the settings that keep a promise with the stated confidence; if none does, tells what would be needed.

The path of settings was learned on other rows (`paths`). Here each setting is tested in turn, at the full level, on
rows that influenced no choice. Testing stops at the first failure. This is fixed-sequence testing, the step of
Learn-then-Test that needs no correction for many tests (Angelopoulos et al. 2021, section 2.3).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from ziggurat.calibrate.bounds import fixed_sequence, p_value, rows_needed, upper_bound
from ziggurat.calibrate.candidates import StoredRun
from ziggurat.calibrate.grouping import Groups, per_draw
from ziggurat.calibrate.paths import Setting, losses_along
from ziggurat.calibrate.risks import Risk


@dataclass(frozen=True, eq=False)
class Evidence:
    """Runs and losses on the certifying rows."""

    runs: Mapping[float, StoredRun]  # by strength of pruning
    losses: Mapping[float, np.ndarray]  # (n, n_rungs), by strength of pruning
    risk: Risk
    groups: Groups | None = None  # in which the rows were drawn; None = row by row

    def losses_along(self, path: Sequence[Setting]) -> Iterator[np.ndarray]:
        """Loss of each draw, (n) or (n_groups), under each setting of a path."""
        for losses in losses_along(path, self.runs, self.losses):
            yield per_draw(losses, self.groups, self.risk)

    def losses_of(self, setting: Setting) -> np.ndarray:
        """Loss of each draw under one setting, (n) or (n_groups)."""
        return next(self.losses_along([setting]))

    @property
    def rows_per_draw(self) -> float:
        """Mean size of a group."""
        return 1.0 if self.groups is None else len(self.groups.rows) / len(self.groups)


@dataclass(frozen=True, eq=False)
class Certified:
    """The settings that are certified for one target."""

    target: float  # largest mean loss; a mean over groups if the rows were drawn in groups
    confidence: float
    settings: tuple[Setting, ...]  # certified, from slow to fast; () = only full depth keeps the promise
    tightest: float | None  # bound for a path's first setting; None = a setting is certified, or nothing was tested
    rows_needed: int | None  # about how many certifying rows would certify a path's first setting; None = no number

    @property
    def fastest(self) -> Setting | None:
        """The setting with the least predicted time; None = none is certified."""
        return min(self.settings, key=lambda setting: setting.seconds, default=None)


def certify(paths: Sequence[Sequence[Setting]], evidence: Evidence, target: float, confidence: float) -> Certified:
    """Tests the paths at one target. Each gets an equal share of the level: fixed sequences with several starts.

    ValueError for a confidence outside (0, 1).
    """
    level = (1 - confidence) / max(1, len(paths))
    passed = [path[: fixed_sequence(_p_values(path, evidence, target, level), level)] for path in paths]
    settings = sorted(chain.from_iterable(passed), key=lambda setting: -setting.seconds)
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


def _p_values(path: Sequence[Setting], evidence: Evidence, target: float, level: float) -> Iterator[float]:
    for losses in evidence.losses_along(path):
        yield p_value(evidence.risk, losses, target, level)


def least_rows(target: float, confidence: float) -> int:
    """Number of draws that certify `target` if none has a loss; with fewer no 0/1 risk can be certified."""
    return int(np.ceil(np.log(1 - confidence) / np.log1p(-target)))
