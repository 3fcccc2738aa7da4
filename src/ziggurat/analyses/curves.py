"""Accuracy against cost from stored per-rung answers: the adaptive sweep, and the controls to read it beside.

Cost ratios are ratios of sums over the inputs: `full` (n), the FLOPs of the whole model without exits, over what was
spent. `right` (n, n_rungs) says whether a rung's answer is correct, `flops` (n, n_rungs) what leaving there costs. The
sweep takes the flops with every asked head charged; the controls take those of going straight to a rung
(`rung_flops(…, computed=all False)`), since they look at no score on the way. That makes them as strong as they can be.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Point:
    """One place on a curve."""

    label: str
    accuracy: float  # share, 0 … 1
    cost_ratio: float  # the full model's FLOPs over these: 2 = half the cost
    threshold: float | None = None  # of the exit score, where one made the point


def right_answers(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Which rung answers which input correctly: logits (n, n_rungs, n_classes), labels (n) → (n, n_rungs) bool."""
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
    """Every input leaves at the same rung: one point per rung, labelled with its name."""
    n, n_rungs = right.shape
    names = [f"rung {rung}" for rung in range(n_rungs)] if names is None else names
    return [_point(name, right, flops, full, np.full(n, rung)) for rung, name in enumerate(names)]


def random_exit(right: np.ndarray, flops: np.ndarray, full: np.ndarray, points: int = 21) -> list[Point]:
    """A coin at each rung: an input leaves with probability p, the last rung answers what is left; p from 0 to 1.

    Rung k so answers a share p (1 - p)^k, which spans the cost axis from the last rung to the first. Accuracy and cost
    are the exact means over all draws, hence no seed and no noise.
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
    """The best that any exit rule could do with these rungs, from the cheapest point to the most accurate.

    It knows the labels. It starts with every input at the first rung and buys right answers, the cheapest first, by
    moving an input to its first rung that is right; inputs that no rung gets right stay at the first. Each purchase
    gains one answer, so no other rule has as many right answers at that cost (where cost rises from rung to rung).
    The last point is the usual oracle: every input at its first right rung.
    """
    everyone = np.arange(len(right))
    first_right = np.where(right.any(axis=1), right.argmax(axis=1), 0)
    price = flops[everyone, first_right] - flops[:, 0]
    wanted = np.flatnonzero(first_right > 0)
    wanted = wanted[np.argsort(price[wanted], kind="stable")]
    curve = []
    for bought in np.unique(np.linspace(0, len(wanted), points).round().astype(np.int64)):
        rungs = np.zeros(len(right), dtype=np.int64)
        rungs[wanted[:bought]] = first_right[wanted[:bought]]
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
    everyone = np.arange(len(right))
    accuracy = float(right[everyone, rungs].mean())
    return Point(label, accuracy, float(full.sum() / flops[everyone, rungs].sum()), threshold)
