"""What the analyses compare: a model in full, and with each way to save that it has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ziggurat.engine import rules
from ziggurat.engine.opened import OpenedModel
from ziggurat.engine.rules import ExitRule
from ziggurat.jobs.opening import exit_rule

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


def settings_of(model: OpenedModel, exits: Exits) -> Mapping[str, ExitRule]:
    """The model in full, and with each of the two ways to save that it has: alone, and together."""
    never, tokens = rules.never(len(model.rungs)), model.backend.token_rule
    rule = exit_rule(model, exits.operating_point, exits.threshold, exits.score)
    found = {FULL_DEPTH: never, EXITS: replace(rule, tokens=None)}
    if tokens is not None:
        found |= {PRUNING: replace(never, tokens=tokens), BOTH: replace(rule, tokens=tokens)}
    return found
