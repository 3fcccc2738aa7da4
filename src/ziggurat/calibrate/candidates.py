"""Exit settings that are worth trying on a stored run: which exits are evaluated, which score, which thresholds.

There are two families. The first has one threshold for all exits, as in the papers. The second has one threshold per
exit, such that all exits trade risk for time at the same rate: a row exits if its expected loss is at most λ times the
time that this saves. That is the Lagrangian of "fastest within a risk". The expected loss is an isotonic fit to the
score (Barlow et al. 1972).
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
    """Answers of all rungs for the same rows, at one strength of pruning."""

    all_readings: np.ndarray  # (n, n_rungs, width) readings
    token_counts: np.ndarray  # (n, L + 1) int64, as in `engine.backend.Outcomes`
    pruning: float = 1.0  # factor on the model's pruning thresholds; 0 = nothing is pruned
    deferral: np.ndarray | None = None  # the model's weights of the learned score, see `engine.ExitRule`
    problem: Problem = CLASSES  # which problem the readings belong to
    answers: np.ndarray | None = None  # (n, n_rungs, …) predictions; None = computed from the readings

    @property
    def n_rungs(self) -> int:
        """Number of rungs; the last is full depth."""
        return self.all_readings.shape[1]

    def take(self, rows: np.ndarray) -> StoredRun:
        """Only these rows, (m) indices."""
        answers = None if self.answers is None else self.answers[rows]
        return replace(
            self, all_readings=self.all_readings[rows], token_counts=self.token_counts[rows], answers=answers
        )

    def cut(self, rungs: int) -> StoredRun:
        """Only the first `rungs` rungs."""
        answers = None if self.answers is None else self.answers[:, :rungs]
        return replace(self, all_readings=self.all_readings[:, :rungs], answers=answers)

    def predictions(self) -> np.ndarray:
        """Predictions of all rungs, (n, n_rungs, …): class indices, or the answers of another problem."""
        return self.problem.predictions(self.all_readings) if self.answers is None else self.answers


@dataclass(frozen=True, eq=False)
class Uncertainty:
    """Uncertainty of each evaluated exit about each row, computed once for all thresholds.

    Smaller is more confident, for all scores: a score that rises with confidence is negated, and so is its threshold.
    """

    score: str
    exits: tuple[int, ...]  # evaluated rungs, without the last
    n_rungs: int
    values: np.ndarray  # (n, n_exits) float64; infinite where no row can exit
    looks_back: bool = False  # the score of an exit depends on the evaluated exits before it

    def rungs(self, limits: np.ndarray) -> np.ndarray:
        """Rung at which each row exits, (n), for `limits` (n_exits): the largest uncertainty that still exits.

        The same as `engine.replay.replay` with `thresholds(limits)`.
        """
        # All remaining rows exit at the last rung, also if no exit is evaluated.
        leaves = np.pad(self.values <= limits, ((0, 0), (0, 1)), constant_values=True)
        places = np.append(self.exits, self.n_rungs - 1).astype(np.int64)
        return places[leaves.argmax(axis=1)]

    def thresholds(self, limits: np.ndarray) -> np.ndarray:
        """`limits` (n_exits) as thresholds of an exit rule: (n_rungs - 1), in the score's unit, NaN = not evaluated."""
        written = np.full(self.n_rungs - 1, np.nan)
        written[list(self.exits)] = -limits if exit_score(self.score).larger_is_surer else limits
        return written

    def limits(self, thresholds: np.ndarray) -> np.ndarray:
        """Inverse of `thresholds`: (n_rungs - 1) → (n_exits); -inf for an exit that is not evaluated."""
        values = thresholds[list(self.exits)]
        values = -values if exit_score(self.score).larger_is_surer else values
        return np.where(np.isnan(values), -np.inf, values)


def uncertainty_of(
    run: StoredRun, score: str, exits: tuple[int, ...], temperatures: np.ndarray | None = None
) -> Uncertainty:
    """Uncertainty of a stored run's rows at `exits`; `temperatures` (n_rungs) divide the logits, None = 1."""
    kind = exit_score(score)
    readings = run.all_readings if temperatures is None else run.all_readings / temperatures[:, None]
    # For a regression, which has one output, the learned score also uses the change since the rung before.
    back = kind.looks_back or (score == LEARNED and readings.shape[2] == 1)
    values = np.empty((len(run.all_readings), len(exits)))
    for place in range(len(exits)):
        history = readings[:, list(exits[0 if back else place : place + 1])]  # only the rungs that the score reads
        if score == LEARNED and run.deferral is not None:
            found = learned(history, run.deferral[exits[place]])
        else:
            found = kind.of(history)
        values[:, place] = -found if kind.larger_is_surer else found
    return Uncertainty(score, exits, run.n_rungs, values, back)


SCORES = CLASSES.compared_scores  # for classes; with two classes all of them rank rows alike
THRESHOLDS = 64  # tried per family
_EPSILON = 1e-4  # distance beyond the smallest and the largest uncertainty
_STAKES = np.geomspace(1e-3, 3.0, 48)  # λ: expected loss per share of full depth's time that an exit saves


@dataclass(frozen=True, eq=False)
class Candidate:
    """A setting, and the rungs at which the rows of the stored run exit."""

    score: str
    thresholds: np.ndarray  # (n_rungs - 1) float64 as in an exit rule, NaN = not evaluated
    rungs: np.ndarray  # (n)
    pruning: float

    @property
    def active(self) -> tuple[bool, ...]:
        """Which rungs are evaluated; the last always is."""
        return (*(~np.isnan(self.thresholds)).tolist(), True)


def full_depth(run: StoredRun, score: str) -> Candidate:
    """No row exits early. The score matters only if the ladder is `extended`; the model must support it."""
    last = run.n_rungs - 1
    return Candidate(score, np.full(last, np.nan), np.full(len(run.all_readings), last), run.pruning)


def extended(candidate: Candidate, n_rungs: int) -> Candidate:
    """A candidate of a shortened ladder, for the full ladder of n_rungs: all rows exit where the ladder was cut."""
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
    """Settings to try on a stored run. Each family is ordered from conservative to aggressive; the first only prunes.

    `losses` (n, n_rungs): loss of an exit there; `saved` (n_rungs): share of full depth's time that an exit there
    saves. `tiers`: number of rungs of each tier of a cascade; () = one model.
    """
    all_scores = [
        *run.problem.distinct(scores, run.all_readings.shape[2]),
        *([] if run.deferral is None else [LEARNED]),
    ]
    yield (full_depth(run, all_scores[0]),)
    for score in dict.fromkeys(all_scores):
        for exits in exit_sets(run.n_rungs - 1, tiers):
            uncertainty = uncertainty_of(run, score, exits, temperatures)
            for limits in (_shared(uncertainty), _staked(uncertainty, losses, saved)):
                yield tuple(_candidate(uncertainty, limit, run.pruning) for limit in limits)


def _candidate(uncertainty: Uncertainty, limits: np.ndarray, pruning: float) -> Candidate:
    """Drops exits where no row exits: their heads only cost time. They stay if the scores of later exits use them."""
    rungs, thresholds = uncertainty.rungs(limits), uncertainty.thresholds(limits)
    if not uncertainty.looks_back:
        used = np.bincount(rungs, minlength=uncertainty.n_rungs)[:-1] > 0
        thresholds = np.where(used, thresholds, np.nan)
    return Candidate(uncertainty.score, thresholds, rungs, pruning)


def exit_sets(n_exits: int, tiers: Sequence[int] = ()) -> tuple[tuple[int, ...], ...]:
    """Sets of exits to evaluate, of one model or of a cascade; `tiers` are the numbers of rungs of its tiers.

    For a model: all exits, all but the first ones, and every second, since a head with few exits does not pay. For a
    tier before the last: all, its end alone, or none, which skips the tier. For the last tier of a cascade also none.
    """
    chosen: list[tuple[int, ...]] = [()]
    first = 0
    for size in tiers[:-1]:
        rungs = tuple(range(first, min(first + size, n_exits)))
        chosen = [(*before, *exits) for before in chosen for exits in dict.fromkeys((rungs, rungs[-1:], ()))]
        first += size
    last = range(first, n_exits)
    sets = [tuple(last[start:]) for start in range(len(last))] + [tuple(last[start::2]) for start in (0, 1)]
    sets = [(*before, *exits) for before in chosen for exits in [*sets, *([()] if tiers else [])]]
    return tuple(dict.fromkeys(exits for exits in sets if exits))


def _shared(uncertainty: Uncertainty) -> Iterator[np.ndarray]:
    """One limit for all exits, between quantiles of the uncertainties that occur."""
    if exit_score(uncertainty.score).first_count is not None:
        steps = np.unique(uncertainty.values)  # a count is negated, so the largest count comes first
    else:
        values = uncertainty.values[np.isfinite(uncertainty.values)]
        if not len(values):  # no row can exit: a single exit has no earlier one to compare with
            return
        quantiles = np.unique(np.quantile(values, np.linspace(0, 1, THRESHOLDS)))
        # Midpoints, because with a score equal to the threshold the rounding of the batch would decide the exit.
        steps = np.append((quantiles[1:] + quantiles[:-1]) / 2, quantiles[-1] + _EPSILON)
    yield from (np.full(len(uncertainty.exits), step) for step in steps)


def _staked(uncertainty: Uncertainty, losses: np.ndarray, saved: np.ndarray) -> Iterator[np.ndarray]:
    """A limit for each exit, all at the same λ."""
    if len(uncertainty.exits) < 2 or exit_score(uncertainty.score).first_count is not None:
        return
    fits = [
        _expected_loss(uncertainty.values[:, place], losses[:, rung]) for place, rung in enumerate(uncertainty.exits)
    ]
    for stake in _STAKES:
        yield np.array([_largest(*fit, stake * saved[rung]) for fit, rung in zip(fits, uncertainty.exits, strict=True)])


def _expected_loss(values: np.ndarray, losses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Uncertainties in rising order (n), and the expected loss at each (n), which never falls."""
    from scipy.optimize import isotonic_regression

    order = np.argsort(values, kind="stable")
    return values[order], isotonic_regression(losses[order]).x


def _largest(values: np.ndarray, expected: np.ndarray, allowed: float) -> float:
    """The largest limit at which the expected loss is at most `allowed`."""
    if not np.isfinite(values[0]):
        return 0.0
    within = int(np.searchsorted(expected, allowed, side="right"))
    if within == 0:
        return float(values[0] - _EPSILON)
    if within == len(values):
        return float(values[-1] + _EPSILON)
    return float((values[within - 1] + values[within]) / 2)
