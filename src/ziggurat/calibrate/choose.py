"""Chooses operating points on the select rows: the cheapest threshold before any loses more than the target there.

Chosen is not certified: `confidence` stays None until rows that chose nothing vouch for the point.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from ziggurat.engine.rules import ExitRule, never, shared
from ziggurat.engine.runner import replay
from ziggurat.policies.exits import exit_score
from ziggurat.types import OperatingPoint

TARGETS: Mapping[str, float] = {"exact": 0.0, "balanced": 0.005, "fast": 0.01}  # accuracy that may be lost
_HAIR = 1e-4  # beyond the smallest and largest score
_CANDIDATES = 256  # thresholds that are tried: quantiles of the scores that occur


def choose_points(
    every: np.ndarray,
    labels: np.ndarray | None,
    cost: Callable[[ExitRule], np.ndarray],
    fingerprint: str,
    data: str,
    score: str = "entropy",
    targets: Mapping[str, float] = TARGETS,
    temperatures: np.ndarray | None = None,
) -> tuple[OperatingPoint, ...]:
    """One operating point for each target.

    `every` (n, n_rungs, n_classes) are all rungs' logits on the select rows; `labels` (n), or None to measure agreement
    with the full model instead of accuracy; `cost(rule)` gives the FLOPs of leaving at each rung, (n, n_rungs);
    `temperatures` (n_rungs) divide the logits for the score, and are written into the points.
    """
    n, n_rungs = every.shape[:2]
    truth = every[:, -1].argmax(axis=1) if labels is None else labels
    right = every.argmax(axis=2) == truth[:, None]
    # From dear to cheap, full depth first: it loses nothing, so there always is an admissible rule.
    thresholds = candidate_thresholds(every, score, temperatures)[:: -1 if exit_score(score).larger_is_surer else 1]
    rules = [never(n_rungs), *(shared(score, threshold, n_rungs, temperatures) for threshold in thresholds)]
    rungs = [replay(every, rule) for rule in rules]
    everyone = np.arange(n)
    lost = right[:, -1].mean() - np.array([right[everyone, chosen].mean() for chosen in rungs])
    flops = cost(rules[-1])  # all shared thresholds ask the same heads, so they pay the same for a rung
    mean_cost = np.array([cost(rules[0])[:, -1].mean(), *(flops[everyone, chosen].mean() for chosen in rungs[1:])])
    written = None if temperatures is None else tuple(temperatures.tolist())
    points = []
    for name, target in targets.items():
        # Up to the first threshold that loses too much: one beyond it that does not owes that to luck.
        admissible = int(np.argmax(np.append(lost > target + 1e-12, True)))
        best = rules[int(mean_cost[:admissible].argmin())]
        chosen = tuple(None if np.isnan(threshold) else float(threshold) for threshold in best.thresholds)
        points.append(OperatingPoint(name, score, chosen, fingerprint, target, data=data, temperatures=written))
    return tuple(points)


def candidate_thresholds(every: np.ndarray, score: str, temperatures: np.ndarray | None = None) -> np.ndarray:
    """Thresholds worth trying, rising float64: of a count all that it can reach, else (at most 257) between quantiles.

    Quantiles of the score at all rungs but the last. Between, and not on them: a score that equals its threshold leaves
    or stays by the rounding of its batch. A count has no rounding, and the threshold 2 reads better than 1.5.
    """
    n_rungs = every.shape[1]
    if n_rungs == 1:  # a model without exits has nowhere to put a threshold
        return np.empty(0)
    asked = exit_score(score)
    most = asked.largest_count(n_rungs)
    if most is not None:
        return np.arange(most + 1, dtype=np.float64)
    seen = every if temperatures is None else every / temperatures[:, None]
    values = [asked.of(seen[:, : rung + 1]) for rung in range(n_rungs - 1)]
    quantiles = np.unique(np.quantile(np.concatenate(values), np.linspace(0, 1, _CANDIDATES)))
    return np.concatenate([quantiles[:1] - _HAIR, (quantiles[1:] + quantiles[:-1]) / 2, quantiles[-1:] + _HAIR])
