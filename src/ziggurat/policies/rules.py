"""When an input leaves: the only place where a score meets a threshold."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from ziggurat.errors import UserError
from ziggurat.policies.exits import LEARNED, N_FEATURES, exit_score, learned
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
    first: int = 0  # rung of the ladder at which the tier begins that runs it: backends count from their own first rung

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

    @cached_property
    def looks_back(self) -> bool:
        """Whether its score reads asked rungs before the one that is asked."""
        # The learned score of a number, whose readings are one wide, reads how far it has moved.
        moved = self.score == LEARNED and self.deferral is not None and self.deferral.shape[1] == N_FEATURES + 1
        return exit_score(self.score).looks_back or moved

    @cached_property
    def batch_key(self) -> Hashable:
        """Rules with equal keys can run in one batch: they differ in their thresholds alone (`joined_rules`)."""
        temperatures = None if self.temperatures is None else self.temperatures.tobytes()
        tokens = None if self.tokens is None else self.tokens.key
        return self.score, self.asked, temperatures, tokens, None if self.deferral is None else self.deferral.tobytes()

    def in_tier(self, first: int, tokens: TokenRule | None) -> Self:
        """The same rule as a tier runs it whose rungs begin with `first` of the ladder, and which prunes so."""
        if first == self.first and tokens is self.tokens:
            return self
        rule = copy(self)  # not `replace`, which would check it again
        object.__setattr__(rule, "first", first)
        object.__setattr__(rule, "tokens", tokens)
        return rule

    def leaves(self, rung: int, history: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Which inputs have their answer at rung `rung` of the ladder.

        History (n, rungs seen, width), the readings of the asked rungs up to this one; rows (n) of thresholds that
        differ from input to input → (n) bool.
        """
        if rung == self.thresholds.shape[-1]:
            return np.ones(len(rows), dtype=bool)
        threshold = self.thresholds[rung] if self.thresholds.ndim == 1 else self.thresholds[rows, rung]
        values = self.values(rung, history)
        decided: np.ndarray = values >= threshold if exit_score(self.score).larger_is_surer else values <= threshold
        return decided

    def values(self, rung: int, history: np.ndarray) -> np.ndarray:
        """The score that `leaves` compares: history (n, rungs seen, width) → (n) float64."""
        if self.temperatures is not None:
            # The history skips rungs that are not asked; of a later tier's, only what the score needs is there.
            seen = np.flatnonzero(self.asked[: rung + 1])[-history.shape[1] :]
            history = history / self.temperatures[seen, None]
        if self.score == LEARNED and self.deferral is not None:
            return learned(history, self.deferral[rung])
        return exit_score(self.score).of(history)

    def asked_in(self, layers: Sequence[int]) -> dict[int, int]:
        """The asked rungs of the tier that runs it, by the layers after which its rungs stand: layer → rung from 0."""
        return {layer: rung for rung, layer in enumerate(layers) if self.asked[self.first + rung]}

    def of_rungs(self, first: int, n_rungs: int) -> ExitRule:
        """The rule for `n_rungs` rungs of the ladder from `first` on; the last of these that is asked answers all.

        For scores that read one rung alone: whether that last answer counts, the whole rule says. At least one of the
        rungs must be asked.
        """
        last = int(np.flatnonzero(self.asked[first : first + n_rungs])[-1])
        thresholds = self.thresholds[..., first : first + n_rungs - 1].copy()
        if last < n_rungs - 1:
            thresholds[..., last] = exit_score(self.score).always
        temperatures = None if self.temperatures is None else self.temperatures[first : first + n_rungs]
        deferral = None if self.deferral is None else self.deferral[first : first + n_rungs - 1]
        return ExitRule(self.score, thresholds, temperatures, self.tokens, deferral)

    def check_reachable(self) -> None:
        """UserError for a count that no input can reach before the last rung, so that asking would only cost.

        An infinite threshold says so on purpose, and passes.
        """
        n_asked = sum(self.asked)
        most = exit_score(self.score).largest_count(n_asked)
        finite = self.thresholds[np.isfinite(self.thresholds)]
        if most is not None and (finite > most).any():
            raise UserError(
                f"exit rule: {self.score} never reaches {finite.max():g}: with {n_asked} asked rungs the largest count "
                f"possible before the last is {most}; lower the threshold"
            )

    @classmethod
    def full_depth(cls, n_rungs: int, score: str = "entropy") -> Self:
        """No early exit: the full model. The score decides nothing."""
        return cls(score, np.full(n_rungs - 1, np.nan))

    @classmethod
    def uniform(
        cls,
        score: str,
        threshold: float | Sequence[float] | np.ndarray,
        n_rungs: int,
        temperatures: np.ndarray | None = None,
    ) -> Self:
        """The same threshold at every rung: one number for all inputs, or (n_inputs) numbers, one for each."""
        values = np.asarray(threshold, dtype=np.float64)
        if values.ndim > 1 or np.isnan(values).any():
            raise UserError("threshold: give one number, or one number per input")
        return cls(score, np.broadcast_to(values[..., None], (*values.shape, n_rungs - 1)), temperatures)

    @classmethod
    def fixed_depth(cls, rung: int, n_rungs: int, score: str = "entropy") -> Self:
        """Every input exits at rung `rung`, and no other is asked, where the model can have this score."""
        thresholds = np.full(n_rungs - 1, np.nan)
        thresholds[rung : rung + 1] = exit_score(score).everybody  # an empty slice for the last rung, which needs none
        return cls(score, thresholds)

    @classmethod
    def forced(cls, rungs: np.ndarray, n_rungs: int) -> Self:
        """Input i exits at rung `rungs[i]` whatever it reads: (n_inputs) ints. For controls: random exit, oracle."""
        chosen = np.arange(n_rungs - 1) >= rungs[:, None]
        return cls("entropy", np.where(chosen, np.inf, -np.inf))

    @classmethod
    def from_point(cls, point: OperatingPoint) -> Self:
        """The rule of an operating point."""
        thresholds = np.array([np.nan if t is None else t for t in point.thresholds], dtype=np.float64)
        temperatures = None if point.temperatures is None else np.array(point.temperatures, dtype=np.float64)
        return cls(point.score, thresholds, temperatures)


def joined_rules(parts: Sequence[tuple[ExitRule, np.ndarray]]) -> ExitRule:
    """One rule for inputs of several, whose `batch_key`s are equal: each with the (m) rows of its own inputs."""
    first = parts[0][0]
    if first.thresholds.ndim == 1 and all(
        rule is first or np.array_equal(rule.thresholds, first.thresholds, equal_nan=True) for rule, _ in parts
    ):
        return first
    limits = [
        rule.thresholds[rows] if rule.thresholds.ndim == 2 else np.tile(rule.thresholds, (len(rows), 1))
        for rule, rows in parts
    ]
    return replace(first, thresholds=np.concatenate(limits))
