"""Accuracy against cost from stored per-rung answers: the adaptive sweep and its controls.

Cost ratios are ratios of sums over the inputs: `full` (n), the FLOPs of the whole model without exits, over the FLOPs
of the answers. `right` (n, n_rungs) is whether a rung's answer is correct. `flops` (n, n_rungs) is the cost of an exit
there. The sweep's flops include all evaluated heads. The controls use no scores, so their flops exclude heads on the
way (`rung_flops(…, computed=all False)`), which makes them as strong as possible.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Point:
    """One point of a curve."""

    label: str
    accuracy: float  # share, 0 … 1
    cost_ratio: float  # the full model's FLOPs over this one's: 2 = half the cost
    threshold: float | None = None  # of the exit score; None = the point has none


def right_answers(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Whether each rung's answer is correct: logits (n, n_rungs, n_classes), labels (n) → (n, n_rungs) bool."""
    return logits.argmax(axis=-1) == labels[:, None]


def sweep(
    right: np.ndarray,
    flops: np.ndarray,
    full: np.ndarray,
    replay: Callable[[float], np.ndarray],
    thresholds: Sequence[float],
) -> list[Point]:
    """The adaptive model at each threshold; `replay(threshold)` gives the rung that answers each input, (n) int."""
    return [_point("adaptive", right, flops, full, replay(threshold), float(threshold)) for threshold in thresholds]


def fixed_depth(
    right: np.ndarray, flops: np.ndarray, full: np.ndarray, names: Sequence[str] | None = None
) -> list[Point]:
    """All inputs exit at the same rung: one point per rung, labelled with its name."""
    n, n_rungs = right.shape
    names = [f"rung {rung}" for rung in range(n_rungs)] if names is None else names
    return [_point(name, right, flops, full, np.full(n, rung)) for rung, name in enumerate(names)]


def random_exit(right: np.ndarray, flops: np.ndarray, full: np.ndarray, points: int = 21) -> list[Point]:
    """Inputs exit at each rung with probability p, from 0 to 1; the last rung answers the rest.

    So rung k answers a share p (1 - p)^k, which spans the cost axis from the last rung to the first. Accuracy and cost
    are exact means over all draws, without a seed or noise.
    """
    last = right.shape[1] - 1
    curve = []
    for p in np.linspace(0.0, 1.0, points):
        shares = p * (1 - p) ** np.arange(last + 1)
        shares[last] = (1 - p) ** last
        accuracy, cost = right.mean(axis=0) @ shares, flops.sum(axis=0) @ shares
        curve.append(Point("random exit", float(accuracy), float(full.sum() / cost)))
    return curve


def oracle(right: np.ndarray, flops: np.ndarray, full: np.ndarray, points: int = 21) -> list[Point]:
    """The best possible exit rule for these rungs, from the cheapest point to the most accurate.

    It uses the labels. All inputs start at the first rung. Then inputs move to their first correct rung, the cheapest
    move first; inputs without a correct rung stay at the first. Each move gains one correct answer, so no other rule
    has as many correct answers at that cost, if cost rises from rung to rung. The last point is the usual oracle: all
    inputs at their first correct rung.
    """
    all_rows = np.arange(len(right))
    first_right = np.where(right.any(axis=1), right.argmax(axis=1), 0)
    extra_flops = flops[all_rows, first_right] - flops[:, 0]
    movable = np.flatnonzero(first_right > 0)
    movable = movable[np.argsort(extra_flops[movable], kind="stable")]
    curve = []
    for n_moved in np.unique(np.linspace(0, len(movable), points).round().astype(np.int64)):
        rungs = np.zeros(len(right), dtype=np.int64)
        rungs[movable[:n_moved]] = first_right[movable[:n_moved]]
        curve.append(_point("oracle", right, flops, full, rungs))
    return curve


def _point(
    label: str,
    right: np.ndarray,
    flops: np.ndarray,
    full: np.ndarray,
    rungs: np.ndarray,
    threshold: float | None = None,
) -> Point:
    all_rows = np.arange(len(right))
    accuracy = float(right[all_rows, rungs].mean())
    return Point(label, accuracy, float(full.sum() / flops[all_rows, rungs].sum()), threshold)
