"""Loss against time from stored runs: the frontier of what was tried, its controls, and which mechanism pays."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain

import numpy as np

from ziggurat.calibrate.bounds import upper_bound
from ziggurat.calibrate.page.data import Curve, Mechanism, oracle_rungs, random_loss, undominated
from ziggurat.calibrate.paths import Tried, frontier, net_loss
from ziggurat.calibrate.risks import Risk
from ziggurat.calibrate.rows import Seen
from ziggurat.calibrate.times import PredictedTime
from ziggurat.engine.opened import OpenedModel
from ziggurat.engine.replay import replay
from ziggurat.measure.subject import sample

_SHOWN = 30  # of the frontier's settings
FULL_DEPTH = "full depth"


def shown_frontier(paths: Sequence[Sequence[Tried]]) -> tuple[Tried, ...]:
    """At most `_SHOWN` of the settings that nothing tried beats in time and loss, from slow to fast."""
    front = frontier(chain.from_iterable(paths))
    return tuple(front[place] for place in sample(len(front), _SHOWN)) if front else ()


def rungs_of(setting: Tried, rows: Seen) -> np.ndarray:
    """Where each row leaves, (n)."""
    run = rows.runs[setting.pruning]
    return replay(run.every, setting.rule(run.deferral))


def band(risk: Risk, losses: np.ndarray, confidence: float) -> tuple[float, float]:
    """What the mean of losses (n) is not below, and not above, each with this confidence: the bound that certifies."""
    # Turned over within its range a loss is a loss again, and an upper bound of its mean a lower one of the other's.
    turned = risk.low + risk.high - losses
    return risk.low + risk.high - upper_bound(risk, turned, confidence), upper_bound(risk, losses, confidence)


def frontier_curve(settings: Sequence[Tried], witness: Seen, risk: Risk, confidence: float) -> Curve:
    """Predicted time, and loss on the rows that certify."""
    losses = list(witness.evidence(risk).losses_along(settings))
    bounds = np.array([band(risk, lost, confidence) for lost in losses]).reshape(-1, 2)
    means = np.array([lost.mean() for lost in losses])
    return Curve(np.array([1e3 * one.seconds for one in settings]), means, bounds[:, 0], bounds[:, 1])


def random_curve(settings: Sequence[Tried], order: Seen, witness: Seen, time: PredictedTime) -> Curve:
    """The same settings, their exits dealt out to the rows anew."""
    draws = np.random.default_rng(0)
    dealt = [draws.permutation(rungs_of(one, order)) for one in settings]
    seconds = [time.of(rungs, one.asked, one.pruning) for one, rungs in zip(settings, dealt, strict=True)]
    losses = [random_loss(witness.losses[one.pruning], rungs_of(one, witness)) for one in settings]
    return Curve(1e3 * np.array(seconds), np.array(losses))


def oracle_curve(order: Seen, witness: Seen, time: PredictedTime) -> Curve:
    """Each row leaves at the first rung that loses nothing, at the strengths of pruning where that is best."""
    ms, losses = [], []
    for strength, run in order.runs.items():
        rungs = oracle_rungs(order.losses[strength])
        asked = np.isin(np.arange(run.n_rungs), [*rungs, run.n_rungs - 1])
        ms.append(1e3 * time.of(rungs, asked.tolist(), strength))
        lost = witness.losses[strength]
        losses.append(float(lost[np.arange(len(lost)), oracle_rungs(lost)].mean()))
    best = undominated(ms, losses)
    return Curve(np.array(ms)[best], np.array(losses)[best])


def mechanisms(
    classifier: OpenedModel,
    paths: Sequence[Sequence[Tried]],
    target: float,
    confidence: float,
    n: int,
    full_seconds: float,
) -> Iterator[Mechanism]:
    """Full depth, and the fastest setting of each kind that n draws are expected to certify for the target."""
    yield Mechanism(FULL_DEPTH, 1e3 * full_seconds)
    prunable, n_exits = classifier.token_rule is not None, len(classifier.rungs) - 1
    every, net = list(chain.from_iterable(paths)), net_loss(paths)  # as the paths were chosen
    for name, prunes, leaves in (("pruning alone", True, False), ("exits alone", False, True), ("both", True, True)):
        if prunes and not prunable:
            yield Mechanism(name, None, "the model prunes no tokens")
        elif leaves and not n_exits:
            yield Mechanism(name, None, "the model has no exits")
        else:
            mine = [one for one in every if _kind(one, prunable) == (prunes, leaves)]
            yield _mechanism(classifier, name, mine, target, lambda one: one.hoped_for(n, confidence, net))


def _kind(setting: Tried, prunable: bool) -> tuple[bool, bool]:
    """Whether it prunes, and whether anybody may leave early."""
    return prunable and setting.pruning > 0, any(setting.asked[:-1])


def _mechanism(
    classifier: OpenedModel,
    name: str,
    settings: Sequence[Tried],
    target: float,
    hoped_for: Callable[[Tried], float],
) -> Mechanism:
    fine = [one for one in settings if hoped_for(one) <= target]
    if fine:
        best = min(fine, key=lambda one: one.seconds)
        asked = tuple(rung.name for rung, yes in zip(classifier.rungs, best.asked[:-1], strict=False) if yes)
        strength = best.pruning if _kind(best, classifier.token_rule is not None)[0] else None
        return Mechanism(name, 1e3 * best.seconds, None, asked, strength)
    if not settings:
        return Mechanism(name, None, "no setting is predicted to be faster than full depth on this machine")
    least = min(map(hoped_for, settings))
    return Mechanism(name, None, f"would lose too much: {100 * least:.2f} is the least that might be certified")
