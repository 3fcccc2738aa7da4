"""Accuracy against cost from stored answers of all rungs: the adaptive sweep and its controls.

A cost ratio is the sum of `full` (n), FLOPs of the full model without exits, divided by the sum of FLOPs used. `right`
(n, n_rungs) is True for correct answers; `flops` (n, n_rungs) is the cost of exiting at each rung. The sweep pays for
all computed heads. The controls use no scores, so they go straight to a rung (`rung_flops(…, computed=all False)`),
which makes them as strong as possible.
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
    cost_ratio: float  # the full model's FLOPs over these: 2 = half the cost
    threshold: float | None = None  # of the exit score; None = a control


def right_answers(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """True for correct answers: logits (n, n_rungs, n_classes), labels (n) → (n, n_rungs) bool."""
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
    """Inputs exit at each rung with probability p, and the last rung answers the rest; p from 0 to 1.

    So rung k answers a share p (1 - p)^k, and costs range from the last rung's to the first's. Accuracy and cost are
    exact expected values, without seed and noise.
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

    It knows the labels. All inputs start at the first rung. Then inputs move to their first correct rung, the cheapest
    moves first; inputs without a correct rung stay at the first. Each move gains one correct answer, so no rule has
    more correct answers at that cost (if cost rises from rung to rung). The last point is the usual oracle: every input
    at its first correct rung.
    """
    rows = np.arange(len(right))
    first_right = np.where(right.any(axis=1), right.argmax(axis=1), 0)
    price = flops[rows, first_right] - flops[:, 0]
    wanted = np.flatnonzero(first_right > 0)
    wanted = wanted[np.argsort(price[wanted], kind="stable")]
    curve = []
    for count in np.unique(np.linspace(0, len(wanted), points).round().astype(np.int64)):
        rungs = np.zeros(len(right), dtype=np.int64)
        rungs[wanted[:count]] = first_right[wanted[:count]]
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
    rows = np.arange(len(right))
    accuracy = float(right[rows, rungs].mean())
    return Point(label, accuracy, float(full.sum() / flops[rows, rungs].sum()), threshold)
