"""What the analyses compare: a model in full, and with each way to save that it has."""

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
FULL_DEPTH, EXITS, PRUNING, BOTH = "full depth", "exits", "pruning", "exits and pruning"


@dataclass(frozen=True)
class Exits:
    """Which exits an analysis is of: the model's operating point, or one threshold for all models."""

    operating_point: str = "balanced"
    threshold: float | None = None
    score: str | None = None  # None = the default of what a model answers

    @property
    def name(self) -> str:
        """What notes and titles call them."""
        if self.threshold is None:
            return f"at {self.operating_point}"
        return f"{self.score or 'threshold'} {self.threshold:g}"

    def refuse_without(self, model: str) -> None:
        """UserError for a model that does not have the operating point: before another one is measured."""
        if self.threshold is None and self.operating_point != FULL and not self.operating_point.endswith(".json"):
            read_manifest(local_folder(model)).operating_point(self.operating_point)


class Passes(Generic[T]):
    """What `run` makes of the rows under a pruning rule (None = none), once for each strength of one model's own."""

    def __init__(self, run: Callable[[TokenRule | None], T]) -> None:
        self._run = run
        self._made: dict[bytes, T] = {}

    def __call__(self, tokens: TokenRule | None) -> T:
        """The pass under this rule."""
        key = b"" if tokens is None else tokens.values.tobytes()
        if key not in self._made:
            self._made[key] = self._run(tokens)
        return self._made[key]


def settings_of(model: OpenedModel, exits: Exits) -> Mapping[str, ExitRule]:
    """The model in full, and with each of the two ways to save that it has: alone, and together.

    Alone pruning is as strong as the model was trained for; together, as the operating point has it, if that prunes.
    """
    never, tokens = ExitRule.full_depth(len(model.rungs)), model.backend.token_rule
    rule = exit_rule(model, exits.operating_point, exits.threshold, exits.score)
    found = {FULL_DEPTH: never, EXITS: replace(rule, tokens=None)}
    if tokens is not None:
        found |= {PRUNING: replace(never, tokens=tokens), BOTH: replace(rule, tokens=rule.tokens or tokens)}
    return found


def strength_note(name: str, model: OpenedModel, exits: Exits) -> list[str]:
    """What has to be said where the operating point does not prune as the model was trained to."""
    own = model.backend.token_rule
    rule = exit_rule(model, exits.operating_point, exits.threshold, exits.score)
    if own is None or (rule.tokens is not None and np.array_equal(rule.tokens.values, own.values, equal_nan=True)):
        return []
    if rule.tokens is None:
        return [f"{name}: {exits.operating_point} prunes nothing, so that {EXITS!r} is that point."]
    return [f"{name}: {exits.operating_point} prunes with other thresholds than {PRUNING!r} alone."]
