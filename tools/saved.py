"""Which rules save FLOPs, and how many: by the count that is published, and by what the compiled engine computes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ziggurat.encoder.flops import layer_flops
from ziggurat.encoder.spec import EncoderSpec
from ziggurat.engine.classifier import AdaptiveClassifier
from ziggurat.engine.rules import ExitRule
from ziggurat.engine.runner import Outcomes


def acting_rules(classifier: AdaptiveClassifier) -> dict[str, tuple[str, ExitRule]]:
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
    classifier: AdaptiveClassifier, lengths: np.ndarray, outcomes: Outcomes, rule: ExitRule
) -> tuple[float, float]:
    """Full depth's FLOPs over the rule's: as they are counted everywhere, and as the engine computes them.

    It computes an unpruned last layer for first tokens alone, in full depth too.
    """
    rows = np.arange(len(lengths))
    spent = classifier.flops(outcomes.kept, rule)[rows, outcomes.rungs]
    full, spec = classifier.full_flops(lengths), classifier.spec
    unread = 0 if spec.pooling == "mean" else not_computed(spec, lengths)
    at_last = 0 if spec.pooling == "mean" else not_computed(spec, outcomes.kept[:, -1])
    if rule.tokens is not None and rule.tokens.prunes(spec.layers):
        at_last = 0
    spared = np.where(outcomes.rungs == len(classifier.rungs) - 1, at_last, 0)
    return float(full.sum() / spent.sum()), float((full - unread).sum() / (spent - spared).sum())


def not_computed(spec: EncoderSpec, n: np.ndarray) -> np.ndarray:
    """FLOPs of a last layer of n tokens that are for other tokens than the first; keys and values are for it."""
    d, maps = spec.hidden, 3 if spec.gated else 2
    first = 4 * d * d * n + 4 * d * d + 4 * d * n + 2 * maps * d * spec.intermediate
    return np.where(n > 0, layer_flops(spec, n, n, spec.layers) - first, 0)
