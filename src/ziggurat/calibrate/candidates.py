"""Exit settings that are worth trying on a stored run: which exits are asked, by which score, with which thresholds.

Two families. One threshold for all exits, as in the papers; and one for each exit, chosen so that all of them stake the
same risk for the same saving: an exit lets go of a row if its expected loss is at most λ times the time that it saves
(the Lagrangian of "fastest within a risk"), the expected loss being an isotonic fit to the score (Barlow et al. 1972).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ziggurat.policies.exits import LEARNED, exit_score, learned
from ziggurat.problems.classes import CLASSES
from ziggurat.problems.problem import Problem


@dataclass(frozen=True, eq=False)
class StoredRun:
    """All rungs' answers to some rows at one strength of pruning."""

    every: np.ndarray  # (n, n_rungs, width) readings
    kept: np.ndarray  # (n, L + 1) int64, as in `engine.backend.Outcomes`
    pruning: float = 1.0  # factor on the model's pruning thresholds; 0 = nothing is pruned
    deferral: np.ndarray | None = None  # the model's weights of the learned score, see `engine.ExitRule`
    problem: Problem = CLASSES  # what the logits stand for
    answers: np.ndarray | None = None  # (n, n_rungs, …) predictions; None = as the problem has the readings alone

    @property
    def n_rungs(self) -> int:
        """Places where an answer can be given; the last is full depth."""
        return self.every.shape[1]

    def take(self, rows: np.ndarray) -> StoredRun:
        """Only these rows, (m) indices."""
        answers = None if self.answers is None else self.answers[rows]
        return replace(self, every=self.every[rows], kept=self.kept[rows], answers=answers)

    def cut(self, rungs: int) -> StoredRun:
        """Only the first `rungs` rungs."""
        answers = None if self.answers is None else self.answers[:, :rungs]
        return replace(self, every=self.every[:, :rungs], answers=answers)

    def predictions(self) -> np.ndarray:
        """Of every rung, (n, n_rungs, …): class indices, or whatever the problem's answers are."""
        return self.problem.predictions(self.every) if self.answers is None else self.answers


@dataclass(frozen=True, eq=False)
class Doubts:
    """How unsure each asked exit is of each row, computed once for all thresholds that are tried.

    Smaller is surer whatever the score: those that point the other way are negated, and so are their thresholds.
    """

    score: str
    exits: tuple[int, ...]  # rungs that are asked, without the last
    n_rungs: int
    values: np.ndarray  # (n, n_exits) float64; infinite where nobody can be let go
    looks_back: bool = False  # what an exit says depends on the asked exits before it

    def rungs(self, limits: np.ndarray) -> np.ndarray:
        """Where each row leaves under `limits` (n_exits), the largest doubts with which it may: (n) rung indices.

        The same as `engine.replay.replay` with `thresholds(limits)`.
        """
        # Behind the last exit everybody leaves, also where none is asked.
        leaves = np.pad(self.values <= limits, ((0, 0), (0, 1)), constant_values=True)
        places = np.append(self.exits, self.n_rungs - 1).astype(np.int64)
        return places[leaves.argmax(axis=1)]

    def thresholds(self, limits: np.ndarray) -> np.ndarray:
        """`limits` (n_exits) as an exit rule writes them: (n_rungs - 1), in the score's unit, NaN = not asked."""
        written = np.full(self.n_rungs - 1, np.nan)
        written[list(self.exits)] = -limits if exit_score(self.score).larger_is_surer else limits
        return written

    def limits(self, thresholds: np.ndarray) -> np.ndarray:
        """What `thresholds` wrote (n_rungs - 1), back as limits (n_exits); an exit that is not asked lets nobody go."""
        asked = thresholds[list(self.exits)]
        values = -asked if exit_score(self.score).larger_is_surer else asked
        return np.where(np.isnan(values), -np.inf, values)


def doubts(run: StoredRun, score: str, exits: tuple[int, ...], temperatures: np.ndarray | None = None) -> Doubts:
    """The doubts of a stored run's rows at `exits`; `temperatures` (n_rungs) divide the logits, None = 1."""
    asked = exit_score(score)
    seen = run.every if temperatures is None else run.every / temperatures[:, None]
    # Of a regression, one output, the learned score too looks at the change since the rung before.
    back = asked.looks_back or (score == LEARNED and seen.shape[2] == 1)
    values = np.empty((len(run.every), len(exits)))
    for place in range(len(exits)):
        heard = seen[:, list(exits[0 if back else place : place + 1])]  # without rungs that are not asked, or not read
        if score == LEARNED and run.deferral is not None:
            found = learned(heard, run.deferral[exits[place]])
        else:
            found = asked.of(heard)
        values[:, place] = -found if asked.larger_is_surer else found
    return Doubts(score, exits, run.n_rungs, values, back)


SCORES = CLASSES.compared_scores  # of classes; with two of them they order rows alike
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
    tried = [*run.problem.distinct(scores, run.every.shape[2]), *([] if run.deferral is None else [LEARNED])]
    yield (full_depth(run, tried[0]),)
    for score in dict.fromkeys(tried):
        for exits in exit_sets(run.n_rungs - 1, tiers):
            known = doubts(run, score, exits, temperatures)
            for limits in (_shared(known), _staked(known, losses, saved)):
                yield tuple(_candidate(known, one, run.pruning) for one in limits)


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
