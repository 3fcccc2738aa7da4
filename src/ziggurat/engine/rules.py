"""When an input leaves: the only place where a score meets a threshold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ziggurat.errors import UserError
from ziggurat.policies.exits import LEARNED, exit_score, learned
from ziggurat.policies.prune import TokenRule
from ziggurat.system import cached_property
from ziggurat.types import OperatingPoint


@dataclass(frozen=True)
class ExitRule:
    """One threshold per rung but the last, for all inputs alike or for each; NaN = that rung is not asked.

    An input leaves at the first asked rung where it is at least as sure as the threshold: entropy <= τ, the other
    scores >= τ. The last rung answers all that is left. Temperatures sharpen or soften what the score sees of a rung;
    answers stay as they are.
    """

    score: str
    thresholds: np.ndarray  # (n_rungs - 1) or (n_inputs, n_rungs - 1) float64, in the score's unit
    temperatures: np.ndarray | None = None  # (n_rungs) float64, by which logits are divided for the score; None = 1
    tokens: TokenRule | None = None  # which tokens leave on the way; None = nothing is pruned
    deferral: np.ndarray | None = None  # (n_rungs - 1, 4 + n_classes) float64: weights of the learned score

    def __post_init__(self) -> None:
        exit_score(self.score)
        self._check_temperatures()
        nan = np.isnan(self.thresholds)
        # Otherwise a neighbour's head would enter this input's history, and its answer depend on its batch mates.
        if self.thresholds.ndim == 2 and (nan.any(axis=0) & ~nan.all(axis=0)).any():
            raise UserError("per-input thresholds: a rung is asked for all inputs (no NaN in its column) or for none")

    def _check_temperatures(self) -> None:
        if self.temperatures is None:
            return
        n_rungs = self.thresholds.shape[-1] + 1
        if self.temperatures.shape != (n_rungs,):
            raise UserError(f"exit rule: {self.temperatures.size} temperatures for {n_rungs} rungs; give one for each")
        if not (np.isfinite(self.temperatures) & (self.temperatures > 0)).all():
            raise UserError("exit rule: a temperature must be a finite number above 0; fit them again")

    @cached_property
    def asked(self) -> tuple[bool, ...]:
        """Which rungs are asked; the last always is."""
        return (*(~np.isnan(np.atleast_2d(self.thresholds)).all(axis=0)).tolist(), True)

    def leaves(self, rung: int, history: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Which sequences have their answer: history (n_seqs, rungs seen, n_classes), rows (n_seqs) → (n_seqs) bool."""
        if rung == self.thresholds.shape[-1]:
            return np.ones(len(rows), dtype=bool)
        threshold = self.thresholds[rung] if self.thresholds.ndim == 1 else self.thresholds[rows, rung]
        values = self.values(rung, history)
        decided: np.ndarray = values >= threshold if exit_score(self.score).larger_is_surer else values <= threshold
        return decided

    def values(self, rung: int, history: np.ndarray) -> np.ndarray:
        """The score that `leaves` compares: history (n_seqs, rungs seen, n_classes) → (n_seqs) float64."""
        if self.temperatures is not None:
            # The history skips rungs that are not asked; of a later tier's, only what the score needs is there.
            heard = np.flatnonzero(self.asked[: rung + 1])[-history.shape[1] :]
            history = history / self.temperatures[heard, None]
        if self.score == LEARNED and self.deferral is not None:
            return learned(history, self.deferral[rung])
        return exit_score(self.score).of(history)


def of_tier(rule: ExitRule, first: int, n_rungs: int) -> tuple[ExitRule, int]:
    """What a ladder's rule says to one tier, whose rungs begin with `first`; and which of them is asked last, from 0.

    There everybody leaves the tier, who may stay in it no longer: whether with an answer is the ladder's to decide.
    Only for scores that look at one rung alone. At least one of the tier's rungs must be asked.
    """
    last = int(np.flatnonzero(rule.asked[first : first + n_rungs])[-1])
    thresholds = rule.thresholds[..., first : first + n_rungs - 1].copy()
    if last < n_rungs - 1:
        thresholds[..., last] = exit_score(rule.score).always
    temperatures = None if rule.temperatures is None else rule.temperatures[first : first + n_rungs]
    deferral = None if rule.deferral is None else rule.deferral[first : first + n_rungs - 1]
    return ExitRule(rule.score, thresholds, temperatures, rule.tokens, deferral), last


def never(n_rungs: int, score: str = "entropy") -> ExitRule:
    """Nobody leaves early: the full model. The score decides nothing."""
    return ExitRule(score, np.full(n_rungs - 1, np.nan))


def refuse_unreachable(rule: ExitRule) -> None:
    """UserError for a count that no input can reach before the last rung, so that asking would only cost.

    An infinite threshold says so on purpose, and passes.
    """
    n_asked = sum(rule.asked)
    most = exit_score(rule.score).largest_count(n_asked)
    finite = rule.thresholds[np.isfinite(rule.thresholds)]
    if most is not None and (finite > most).any():
        raise UserError(
            f"exit rule: {rule.score} never reaches {finite.max():g}: with {n_asked} asked rungs the largest count "
            f"possible before the last is {most}; lower the threshold"
        )


def shared(
    score: str,
    threshold: float | Sequence[float] | np.ndarray,
    n_rungs: int,
    temperatures: np.ndarray | None = None,
) -> ExitRule:
    """The same threshold at every rung: one number for all inputs, or (n_inputs) numbers, one for each."""
    values = np.asarray(threshold, dtype=np.float64)
    if values.ndim > 1 or np.isnan(values).any():
        raise UserError("threshold: give one number, or one number per input")
    return ExitRule(score, np.broadcast_to(values[..., None], (*values.shape, n_rungs - 1)), temperatures)


def fixed_depth(rung: int, n_rungs: int, score: str = "entropy") -> ExitRule:
    """Everybody leaves at rung `rung`, and no other is asked, where the model can have this score."""
    thresholds = np.full(n_rungs - 1, np.nan)
    thresholds[rung : rung + 1] = exit_score(score).everybody  # an empty slice for the last rung, which needs none
    return ExitRule(score, thresholds)


def forced(rungs: np.ndarray, n_rungs: int) -> ExitRule:
    """Input i leaves at rung `rungs[i]` whatever it says: (n_inputs) ints. For controls: random exit, oracle."""
    chosen = np.arange(n_rungs - 1) >= rungs[:, None]
    return ExitRule("entropy", np.where(chosen, np.inf, -np.inf))


def of_point(point: OperatingPoint) -> ExitRule:
    """The rule of an operating point."""
    thresholds = np.array([np.nan if t is None else t for t in point.thresholds], dtype=np.float64)
    temperatures = None if point.temperatures is None else np.array(point.temperatures, dtype=np.float64)
    return ExitRule(point.score, thresholds, temperatures)
