"""Chooses operating points on the select rows: the cheapest threshold that loses no more than the target there.

Chosen is not certified: `confidence` stays None until rows that chose nothing vouch for the point.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from ziggurat.engine.rules import ExitRule, shared
from ziggurat.engine.runner import replay
from ziggurat.policies.exits import SCORES
from ziggurat.types import OperatingPoint

TARGETS: Mapping[str, float] = {"exact": 0.0, "balanced": 0.005, "fast": 0.01}  # accuracy that may be lost
_CANDIDATES = 256  # thresholds that are tried: quantiles of the scores that occur


def choose_points(
    every: np.ndarray,
    labels: np.ndarray | None,
    cost: Callable[[ExitRule], np.ndarray],
    fingerprint: str,
    data: str,
    score: str = "entropy",
    targets: Mapping[str, float] = TARGETS,
) -> tuple[OperatingPoint, ...]:
    """One operating point for each target.

    `every` (n, n_rungs, n_classes) are all rungs' logits on the select rows; `labels` (n), or None to measure agreement
    with the full model instead of accuracy; `cost(rule)` gives the FLOPs of leaving at each rung, (n, n_rungs).
    """
    n, n_rungs = every.shape[:2]
    truth = every[:, -1].argmax(axis=1) if labels is None else labels
    right = every.argmax(axis=2) == truth[:, None]
    rules = [shared(score, threshold, n_rungs) for threshold in candidate_thresholds(every, score)]
    # The cost of a rung depends on which heads are asked, and a shared threshold asks all of them.
    flops = cost(rules[0])
    rungs = [replay(every, rule) for rule in rules]
    everyone = np.arange(n)
    accuracy = np.array([right[everyone, chosen].mean() for chosen in rungs])
    mean_cost = np.array([flops[everyone, chosen].mean() for chosen in rungs])
    points = []
    for name, target in targets.items():
        # The first candidate lets nobody leave, so there always is an admissible one.
        admissible = np.flatnonzero(accuracy >= right[:, -1].mean() - target - 1e-12)
        best = rules[admissible[mean_cost[admissible].argmin()]]
        thresholds = tuple(float(threshold) for threshold in best.thresholds)
        points.append(OperatingPoint(name, score, thresholds, fingerprint, target=target, data=data))
    return tuple(points)


def candidate_thresholds(every: np.ndarray, score: str) -> np.ndarray:
    """Thresholds from "nobody leaves" on: quantiles of the score at all rungs but the last, (at most 257) float64."""
    values = np.concatenate([SCORES[score].of(every[:, : rung + 1]) for rung in range(every.shape[1] - 1)])
    quantiles = np.unique(np.quantile(values, np.linspace(0, 1, _CANDIDATES)))
    nobody = quantiles[-1] + 1.0 if SCORES[score].larger_is_surer else quantiles[0] - 1.0
    return np.concatenate([[nobody], quantiles])
