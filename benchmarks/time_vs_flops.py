"""Which rules save FLOPs, and how many: by the count that is published, and by what the compiled engine computes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ziggurat.encoder.flops import layer_flops
from ziggurat.encoder.spec import EncoderSpec
from ziggurat.engine.backend import Outcomes
from ziggurat.engine.opened import OpenedModel
from ziggurat.policies.rules import ExitRule


def acting_rules(classifier: OpenedModel) -> dict[str, tuple[str, ExitRule]]:
    """Name → what acts, and the rule: each operating point, and where the model prunes also its exits alone."""
    found = {}
    for point in classifier.manifest.operating_points:
        rule = classifier.rule_of(point)
        exits = any(rule.asked[:-1])
        if rule.tokens is not None:
            found[point.name] = ("exits and pruning" if exits else "pruning", rule)
        if exits:
            name = point.name if rule.tokens is None else f"{point.name} without pruning"
            found[name] = ("exits", replace(rule, tokens=None))
    return found


def flops_gains(
    classifier: OpenedModel, lengths: np.ndarray, outcomes: Outcomes, rule: ExitRule
) -> tuple[float, float]:
    """Full depth's FLOPs over the rule's: as they are counted everywhere, and as the engine computes them.

    It computes the last layer for first tokens alone, in full depth too; where that layer prunes, scores for all.
    """
    rows = np.arange(len(lengths))
    spent = classifier.tiers[-1].flops(lengths, outcomes.kept, rule.asked, rule.tokens)[rows, outcomes.rungs]
    full, spec = classifier.tiers[-1].full_flops(lengths), classifier.spec
    unread = 0 if spec.pooling == "mean" else not_computed(spec, lengths)
    tokens, entered, left = rule.tokens, outcomes.kept[:, -2], outcomes.kept[:, -1]
    scored = tokens is not None and tokens.prunes(spec.layers)
    at_last = 0 if spec.pooling == "mean" else not_computed(spec, entered, left, scored)
    spared = np.where(outcomes.rungs == len(classifier.rungs) - 1, at_last, 0)
    return float(full.sum() / spent.sum()), float((full - unread).sum() / (spent - spared).sum())


def not_computed(spec: EncoderSpec, n: np.ndarray, left: np.ndarray | None = None, scored: bool = False) -> np.ndarray:
    """FLOPs of a last layer that n tokens enter, `left` after its attention (None = all), for others than the first.

    Keys and values are for the first token; of all queries and their products with keys so are scores.
    """
    d, maps = spec.hidden, 3 if spec.gated else 2
    first = 4 * d * d * n + 4 * d * d + 4 * d * n + 2 * maps * d * spec.intermediate
    scores = 2 * d * d * (n - 1) + 2 * d * n * n if scored else 0
    counted = layer_flops(spec, n, n if left is None else left, spec.layers)
    return np.where(n > 0, counted - first - scores, 0)
