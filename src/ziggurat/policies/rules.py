"""When an input exits: the only place that compares a score with a threshold."""

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
    """A threshold for each rung but the last, shared by all inputs or one for each; NaN = the rung is inactive.

    An input exits at the first active rung where its confidence reaches the threshold: entropy <= τ, other scores >= τ.
    The last rung answers all remaining inputs. Temperatures sharpen or soften the logits for the score; they do not
    change answers.
    """

    score: str
    thresholds: np.ndarray  # (n_rungs - 1) or (n_inputs, n_rungs - 1) float64, in the score's unit
    temperatures: np.ndarray | None = None  # (n_rungs) float64: divisors of the logits for the score; None = 1
    tokens: TokenRule | None = None  # which tokens are pruned; None = none
    deferral: np.ndarray | None = None  # (n_rungs - 1, 4 + n_classes) float64: weights of the learned score
    first: int = 0  # first rung, in the ladder, of the tier that runs the rule: backends count from their first rung

    def __post_init__(self) -> None:
        exit_score(self.score)
        self._check_temperatures()
        nan = np.isnan(self.thresholds)
        # Otherwise a rung that is active for a neighbour only would enter this input's history: answers would depend
        # on the batch.
        if self.thresholds.ndim == 2 and (nan.any(axis=0) & ~nan.all(axis=0)).any():
            raise UserError("per-input thresholds: a rung is active for all inputs (no NaN in its column) or for none")

    def _check_temperatures(self) -> None:
        if self.temperatures is None:
            return
        n_rungs = self.thresholds.shape[-1] + 1
        if self.temperatures.shape != (n_rungs,):
            raise UserError(f"exit rule: {self.temperatures.size} temperatures for {n_rungs} rungs; give one for each")
        if not (np.isfinite(self.temperatures) & (self.temperatures > 0)).all():
            raise UserError("exit rule: a temperature must be a finite number above 0; fit them again")

    @cached_property
    def active(self) -> tuple[bool, ...]:
        """Which rungs compute their heads and may answer, (n_rungs) flags; the last always does."""
        return (*(~np.isnan(np.atleast_2d(self.thresholds)).all(axis=0)).tolist(), True)

    @cached_property
    def looks_back(self) -> bool:
        """Whether its score reads earlier active rungs, too."""
        # The learned score of a regression (readings of width 1) reads the change since the rung before.
        moved = self.score == LEARNED and self.deferral is not None and self.deferral.shape[1] == N_FEATURES + 1
        return exit_score(self.score).looks_back or moved

    @cached_property
    def batch_key(self) -> Hashable:
        """Rules with equal keys can run in one batch: they differ only in their thresholds (`joined_rules`)."""
        temperatures = None if self.temperatures is None else self.temperatures.tobytes()
        tokens = None if self.tokens is None else self.tokens.key
        return self.score, self.active, temperatures, tokens, None if self.deferral is None else self.deferral.tobytes()

    def in_tier(self, first: int, tokens: TokenRule | None) -> Self:
        """The same rule for a tier whose first rung is `first` of the ladder, and whose pruning is `tokens`."""
        if first == self.first and tokens is self.tokens:
            return self
        rule = copy(self)  # `replace` would repeat the checks
        object.__setattr__(rule, "first", first)
        object.__setattr__(rule, "tokens", tokens)
        return rule

    def exits(self, rung: int, history: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Which inputs exit at rung `rung` of the ladder, (n) bool.

        `history` (n, active rungs up to this one, width) are readings; `rows` (n) index per-input thresholds.
        """
        if rung == self.thresholds.shape[-1]:
            return np.ones(len(rows), dtype=bool)
        threshold = self.thresholds[rung] if self.thresholds.ndim == 1 else self.thresholds[rows, rung]
        values = self.values(rung, history)
        decided: np.ndarray = values >= threshold if exit_score(self.score).larger_is_surer else values <= threshold
        return decided

    def values(self, rung: int, history: np.ndarray) -> np.ndarray:
        """The score that `exits` compares: history (n, active rungs, width) → (n) float64."""
        if self.temperatures is not None:
            # The history skips inactive rungs; in a later tier it may begin with that tier's first active rung.
            rungs = np.flatnonzero(self.active[: rung + 1])[-history.shape[1] :]
            history = history / self.temperatures[rungs, None]
        if self.score == LEARNED and self.deferral is not None:
            return learned(history, self.deferral[rung])
        return exit_score(self.score).of(history)

    def active_in(self, layers: Sequence[int]) -> dict[int, int]:
        """Active rungs of the tier that runs it: layer → rung, from 0. `layers` are the layers of the tier's rungs."""
        return {layer: rung for rung, layer in enumerate(layers) if self.active[self.first + rung]}

    def of_rungs(self, first: int, n_rungs: int) -> ExitRule:
        """The rule for `n_rungs` rungs of the ladder from `first` on; the last active one of them answers all inputs.

        Only for scores that read a single rung. The caller decides by the full rule which of these last answers count.
        At least one of the rungs must be active.
        """
        last = int(np.flatnonzero(self.active[first : first + n_rungs])[-1])
        thresholds = self.thresholds[..., first : first + n_rungs - 1].copy()
        if last < n_rungs - 1:
            thresholds[..., last] = exit_score(self.score).always
        temperatures = None if self.temperatures is None else self.temperatures[first : first + n_rungs]
        deferral = None if self.deferral is None else self.deferral[first : first + n_rungs - 1]
        return ExitRule(self.score, thresholds, temperatures, self.tokens, deferral)

    def check_reachable(self) -> None:
        """UserError for a count that no input can reach before the last rung: the exits would only cost time.

        An infinite threshold passes: there it is on purpose.
        """
        n_active = sum(self.active)
        most = exit_score(self.score).largest_count(n_active)
        finite = self.thresholds[np.isfinite(self.thresholds)]
        if most is not None and (finite > most).any():
            raise UserError(
                f"exit rule: {self.score} never reaches {finite.max():g}: with {n_active} active rungs the largest "
                f"count possible before the last is {most}; lower the threshold"
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
        """All inputs exit at rung `rung`; no other rung is active. The score must be one that the model can compute."""
        thresholds = np.full(n_rungs - 1, np.nan)
        thresholds[rung : rung + 1] = exit_score(score).exit_all  # an empty slice for the last rung
        return cls(score, thresholds)

    @classmethod
    def forced(cls, rungs: np.ndarray, n_rungs: int) -> Self:
        """Input i exits at rung `rungs[i]`, (n_inputs) ints, for any reading. For controls: random exit, oracle."""
        chosen = np.arange(n_rungs - 1) >= rungs[:, None]
        return cls("entropy", np.where(chosen, np.inf, -np.inf))

    @classmethod
    def from_point(cls, point: OperatingPoint) -> Self:
        """The rule of an operating point."""
        thresholds = np.array([np.nan if t is None else t for t in point.thresholds], dtype=np.float64)
        temperatures = None if point.temperatures is None else np.array(point.temperatures, dtype=np.float64)
        return cls(point.score, thresholds, temperatures)


def joined_rules(parts: Sequence[tuple[ExitRule, np.ndarray]]) -> ExitRule:
    """Rules with equal `batch_key`s as one rule for all their inputs; each comes with the rows (m) of its inputs."""
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
