"""Routers between a first model and a last one, computed from arrays: which rows are escalated, the gain and the cost.

After TangoBERT (Mamou et al. 2022): its random and oracle models (5.2.4), its operating points at 99 % and 98 % of the
last model's accuracy (Table 2), its errors by quantile of confidence (Figure 4). A router is an order of the rows:
those with the largest uncertainty are escalated first.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ziggurat.calibrate.page.data import DECILES, decile_of, per_decile

_ROUNDING = 1e-9  # tolerance for sums of shares


@dataclass(frozen=True, eq=False)
class Route:
    """Accuracy and cost of n rows if the first k of them are escalated, for k = 0 … n."""

    accuracy: np.ndarray  # (n + 1) share
    flops: np.ndarray  # (n + 1) mean per row

    def at(self, share: float) -> tuple[float, float]:
        """Accuracy and mean FLOPs with this share of rows escalated; a fraction of a row is interpolated."""
        counts = np.arange(len(self.accuracy))
        sent = share * counts[-1]
        return float(np.interp(sent, counts, self.accuracy)), float(np.interp(sent, counts, self.flops))

    @property
    def area(self) -> float:
        """Mean accuracy over all escalated shares."""
        return float((self.accuracy[1:] + self.accuracy[:-1]).mean() / 2)

    def least_sent(self, accuracy: float) -> float:
        """The smallest escalated share that reaches an accuracy; 1 if none does."""
        reached = self.accuracy >= accuracy - _ROUNDING
        return float(reached.argmax() / (len(reached) - 1)) if reached.any() else 1.0


def route(right: np.ndarray, flops: np.ndarray, uncertainty: np.ndarray) -> Route:
    """The router that escalates rows with the largest uncertainty (n) first; ties are in random order.

    `right` (n, 2, bool) and `flops` (n, 2) are of the first model's answer, and of the last model's after escalation.
    All figures are exact expected values over the random orders. n ≥ 1.
    """
    gain, more = right[:, 1].astype(np.float64) - right[:, 0], np.diff(flops.astype(np.float64), axis=1)[:, 0]
    n = len(uncertainty)
    return Route(
        (right[:, 0].sum() + expected_sums(gain, uncertainty)) / n,
        (flops[:, 0].sum(dtype=np.float64) + expected_sums(more, uncertainty)) / n,
    )


def expected_sums(values: np.ndarray, uncertainty: np.ndarray) -> np.ndarray:
    """Expected sum of the values (n) of the k rows with the largest uncertainty (n), for k = 0 … n: (n + 1)."""
    _, group = np.unique(-uncertainty, return_inverse=True)
    means = np.bincount(group, values) / np.bincount(group)
    return np.concatenate([[0.0], np.cumsum(means[np.sort(group)])])


def random_route(right: np.ndarray, flops: np.ndarray) -> Route:
    """The mean over all orders of the rows: a straight line."""
    return route(right, flops, np.zeros(len(right)))


def oracle_route(right: np.ndarray, flops: np.ndarray) -> Route:
    """Escalates first rows that the last model corrects, last rows that it spoils: the best order at each share."""
    return route(right, flops, right[:, 1].astype(np.float64) - right[:, 0])


def share_of_oracle(router: Route, random: Route, oracle: Route) -> float | None:
    """Area between a router's curve and the random one's, as a share of the oracle's; None if that is 0."""
    most = oracle.area - random.area
    return (router.area - random.area) / most if most > _ROUNDING else None


def errors_by_decile(confidence: np.ndarray, right: np.ndarray) -> Iterator[dict[str, Any]]:
    """Ten groups of equal size by the first model's confidence (n), least confident first (TangoBERT Figure 4).

    Each has the errors that the last model corrects, that it introduces, and that both have, as shares of all rows, and
    both accuracies within the group. `right` (n, 2, bool) as in `route`. With fewer than ten rows groups can be empty.
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
        members, size = confidence[group == decile], sizes[decile]
        yield {
            "decile": decile + 1,
            "n": len(members),
            "confidence_low": float(members.min()) if len(members) else None,
            "confidence_high": float(members.max()) if len(members) else None,
            **{name: float(found[decile]) for name, found in shares.items()},
            **{name: float(found[decile] / size) if size else None for name, found in accuracies.items()},
        }
