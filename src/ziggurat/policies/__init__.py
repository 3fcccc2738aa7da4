"""Policy room: exit scores, pruning rules, and the rules that compare them with thresholds. Numpy only, no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ziggurat.lazy import lazily

if TYPE_CHECKING:
    from ziggurat.policies.exits import SPAN_ENTROPY, entropy, exit_score, softmax
    from ziggurat.policies.prune import (
        SCALES,
        TokenRule,
        above,
        linear_schedule,
        one_by_one,
        rescale,
        scaled,
        top_count,
        top_share,
        without_repeats,
    )
    from ziggurat.policies.rules import ExitRule

_HOMES = {
    "ExitRule": "ziggurat.policies.rules",
    "SCALES": "ziggurat.policies.prune",
    "SPAN_ENTROPY": "ziggurat.policies.exits",
    "TokenRule": "ziggurat.policies.prune",
    "above": "ziggurat.policies.prune",
    "entropy": "ziggurat.policies.exits",
    "exit_score": "ziggurat.policies.exits",
    "linear_schedule": "ziggurat.policies.prune",
    "one_by_one": "ziggurat.policies.prune",
    "rescale": "ziggurat.policies.prune",
    "scaled": "ziggurat.policies.prune",
    "softmax": "ziggurat.policies.exits",
    "top_count": "ziggurat.policies.prune",
    "top_share": "ziggurat.policies.prune",
    "without_repeats": "ziggurat.policies.prune",
}
__all__ = [
    "ExitRule",
    "SCALES",
    "SPAN_ENTROPY",
    "TokenRule",
    "above",
    "entropy",
    "exit_score",
    "linear_schedule",
    "one_by_one",
    "rescale",
    "scaled",
    "softmax",
    "top_count",
    "top_share",
    "without_repeats",
]

__getattr__ = lazily(__name__, _HOMES)
