"""Settings that the analyses compare: full depth, exits, pruning, both."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import numpy as np

from ziggurat.encoder.folder import read_manifest
from ziggurat.encoder.hub import local_folder
from ziggurat.engine.opened import OpenedModel
from ziggurat.measure.subject import exit_rule
from ziggurat.policies.prune import TokenRule
from ziggurat.policies.rules import ExitRule
from ziggurat.types import FULL

T = TypeVar("T")
FULL_DEPTH, EXITS, PRUNING, EXITS_AND_PRUNING = "full depth", "exits", "pruning", "exits and pruning"


@dataclass(frozen=True)
class Exits:
    """The exits of an analysis: the models' operating point, or one threshold for all models."""

    operating_point: str = "balanced"
    threshold: float | None = None
    score: str | None = None  # None = default of the model's problem

    @property
    def name(self) -> str:
        """Name in notes and titles."""
        if self.threshold is None:
            return f"at {self.operating_point}"
        return f"{self.score or 'threshold'} {self.threshold:g}"

    def check_has_point(self, model: str) -> None:
        """UserError for a model without the operating point, before any model is measured."""
        if self.threshold is None and self.operating_point != FULL and not self.operating_point.endswith(".json"):
            read_manifest(local_folder(model)).operating_point(self.operating_point)


class Passes(Generic[T]):
    """Caches results of `run(rule)` by the strength of the model's pruning; None = without pruning."""

    def __init__(self, run: Callable[[TokenRule | None], T]) -> None:
        self._run = run
        self._made: dict[bytes, T] = {}

    def __call__(self, tokens: TokenRule | None) -> T:
        """The result for this rule."""
        key = b"" if tokens is None else tokens.values.tobytes()
        if key not in self._made:
            self._made[key] = self._run(tokens)
        return self._made[key]


def settings_of(model: OpenedModel, exits: Exits) -> Mapping[str, ExitRule]:
    """Full depth, exits only, and for pruning models pruning only and both, by name.

    Pruning only has the strength of the training; both has that of the operating point, if it prunes.
    """
    never, tokens = ExitRule.full_depth(len(model.rungs)), model.backend.token_rule
    rule = exit_rule(model, exits.operating_point, exits.threshold, exits.score)
    found = {FULL_DEPTH: never, EXITS: replace(rule, tokens=None)}
    if tokens is not None:
        found |= {
            PRUNING: replace(never, tokens=tokens),
            EXITS_AND_PRUNING: replace(rule, tokens=rule.tokens or tokens),
        }
    return found


def strength_note(name: str, model: OpenedModel, exits: Exits) -> list[str]:
    """A note if the operating point's pruning differs from the model's."""
    trained = model.backend.token_rule
    rule = exit_rule(model, exits.operating_point, exits.threshold, exits.score)
    if trained is None:
        return []
    if rule.tokens is not None and np.array_equal(rule.tokens.values, trained.values, equal_nan=True):
        return []
    if rule.tokens is None:
        return [f"{name}: {exits.operating_point} prunes nothing, so that {EXITS!r} is that point."]
    return [f"{name}: {exits.operating_point} prunes with other thresholds than {PRUNING!r} alone."]
