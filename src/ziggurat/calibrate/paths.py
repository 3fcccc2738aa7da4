"""The path of settings that is tested for one target, learned on the search rows, which certify nothing.

A path is a family of settings ordered from conservative to aggressive. Each is riskier than the one before, so
fixed-sequence testing gets far. The fastest family is estimated here; a wrong estimate costs speed, never validity.
Testing along the Pareto front of all settings (Laufer-Goldshtein et al. 2023) is as valid. But each point of the front
was selected from thousands, so its estimate is too good, and the first of them fails on other rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, takewhile
from statistics import NormalDist

import numpy as np

from ziggurat.calibrate.candidates import Candidate, StoredRun, uncertainty_of
from ziggurat.policies.exits import LEARNED, exit_score
from ziggurat.policies.rules import ExitRule

Seconds = Callable[[Candidate], float]  # predicted time per text of a setting on the search rows
_STEP = 0.005  # least relative difference in time between neighbours on a path
_LEAST_NET = 0.25  # least assumed ratio of net loss to moved loss, whatever the search rows show


@dataclass(frozen=True, eq=False)
class Setting:
    """A setting with its predicted time and its loss on the search rows."""

    score: str
    thresholds: np.ndarray  # (n_rungs - 1) float64 as in an exit rule, NaN = not evaluated
    pruning: float
    seconds: float  # per text, predicted
    loss: float  # mean, on the search rows
    spread: float  # standard deviation of that loss
    moved: float  # mean absolute loss: new errors plus corrected errors

    def rule(self, deferral: np.ndarray | None = None) -> ExitRule:
        """The exit rule; `deferral` are the model's weights of the learned score. The caller adds the pruning."""
        return ExitRule(self.score, self.thresholds, deferral=deferral)

    @property
    def active(self) -> tuple[bool, ...]:
        """Which rungs are evaluated; the last always is."""
        return self.rule().active

    def hoped_for(self, n: int, confidence: float, net: float = 1.0) -> float:
        """About the lowest target that n rows would certify if the mean loss is `net` times `moved`."""
        return net * self.moved + NormalDist().inv_cdf(confidence) * self.spread / float(np.sqrt(n))


def setting_of(candidate: Candidate, losses: np.ndarray, seconds: Seconds) -> Setting:
    """A candidate with its figures on the search rows; losses (n, n_rungs) of an exit at each rung."""
    lost = losses[np.arange(len(losses)), candidate.rungs]
    return Setting(
        candidate.score,
        candidate.thresholds,
        candidate.pruning,
        seconds(candidate),
        float(lost.mean()),
        float(lost.std()),
        float(np.abs(lost).mean()),
    )


def losses_along(
    path: Sequence[Setting], runs: Mapping[float, StoredRun], losses: Mapping[float, np.ndarray]
) -> Iterator[np.ndarray]:
    """Loss of each row (n) under each setting of a path, from stored runs and losses (n, n_rungs) by pruning.

    The same as the engine's `replay` for each setting, but a family's scores are computed once.
    """
    for (strength, score, _), family in groupby(path, key=_family):
        settings = list(family)
        exits = tuple(np.flatnonzero(np.any([~np.isnan(setting.thresholds) for setting in settings], axis=0)).tolist())
        uncertainty = uncertainty_of(runs[strength], score, exits)
        for setting in settings:
            rungs = uncertainty.rungs(uncertainty.limits(setting.thresholds))
            yield losses[strength][np.arange(len(rungs)), rungs]


def _family(setting: Setting) -> tuple[float, str, tuple[bool, ...]]:
    """Key of settings that share uncertainties; for a score that looks back it includes the evaluated exits."""
    back = (
        exit_score(setting.score).looks_back or setting.score == LEARNED
    )  # the learned score of a regression looks back
    return setting.pruning, setting.score, setting.active if back else ()


def losses_of(setting: Setting, runs: Mapping[float, StoredRun], losses: Mapping[float, np.ndarray]) -> np.ndarray:
    """Loss of each row under one setting, (n)."""
    return next(losses_along([setting], runs, losses))


def path_of(family: Iterable[Setting], slowest: float) -> tuple[Setting, ...]:
    """The settings of a family that are faster than `slowest` (seconds per text) and than all before them.

    Settings that are hardly faster are dropped: each is one more test at which the path could end by chance.
    """
    path: list[Setting] = []
    fastest = slowest
    for setting in family:
        if setting.seconds <= fastest * (1 - _STEP):
            path.append(setting)
            fastest = setting.seconds
    return tuple(path)


def sequences(
    paths: Sequence[Sequence[Setting]], targets: Iterable[float], confidence: float, n: int
) -> dict[float, tuple[tuple[Setting, ...], ...]]:
    """The sequences of settings that n rows test, by target.

    A sequence begins with settings that would keep the next smaller target even if all moved loss were net loss. They
    are still certified where the looser target's path would fail at its first setting. This costs no level, since it is
    one sequence that is fixed beforehand. It costs hardly any power, since such settings pass.
    """
    tested: dict[float, tuple[tuple[Setting, ...], ...]] = {}
    safe: list[tuple[Setting, ...]] = []
    for target in sorted(set(targets)):
        first_paths = starts(paths, target, confidence, n)
        tested[target] = tuple(
            _after(safe[min(place, len(safe) - 1)], path) if safe else path for place, path in enumerate(first_paths)
        )
        if target > 0:  # at 0 no test passes, and settings without a loss here may have one on other rows
            safe = [reached for path in tested[target] if (reached := _expected(path, target, confidence, n, net=1.0))]
    return tested


def _after(safe: Sequence[Setting], path: Sequence[Setting]) -> tuple[Setting, ...]:
    """Safer settings, followed by those settings of the path that are faster than all of them."""
    return (*safe, *path_of(path, slowest=min(setting.seconds for setting in safe)))


def starts(
    paths: Sequence[Sequence[Setting]], target: float, confidence: float, n: int
) -> tuple[tuple[Setting, ...], ...]:
    """The paths to test on n rows: the best, and if that prunes, also the best that does not.

    A path that prunes has a loss from its first setting on; if that setting fails, the whole path fails. A path with
    exits alone starts with almost no loss. () if no setting is faster than full depth.
    """
    net = net_loss(paths)
    found = [_best(paths, target, confidence, n, net)]
    if found[0] and found[0][0].pruning > 0:
        plain = [path for path in paths if path and path[0].pruning == 0]
        found.append(_best(plain, target, confidence, n, net))
    return tuple(path for path in found if path)


def net_loss(paths: Sequence[Sequence[Setting]]) -> float:
    """Ratio of net loss to moved loss over all settings: 1 if no error is corrected.

    A drop in accuracy is a small difference of large counts. Estimated per setting, it would favour settings that were
    lucky on these rows. Rows that also selected the model make it too small, hence the lower bound of a quarter.
    """
    moved = sum(setting.moved for path in paths for setting in path)
    lost = sum(setting.loss for path in paths for setting in path)
    return min(1.0, max(_LEAST_NET, lost / moved)) if moved else 1.0


def _best(
    paths: Sequence[Sequence[Setting]], target: float, confidence: float, n: int, net: float
) -> tuple[Setting, ...]:
    """The path whose expected last certified setting is fastest; the least risky path if none is expected to pass."""
    reached = [(_expected(path, target, confidence, n, net), tuple(path)) for path in paths if path]
    fine = [(within[-1].seconds, path) for within, path in reached if within]
    if fine:
        return min(fine, key=lambda setting: setting[0])[1]
    return min((path for _, path in reached), key=lambda path: path[0].hoped_for(n, confidence, net), default=())


def _expected(path: Sequence[Setting], target: float, confidence: float, n: int, net: float) -> tuple[Setting, ...]:
    """The settings of a path before the first that is not expected to pass on n rows."""
    return tuple(takewhile(lambda setting: setting.hoped_for(n, confidence, net) <= target, path))


def frontier(settings: Iterable[Setting]) -> tuple[Setting, ...]:
    """The Pareto front of time and estimated loss, from slow to fast."""
    front: list[Setting] = []
    for setting in sorted(settings, key=lambda setting: (setting.loss, setting.seconds)):
        if not front or setting.seconds < front[-1].seconds:
            front.append(setting)
    return tuple(front)
