"""Loss against time from stored runs: the frontier of all settings, its controls, and the gain of each mechanism."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain

import numpy as np

from ziggurat.calibrate.bounds import upper_bound
from ziggurat.calibrate.page.data import Curve, Mechanism, oracle_rungs, random_loss, undominated
from ziggurat.calibrate.paths import Setting, frontier, net_loss
from ziggurat.calibrate.risks import Risk
from ziggurat.calibrate.rows import RungRuns
from ziggurat.calibrate.times import PredictedTime
from ziggurat.engine.opened import OpenedModel
from ziggurat.engine.replay import replay
from ziggurat.measure.subject import sample

_SHOWN = 30  # largest number of the frontier's settings on the page
FULL_DEPTH = "full depth"


def shown_frontier(paths: Sequence[Sequence[Setting]]) -> tuple[Setting, ...]:
    """At most `_SHOWN` settings of the Pareto front of time and loss, from slow to fast."""
    front = frontier(chain.from_iterable(paths))
    return tuple(front[place] for place in sample(len(front), _SHOWN)) if front else ()


def rungs_of(setting: Setting, rows: RungRuns) -> np.ndarray:
    """Rung at which each row exits, (n)."""
    run = rows.runs[setting.pruning]
    return replay(run.all_readings, setting.rule(run.deferral))


def band(risk: Risk, losses: np.ndarray, confidence: float) -> tuple[float, float]:
    """Lower and upper bound of the mean of losses (n), each with this confidence; the bound that certifies."""
    # A loss mirrored within its range is a loss again; the upper bound of its mean gives the lower bound.
    turned = risk.low + risk.high - losses
    return risk.low + risk.high - upper_bound(risk, turned, confidence), upper_bound(risk, losses, confidence)


def frontier_curve(settings: Sequence[Setting], certify_rows: RungRuns, risk: Risk, confidence: float) -> Curve:
    """Predicted time, and loss on the certifying rows."""
    losses = list(certify_rows.evidence(risk).losses_along(settings))
    bounds = np.array([band(risk, lost, confidence) for lost in losses]).reshape(-1, 2)
    means = np.array([lost.mean() for lost in losses])
    return Curve(np.array([1e3 * setting.seconds for setting in settings]), means, bounds[:, 0], bounds[:, 1])


def random_curve(
    settings: Sequence[Setting], search_rows: RungRuns, certify_rows: RungRuns, time: PredictedTime
) -> Curve:
    """The same settings, with their exits assigned to rows at random."""
    draws = np.random.default_rng(0)
    dealt = [draws.permutation(rungs_of(setting, search_rows)) for setting in settings]
    seconds = [time.of(rungs, setting.active, setting.pruning) for setting, rungs in zip(settings, dealt, strict=True)]
    losses = [
        random_loss(certify_rows.losses[setting.pruning], rungs_of(setting, certify_rows)) for setting in settings
    ]
    return Curve(1e3 * np.array(seconds), np.array(losses))


def oracle_curve(search_rows: RungRuns, certify_rows: RungRuns, time: PredictedTime) -> Curve:
    """Each row exits at the first rung without a loss, at the strengths of pruning where that is best."""
    ms, losses = [], []
    for strength, run in search_rows.runs.items():
        rungs = oracle_rungs(search_rows.losses[strength])
        active = np.isin(np.arange(run.n_rungs), [*rungs, run.n_rungs - 1])
        ms.append(1e3 * time.of(rungs, active.tolist(), strength))
        lost = certify_rows.losses[strength]
        losses.append(float(lost[np.arange(len(lost)), oracle_rungs(lost)].mean()))
    best = undominated(ms, losses)
    return Curve(np.array(ms)[best], np.array(losses)[best])


def mechanisms(
    classifier: OpenedModel,
    paths: Sequence[Sequence[Setting]],
    target: float,
    confidence: float,
    n: int,
    full_seconds: float,
) -> Iterator[Mechanism]:
    """Full depth, and for each kind the fastest setting that n draws are expected to certify for the target."""
    yield Mechanism(FULL_DEPTH, 1e3 * full_seconds)
    prunable, n_exits = classifier.token_rule is not None, len(classifier.rungs) - 1
    settings, net = list(chain.from_iterable(paths)), net_loss(paths)  # the same estimate that chose the paths
    for name, prunes, leaves in (("pruning alone", True, False), ("exits alone", False, True), ("both", True, True)):
        if prunes and not prunable:
            yield Mechanism(name, None, "the model prunes no tokens")
        elif leaves and not n_exits:
            yield Mechanism(name, None, "the model has no exits")
        else:
            of_kind = [setting for setting in settings if _kind(setting, prunable) == (prunes, leaves)]
            yield _mechanism(classifier, name, of_kind, target, lambda setting: setting.hoped_for(n, confidence, net))


def _kind(setting: Setting, prunable: bool) -> tuple[bool, bool]:
    """Whether a setting prunes, and whether it has early exits."""
    return prunable and setting.pruning > 0, any(setting.active[:-1])


def _mechanism(
    classifier: OpenedModel,
    name: str,
    settings: Sequence[Setting],
    target: float,
    hoped_for: Callable[[Setting], float],
) -> Mechanism:
    fine = [setting for setting in settings if hoped_for(setting) <= target]
    if fine:
        best = min(fine, key=lambda setting: setting.seconds)
        exits = tuple(rung.name for rung, yes in zip(classifier.rungs, best.active[:-1], strict=False) if yes)
        strength = best.pruning if _kind(best, classifier.token_rule is not None)[0] else None
        return Mechanism(name, 1e3 * best.seconds, None, exits, strength)
    if not settings:
        return Mechanism(name, None, "no setting is predicted to be faster than full depth on this machine")
    least = min(map(hoped_for, settings))
    return Mechanism(name, None, f"would lose too much: {100 * least:.2f} is the least that might be certified")
