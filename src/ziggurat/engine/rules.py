"""When an input leaves: the only place where a score meets a threshold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ziggurat.errors import UserError
from ziggurat.policies.exits import SCORES
from ziggurat.policies.prune import TokenRule
from ziggurat.types import OperatingPoint


@dataclass(frozen=True)
class ExitRule:
    """One threshold per rung but the last, for all inputs alike or for each; NaN = that rung is not asked.

    An input leaves at the first asked rung where it is at least as sure as the threshold: entropy <= τ, the other
    scores >= τ. The last rung answers all that is left.
    """

    score: str
    thresholds: np.ndarray  # (n_rungs - 1) or (n_inputs, n_rungs - 1) float64, in the score's unit
    tokens: TokenRule | None = None  # which tokens leave on the way; None = nothing is pruned

    def __post_init__(self) -> None:
        if self.score not in SCORES:
            raise UserError(f"exit score {self.score!r} is not known; known: {', '.join(SCORES)}")
        nan = np.isnan(self.thresholds)
        # Otherwise a neighbour's head would enter this input's history, and its answer depend on its batch mates.
        if self.thresholds.ndim == 2 and (nan.any(axis=0) & ~nan.all(axis=0)).any():
            raise UserError("per-input thresholds: a rung is asked for all inputs (no NaN in its column) or for none")

    @property
    def asked(self) -> tuple[bool, ...]:
        """Which rungs are asked; the last always is."""
        return (*(~np.isnan(np.atleast_2d(self.thresholds)).all(axis=0)).tolist(), True)

    def leaves(self, rung: int, history: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Which sequences have their answer: history (n_seqs, rungs seen, n_classes), rows (n_seqs) → (n_seqs) bool."""
        if rung == self.thresholds.shape[-1]:
            return np.ones(len(rows), dtype=bool)
        score = SCORES[self.score]
        threshold = self.thresholds[rung] if self.thresholds.ndim == 1 else self.thresholds[rows, rung]
        values = score.of(history)
        decided: np.ndarray = values >= threshold if score.larger_is_surer else values <= threshold
        return decided


def never(n_rungs: int) -> ExitRule:
    """Nobody leaves early: the full model."""
    return ExitRule("entropy", np.full(n_rungs - 1, np.nan))


def shared(score: str, threshold: float | Sequence[float] | np.ndarray, n_rungs: int) -> ExitRule:
    """The same threshold at every rung: one number for all inputs, or (n_inputs) numbers, one for each."""
    values = np.asarray(threshold, dtype=np.float64)
    if values.ndim > 1 or np.isnan(values).any():
        raise UserError("threshold: give one number, or one number per input")
    return ExitRule(score, np.broadcast_to(values[..., None], (*values.shape, n_rungs - 1)))


def fixed_depth(rung: int, n_rungs: int) -> ExitRule:
    """Everybody leaves at rung `rung`, and no other is asked."""
    thresholds = np.full(n_rungs - 1, np.nan)
    thresholds[rung : rung + 1] = np.inf  # an empty slice for the last rung, which needs no threshold
    return ExitRule("entropy", thresholds)


def forced(rungs: np.ndarray, n_rungs: int) -> ExitRule:
    """Input i leaves at rung `rungs[i]` whatever it says: (n_inputs) ints. For controls: random exit, oracle."""
    chosen = np.arange(n_rungs - 1) >= rungs[:, None]
    return ExitRule("entropy", np.where(chosen, np.inf, -np.inf))


def of_point(point: OperatingPoint) -> ExitRule:
    """The rule of an operating point."""
    return ExitRule(point.score, np.array([np.nan if t is None else t for t in point.thresholds], dtype=np.float64))
