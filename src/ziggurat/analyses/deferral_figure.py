"""Routers between a first model and the last one, from arrays alone: who goes on, what that gains, what it costs.

After TangoBERT (Mamou et al. 2022): its random and oracle models (5.2.4), its operating points at 99 % and 98 % of the
last model's accuracy (Table 2), its errors by quantile of confidence (Figure 4). A router is an order of the rows:
those with the largest doubt go on first.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ziggurat.calibrate.page.data import DECILES, decile_of, per_decile

_ROUNDING = 1e-9  # of a sum of shares


@dataclass(frozen=True, eq=False)
class Route:
    """What n rows get with the first k of them sent on, for k = 0 … n."""

    accuracy: np.ndarray  # (n + 1) share
    flops: np.ndarray  # (n + 1) mean per row

    def at(self, share: float) -> tuple[float, float]:
        """Accuracy and mean FLOPs with this share of the rows sent on; for part of a row lots are drawn."""
        counts = np.arange(len(self.accuracy))
        sent = share * counts[-1]
        return float(np.interp(sent, counts, self.accuracy)), float(np.interp(sent, counts, self.flops))

    @property
    def area(self) -> float:
        """Mean accuracy over all shares that may be sent on."""
        return float((self.accuracy[1:] + self.accuracy[:-1]).mean() / 2)

    def least_sent(self, accuracy: float) -> float:
        """The smallest share sent on that reaches an accuracy; 1 where none does."""
        reached = self.accuracy >= accuracy - _ROUNDING
        return float(reached.argmax() / (len(reached) - 1)) if reached.any() else 1.0


def route(right: np.ndarray, flops: np.ndarray, doubt: np.ndarray) -> Route:
    """The router that sends the rows with the largest doubt (n) on first; among equals lots are drawn.

    `right` (n, 2, bool) and `flops` (n, 2): of the first model's answer, and of the last's if a row goes on to it. All
    figures are expected values, exact over all draws. n ≥ 1.
    """
    gain, more = right[:, 1].astype(np.float64) - right[:, 0], np.diff(flops.astype(np.float64), axis=1)[:, 0]
    n = len(doubt)
    return Route(
        (right[:, 0].sum() + expected_sums(gain, doubt)) / n,
        (flops[:, 0].sum(dtype=np.float64) + expected_sums(more, doubt)) / n,
    )


def expected_sums(values: np.ndarray, doubt: np.ndarray) -> np.ndarray:
    """Sum of the values (n) of the k rows with the largest doubt (n), k = 0 … n: (n + 1), expected over lots."""
    _, group = np.unique(-doubt, return_inverse=True)
    means = np.bincount(group, values) / np.bincount(group)
    return np.concatenate([[0.0], np.cumsum(means[np.sort(group)])])


def random_route(right: np.ndarray, flops: np.ndarray) -> Route:
    """Lots alone decide: the mean over all orders of the rows, a straight line."""
    return route(right, flops, np.zeros(len(right)))


def oracle_route(right: np.ndarray, flops: np.ndarray) -> Route:
    """First what the last model puts right, last what it spoils: no order is more accurate at any share."""
    return route(right, flops, right[:, 1].astype(np.float64) - right[:, 0])


def share_of_oracle(one: Route, random: Route, oracle: Route) -> float | None:
    """Area between a router's curve and the random one's, as a share of the oracle's; None where order is no matter."""
    most = oracle.area - random.area
    return (one.area - random.area) / most if most > _ROUNDING else None


def errors_by_decile(confidence: np.ndarray, right: np.ndarray) -> Iterator[dict[str, Any]]:
    """Ten groups of one size by the first model's confidence (n), least sure first (TangoBERT Figure 4).

    Errors that the last model corrects, those that it introduces, and what both answer wrongly, as shares of all rows;
    both accuracies within the group. `right` (n, 2, bool) as in `route`. With fewer than ten rows groups are empty.
    """
    group, (first, last) = decile_of(-confidence), right.T
    sizes = per_decile(np.ones(len(group), dtype=bool), group)
    shares = {
        "corrected": per_decile(~first & last, group),
        "introduced": per_decile(first & ~last, group),
        "both_wrong": per_decile(~first & ~last, group),
    }
    accuracies = {"accuracy": per_decile(first, group), "last_accuracy": per_decile(last, group)}
    for decile in range(DECILES):
        mine, size = confidence[group == decile], sizes[decile]
        yield {
            "decile": decile + 1,
            "n": len(mine),
            "confidence_low": float(mine.min()) if len(mine) else None,
            "confidence_high": float(mine.max()) if len(mine) else None,
            **{name: float(found[decile]) for name, found in shares.items()},
            **{name: float(found[decile] / size) if size else None for name, found in accuracies.items()},
        }
