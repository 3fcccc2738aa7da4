"""Exit settings that are worth trying on a stored run: which exits are asked, by which score, with which thresholds.

Two families. One threshold for all exits, as in the papers; and one for each exit, chosen so that all of them stake the
same risk for the same saving: an exit lets go of a row if its expected loss is at most λ times the time that it saves
(the Lagrangian of "fastest within a risk"), the expected loss being an isotonic fit to the score (Barlow et al. 1972).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ziggurat.calibrate.stored import Doubts, StoredRun, doubts
from ziggurat.policies.exits import LEARNED, exit_score
from ziggurat.policies.outputs import CLASSES

SCORES = CLASSES.tried  # of classes; with two of them they order rows alike
THRESHOLDS = 64  # that are tried of each family
_HAIR = 1e-4  # beyond the smallest and largest doubt
_STAKES = np.geomspace(1e-3, 3.0, 48)  # λ: expected loss per share of full depth's time that leaving saves


@dataclass(frozen=True, eq=False)
class Candidate:
    """A setting, and where it lets the rows of the stored run leave."""

    score: str
    thresholds: np.ndarray  # (n_rungs - 1) float64 as in an exit rule, NaN = not asked
    rungs: np.ndarray  # (n)
    pruning: float

    @property
    def asked(self) -> tuple[bool, ...]:
        """Which rungs are asked; the last always is."""
        return (*(~np.isnan(self.thresholds)).tolist(), True)


def full_depth(run: StoredRun, score: str) -> Candidate:
    """Nobody leaves early; the score, one that the model can have, says nothing unless the ladder is `extended`."""
    last = run.n_rungs - 1
    return Candidate(score, np.full(last, np.nan), np.full(len(run.every), last), run.pruning)


def extended(candidate: Candidate, n_rungs: int) -> Candidate:
    """A candidate of a ladder that was cut off, for the whole one of n_rungs: where it was cut, everybody leaves."""
    cut = len(candidate.thresholds)
    if cut == n_rungs - 1:
        return candidate
    thresholds = np.full(n_rungs - 1, np.nan)
    thresholds[:cut] = candidate.thresholds
    thresholds[cut] = exit_score(candidate.score).always
    return replace(candidate, thresholds=thresholds)


def families(
    run: StoredRun,
    losses: np.ndarray,
    saved: np.ndarray,
    scores: Sequence[str] = SCORES,
    tiers: Sequence[int] = (),
    temperatures: np.ndarray | None = None,
) -> Iterator[tuple[Candidate, ...]]:
    """Settings that are tried on a stored run, each family from strict to daring; first pruning alone.

    `losses` (n, n_rungs): of leaving there; `saved` (n_rungs): share of full depth's time that leaving there saves.
    `tiers` are the numbers of rungs of a cascade's tiers; () = one model.
    """
    tried = [*_different(scores, run.every.shape[2]), *([] if run.deferral is None else [LEARNED])]
    yield (full_depth(run, tried[0]),)
    for score in dict.fromkeys(tried):
        for exits in exit_sets(run.n_rungs - 1, tiers):
            known = doubts(run, score, exits, temperatures)
            for limits in (_shared(known), _staked(known, losses, saved)):
                yield tuple(_candidate(known, one, run.pruning) for one in limits)


def _different(scores: Sequence[str], n_classes: int) -> list[str]:
    """With two classes each of SCORES is a function of the margin, so that the first of them stands for all."""
    if n_classes > 2:
        return list(scores)
    alike = [score for score in scores if score in SCORES]
    return [score for score in scores if score not in alike[1:]]


def _candidate(known: Doubts, limits: np.ndarray, pruning: float) -> Candidate:
    """Without the exits at which nobody leaves, unless later ones count what these say: their heads only cost."""
    rungs, thresholds = known.rungs(limits), known.thresholds(limits)
    if not known.looks_back:
        used = np.bincount(rungs, minlength=known.n_rungs)[:-1] > 0
        thresholds = np.where(used, thresholds, np.nan)
    return Candidate(known.score, thresholds, rungs, pruning)


def exit_sets(n_exits: int, tiers: Sequence[int] = ()) -> tuple[tuple[int, ...], ...]:
    """Which exits are asked, of one model or of a cascade whose tiers have so many rungs.

    Of a model all, all but the first ones, and every second: a head that few leave at does not pay. Of a tier before
    the last all, its end alone, or none, for then the tier is left out; of the last also none.
    """
    chosen: list[tuple[int, ...]] = [()]
    first = 0
    for size in tiers[:-1]:
        rungs = tuple(range(first, min(first + size, n_exits)))
        chosen = [(*before, *some) for before in chosen for some in dict.fromkeys((rungs, rungs[-1:], ()))]
        first += size
    last = range(first, n_exits)
    sets = [tuple(last[start:]) for start in range(len(last))] + [tuple(last[start::2]) for start in (0, 1)]
    sets = [(*before, *some) for before in chosen for some in [*sets, *([()] if tiers else [])]]
    return tuple(dict.fromkeys(some for some in sets if some))


def _shared(known: Doubts) -> Iterator[np.ndarray]:
    """One limit for all exits, between quantiles of the doubts that occur."""
    if exit_score(known.score).first_count is not None:
        steps = np.unique(known.values)  # of a count, negated: the largest count first
    else:
        values = known.values[np.isfinite(known.values)]
        if not len(values):  # nobody can leave: the one exit has nothing to compare with
            return
        quantiles = np.unique(np.quantile(values, np.linspace(0, 1, THRESHOLDS)))
        # Between, and not on them: a score that equals its threshold leaves or stays by the rounding of its batch.
        steps = np.append((quantiles[1:] + quantiles[:-1]) / 2, quantiles[-1] + _HAIR)
    yield from (np.full(len(known.exits), step) for step in steps)


def _staked(known: Doubts, losses: np.ndarray, saved: np.ndarray) -> Iterator[np.ndarray]:
    """A limit for each exit, at the same stake."""
    if len(known.exits) < 2 or exit_score(known.score).first_count is not None:
        return
    fits = [_expected_loss(known.values[:, place], losses[:, rung]) for place, rung in enumerate(known.exits)]
    for stake in _STAKES:
        yield np.array([_largest(*fit, stake * saved[rung]) for fit, rung in zip(fits, known.exits, strict=True)])


def _expected_loss(values: np.ndarray, losses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Doubts in rising order (n), and the loss that rows with such a doubt have on average (n), never falling."""
    from scipy.optimize import isotonic_regression

    order = np.argsort(values, kind="stable")
    return values[order], isotonic_regression(losses[order]).x


def _largest(values: np.ndarray, expected: np.ndarray, allowed: float) -> float:
    """The limit that lets go of every doubt whose expected loss is at most `allowed`."""
    if not np.isfinite(values[0]):
        return 0.0
    within = int(np.searchsorted(expected, allowed, side="right"))
    if within == 0:
        return float(values[0] - _HAIR)
    if within == len(values):
        return float(values[-1] + _HAIR)
    return float((values[within - 1] + values[within]) / 2)
