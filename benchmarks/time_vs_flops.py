"""Whether saved FLOPs save time: a race of `engine.py`, for each operating point, data type and batch size.

FLOPs are counted twice: as papers count them, and as the compiled engine computes them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np

from benchmarks.setting import Setting, answers, median_and_range
from scripts.shared import Row
from ziggurat.encoder import layer_flops
from ziggurat.encoder.spec import EncoderSpec
from ziggurat.engine import OpenedModel, Outcomes
from ziggurat.engine.opened import FULL
from ziggurat.measure import interleave, paired_ratio
from ziggurat.policies import ExitRule

BATCHES = (8, 32)


def savings(setting: Setting) -> Iterator[Row]:
    """Time gain, FLOPs gain and the one over the other of each rule, batch size and data type."""
    for dtype in setting.dtypes:
        classifier = setting.opened(dtype)
        acting = acting_rules(classifier)
        all_rules = {FULL: classifier.rule_of(FULL)} | {name: rule for name, (_, rule) in acting.items()}
        for batch in BATCHES:
            calls = {
                name: partial(answers, classifier.backend, setting.encoded, rule, batch)
                for name, rule in all_rules.items()
            }
            timings = interleave(calls, setting.rounds)
            for name, (acts, rule) in acting.items():
                gain = median_and_range(paired_ratio(timings[FULL], timings[name]))
                outcomes = answers(classifier.backend, setting.encoded, rule, batch)
                counted, computed = flops_gains(classifier, setting.encoded.lengths, outcomes, rule)
                yield {
                    "race": "savings", "what": name, "acts": acts, "dtype": dtype, "batch": batch,
                    "rounds": setting.rounds, "time_gain": gain, "flops_gain": counted, "computed_gain": computed,
                    "efficiency": [figure / counted for figure in gain],
                    "efficiency_computed": [figure / computed for figure in gain],
                }  # fmt: skip


def acting_rules(classifier: OpenedModel) -> dict[str, tuple[str, ExitRule]]:
    """Name → what acts, and the rule: each operating point; of a model that prunes also its exits alone."""
    acting = {}
    for point in classifier.manifest.operating_points:
        rule = classifier.rule_of(point)
        exits = any(rule.active[:-1])
        if rule.tokens is not None:
            acting[point.name] = ("exits and pruning" if exits else "pruning", rule)
        if exits:
            name = point.name if rule.tokens is None else f"{point.name} without pruning"
            acting[name] = ("exits", replace(rule, tokens=None))
    return acting


def flops_gains(
    classifier: OpenedModel, lengths: np.ndarray, outcomes: Outcomes, rule: ExitRule
) -> tuple[float, float]:
    """Full depth's FLOPs over the rule's: as papers count them, and as the engine computes them.

    The engine computes the last layer for first tokens only, at full depth too; if it prunes there, scores for all.
    """
    rows = np.arange(len(lengths))
    flops = classifier.tiers[-1].flops(outcomes.token_counts, lengths, rule.active, rule.tokens)[rows, outcomes.rungs]
    full_flops, spec = classifier.tiers[-1].full_flops(lengths), classifier.spec
    skipped_at_full_depth = 0 if spec.pooling == "mean" else not_computed(spec, lengths)
    tokens, entered, remaining = rule.tokens, outcomes.token_counts[:, -2], outcomes.token_counts[:, -1]
    scored = tokens is not None and tokens.prunes(spec.layers)
    at_last = 0 if spec.pooling == "mean" else not_computed(spec, entered, remaining, scored)
    skipped = np.where(outcomes.rungs == len(classifier.rungs) - 1, at_last, 0)
    counted = full_flops.sum() / flops.sum()
    computed = (full_flops - skipped_at_full_depth).sum() / (flops - skipped).sum()
    return float(counted), float(computed)


def not_computed(
    spec: EncoderSpec, n: np.ndarray, remaining: np.ndarray | None = None, scored: bool = False
) -> np.ndarray:
    """FLOPs of a last layer for all tokens but the first: n enter it, `remaining` after its attention (None = all).

    Keys and values of all tokens serve the first one and are computed; for scores, so are queries and their products.
    """
    d, maps = spec.hidden, 3 if spec.gated else 2
    first = 4 * d * d * n + 4 * d * d + 4 * d * n + 2 * maps * d * spec.intermediate
    scores = 2 * d * d * (n - 1) + 2 * d * n * n if scored else 0
    counted = layer_flops(spec, n, n if remaining is None else remaining, spec.layers)
    return np.where(n > 0, counted - first - scores, 0)
