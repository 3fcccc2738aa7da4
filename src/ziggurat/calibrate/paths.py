"""The path of settings that is tested for one target, learned on rows that certify nothing.

A path is one family of settings, from strict to daring, so that each is riskier than the one before: what
fixed-sequence testing needs to get far. Which family goes fastest is estimated here; a wrong estimate costs speed,
never the promise.
Testing along the Pareto front of all settings (Laufer-Goldshtein et al. 2023) is as valid, but its every point won by
luck over thousands, and on other rows the first of them fails.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, takewhile
from statistics import NormalDist

import numpy as np

from ziggurat.calibrate.candidates import Candidate, StoredRun, doubts
from ziggurat.policies.exits import LEARNED, exit_score
from ziggurat.policies.rules import ExitRule

Seconds = Callable[[Candidate], float]  # predicted time per text of a setting on the rows that order the path
_STEP = 0.005  # neighbours on a path differ in time by at least this share
_LEAST_NET = 0.25  # of what a setting moves, the share that is taken to be lost, however the ordering rows look


@dataclass(frozen=True, eq=False)
class Tried:
    """A setting with what it is expected to cost and to lose."""

    score: str
    thresholds: np.ndarray  # (n_rungs - 1) float64 as in an exit rule, NaN = not asked
    pruning: float
    seconds: float  # per text, predicted
    loss: float  # mean, on the rows that order the path
    spread: float  # standard deviation of the loss there
    moved: float  # mean size of the loss there: of a signed one, what is put wrong and what is put right

    def rule(self, deferral: np.ndarray | None = None) -> ExitRule:
        """As the engine takes it, with the model's weights of the learned score; pruning is the caller's."""
        return ExitRule(self.score, self.thresholds, deferral=deferral)

    @property
    def asked(self) -> tuple[bool, ...]:
        """Which rungs are asked; the last always is."""
        return self.rule().active

    def hoped_for(self, n: int, confidence: float, net: float = 1.0) -> float:
        """About the lowest target that n rows would certify if the share `net` of what moves is lost on balance."""
        return net * self.moved + NormalDist().inv_cdf(confidence) * self.spread / float(np.sqrt(n))


def tried(candidate: Candidate, losses: np.ndarray, seconds: Seconds) -> Tried:
    """A candidate on the rows that order the path: losses (n, n_rungs) of leaving at each rung."""
    lost = losses[np.arange(len(losses)), candidate.rungs]
    return Tried(
        candidate.score,
        candidate.thresholds,
        candidate.pruning,
        seconds(candidate),
        float(lost.mean()),
        float(lost.std()),
        float(np.abs(lost).mean()),
    )


def losses_along(
    path: Sequence[Tried], runs: Mapping[float, StoredRun], losses: Mapping[float, np.ndarray]
) -> Iterator[np.ndarray]:
    """Loss of each row (n) under each setting of a path, from stored runs and losses (n, n_rungs) by pruning.

    The same as the engine's `replay` for each of them, but the exits' scores are computed once for all of a family.
    """
    for (strength, score, _), family in groupby(path, key=_family):
        settings = list(family)
        exits = tuple(np.flatnonzero(np.any([~np.isnan(one.thresholds) for one in settings], axis=0)).tolist())
        known = doubts(runs[strength], score, exits)
        for one in settings:
            rungs = known.rungs(known.limits(one.thresholds))
            yield losses[strength][np.arange(len(rungs)), rungs]


def _family(setting: Tried) -> tuple[float, str, tuple[bool, ...]]:
    """What settings have in common whose doubts are the same: where a score looks back, also which exits are asked."""
    back = exit_score(setting.score).looks_back or setting.score == LEARNED  # this one does of a regression
    return setting.pruning, setting.score, setting.asked if back else ()


def losses_of(setting: Tried, runs: Mapping[float, StoredRun], losses: Mapping[float, np.ndarray]) -> np.ndarray:
    """Of one setting, (n)."""
    return next(losses_along([setting], runs, losses))


def path_of(family: Iterable[Tried], slowest: float) -> tuple[Tried, ...]:
    """A family's settings that are faster than `slowest` (seconds per text) and than all before them.

    Those that are hardly faster are left out: each is a test that could end the path by bad luck.
    """
    kept: list[Tried] = []
    fastest = slowest
    for one in family:
        if one.seconds <= fastest * (1 - _STEP):
            kept.append(one)
            fastest = one.seconds
    return tuple(kept)


def sequences(
    paths: Sequence[Sequence[Tried]], targets: Iterable[float], confidence: float, n: int
) -> dict[float, tuple[tuple[Tried, ...], ...]]:
    """For each target the sequences of settings that n rows test.

    A sequence begins with what would keep the next smaller target if all that it moves were lost: that is still
    certified where the looser target's own path fails at its first setting. It costs no level, for it is one sequence,
    fixed beforehand, and hardly any reach, for such settings pass.
    """
    tested: dict[float, tuple[tuple[Tried, ...], ...]] = {}
    safe: list[tuple[Tried, ...]] = []
    for target in sorted(set(targets)):
        own = starts(paths, target, confidence, n)
        tested[target] = tuple(
            _after(safe[min(place, len(safe) - 1)], path) if safe else path for place, path in enumerate(own)
        )
        if target > 0:  # at 0 no test ever passes, and what loses nothing here may lose something on other rows
            safe = [reached for path in tested[target] if (reached := _expected(path, target, confidence, n, net=1.0))]
    return tested


def _after(safe: Sequence[Tried], path: Sequence[Tried]) -> tuple[Tried, ...]:
    """A path behind settings that are safer: of its own only what is faster than all of them."""
    return (*safe, *path_of(path, slowest=min(one.seconds for one in safe)))


def starts(paths: Sequence[Sequence[Tried]], target: float, confidence: float, n: int) -> tuple[tuple[Tried, ...], ...]:
    """The paths that are worth a test on n rows: the best, and where that prunes, the best that does not.

    A path that prunes loses something from its first setting on, and if that fails, so does the path; exits alone begin
    with losing next to nothing. No path at all if nothing is faster than full depth.
    """
    net = net_loss(paths)
    found = [_best(paths, target, confidence, n, net)]
    if found[0] and found[0][0].pruning > 0:
        plain = [path for path in paths if path and path[0].pruning == 0]
        found.append(_best(plain, target, confidence, n, net))
    return tuple(path for path in found if path)


def net_loss(paths: Sequence[Sequence[Tried]]) -> float:
    """Of what settings move, the share that is lost on balance, over all of them: 1 where nothing is put right.

    A drop in accuracy is a small difference of large counts. Setting by setting it would put first what was lucky on
    these rows, and rows that chose the model flatter it besides: hence at least a quarter.
    """
    moved = sum(one.moved for path in paths for one in path)
    lost = sum(one.loss for path in paths for one in path)
    return min(1.0, max(_LEAST_NET, lost / moved)) if moved else 1.0


def _best(paths: Sequence[Sequence[Tried]], target: float, confidence: float, n: int, net: float) -> tuple[Tried, ...]:
    """The path that is expected to get fastest before n rows end it; the least risky if none gets anywhere."""
    reached = [(_expected(path, target, confidence, n, net), tuple(path)) for path in paths if path]
    fine = [(within[-1].seconds, path) for within, path in reached if within]
    if fine:
        return min(fine, key=lambda one: one[0])[1]
    return min((path for _, path in reached), key=lambda path: path[0].hoped_for(n, confidence, net), default=())


def _expected(path: Sequence[Tried], target: float, confidence: float, n: int, net: float) -> tuple[Tried, ...]:
    """A path's settings before the first that n rows are not expected to pass."""
    return tuple(takewhile(lambda one: one.hoped_for(n, confidence, net) <= target, path))


def frontier(every: Iterable[Tried]) -> tuple[Tried, ...]:
    """Those that nothing beats in time or estimated loss without losing in the other, from slow to fast."""
    front: list[Tried] = []
    for one in sorted(every, key=lambda setting: (setting.loss, setting.seconds)):
        if not front or one.seconds < front[-1].seconds:
            front.append(one)
    return tuple(front)
