"""The papers' analyses from arrays alone: what one setting made of each row, summed up over groups of rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import sqrt
from typing import Any

import numpy as np

from ziggurat.problems.problem import Figures, main_figure

QUARTILES = (("q25", 0.25), ("median", 0.5), ("q75", 0.75))
Judge = Callable[[np.ndarray], Figures]  # rows (n, bool) → figures, the most important one first
_Z = 1.96  # standard deviations on either side that hold 95 %


@dataclass(frozen=True)
class Measured:
    """What one setting of a model made of each of n rows."""

    predictions: np.ndarray  # (n) int64, class indices; of other problems what their answers are
    right: np.ndarray  # (n) bool, the label itself
    layers: np.ndarray  # (n) int64, encoder layers that ran
    kept: np.ndarray  # (n, L + 1) int64: tokens that entered layer 1, then those that each layer left; 0 = did not run
    flops: np.ndarray  # (n) int64, spent
    figures: Judge  # how good the answers are to some of the rows


def summary(measured: Measured, full: Measured, rows: np.ndarray | None = None) -> dict[str, Any]:
    """Quality and cost beside the full model, over the rows where `rows` (n, bool) is true (default: all of them).

    Figures of the full model have "full_" before their names, and of the first one there is the change. Ratios are
    ratios of sums. Of no rows nothing is said but that there are none.
    """
    chosen = np.ones(len(measured.right), dtype=bool) if rows is None else rows
    n = int(chosen.sum())
    if n == 0:
        return {"n": 0}
    mine, theirs = measured.figures(chosen), full.figures(chosen)
    first, quality = next(iter(mine)), main_figure(mine)
    spent, whole = measured.flops[chosen].sum(), full.flops[chosen].sum()
    return {
        "n": n,
        "tokens_mean": float(full.kept[chosen].max(axis=1).mean()),  # of a cascade, the tier that reads most
        **mine,
        **{f"full_{name}": value for name, value in theirs.items() if not name.endswith(("_low", "_high"))},
        f"{first}_change": mine[first] - theirs[first],
        **(quality and quality | {"full_quality": theirs[first]}),
        "flops_ratio": float(whole / spent),
        "relative_flops": float(spent / whole),
        "gflops_mean": float(spent / n / 1e9),
        "mean_layers": float(measured.layers[chosen].mean()),
    }


def buckets(lengths: np.ndarray, edges: Sequence[float]) -> np.ndarray:
    """Which bucket each length is in, (n) int64 from 0 to len(edges); a length that equals an edge is below it."""
    return np.searchsorted(np.asarray(edges, dtype=np.float64), lengths, side="left")


def bucket_names(edges: Sequence[int]) -> list[str]:
    """What tables call buckets: edges 35 and 70 → 1-35, 36-70, > 70."""
    starts = [1, *(edge + 1 for edge in edges)]
    return [*(f"{start}-{edge}" for start, edge in zip(starts, edges, strict=False)), f"> {edges[-1]}"]


def quantile_names(quantiles: Sequence[float]) -> list[str]:
    """What tables call the groups between quantiles: 0.5 and 0.75 → 0-50 %, 50-75 %, 75-100 %."""
    percents = [f"{100 * edge:g}" for edge in (0.0, *quantiles, 1.0)]
    return [f"{low}-{high} %" for low, high in pairwise(percents)]


def span(lengths: np.ndarray) -> str | None:
    """Shortest and longest of these lengths, None where there are none."""
    return f"{lengths.min()}-{lengths.max()}" if len(lengths) else None


def trajectory(kept: np.ndarray, full: np.ndarray) -> list[dict[str, Any]]:
    """Tokens left behind each layer, 0 = as read: `Measured.kept` (n ≥ 1, L + 1) → L + 1 rows (LTP Figure 4.6).

    Shares are of what the full model reads, whose `kept` is `full`. A text that has its answer counts with 0 tokens
    from then on.
    """
    shares = kept / full[:, :1]
    return [
        {"layer": layer, **spread("tokens", kept[:, layer]), "share_mean": float(shares[:, layer].mean())}
        for layer in range(kept.shape[1])
    ]


def spread(name: str, values: np.ndarray) -> dict[str, float | None]:
    """Mean and quartiles of values (n) under keys that begin with `name`; None where there are no values."""
    if not len(values):
        return dict.fromkeys([f"{name}_mean", *(f"{name}_{key}" for key, _ in QUARTILES)])
    quartiles = {f"{name}_{key}": float(np.quantile(values, share)) for key, share in QUARTILES}
    return {f"{name}_mean": float(values.mean()), **quartiles}


def lengths_kept(measured: Measured, full: Measured) -> Mapping[str, np.ndarray]:
    """Three measures of how much of each text was kept, (n) each: what LTP Figure 4.7 sets beside correctness.

    Shares are of the tokens that the full model reads.
    """
    n, steps = len(measured.layers), np.arange(1, measured.kept.shape[1])
    shares = measured.kept / full.kept[:, :1]
    ran = steps <= measured.layers[:, None]
    return {
        "tokens read": measured.kept[:, 0].astype(np.float64),
        "share left at the end": shares[np.arange(n), measured.layers],
        "mean share over layers": (shares[:, 1:] * ran).sum(axis=1) / measured.layers,
    }


def right_beside_wrong(values: np.ndarray, right: np.ndarray) -> dict[str, Any]:
    """Distributions of values (n) over right and wrong answers, `right` (n) bool, and how far they lie apart.

    `wrong_above_right` is the chance that a wrong answer's value is above a right one's, ties counting half. Where the
    two have nothing to do with one another it is in [`chance_low`, `chance_high`] 95 times of 100 (the deviation of
    Mann and Whitney's statistic, 1947, which ties only make smaller).
    """
    yes, no = values[right], values[~right]
    result = {"n_right": len(yes), "n_wrong": len(no), **spread("right", yes), **spread("wrong", no)}
    if not len(yes) or not len(no):
        return result
    ordered = np.sort(yes)
    below = np.searchsorted(ordered, no, side="left") + np.searchsorted(ordered, no, side="right")
    deviation = sqrt((len(values) + 1) / (12 * len(yes) * len(no)))
    return result | {
        "wrong_above_right": float(below.mean() / (2 * len(yes))),
        "chance_low": max(0.0, 0.5 - _Z * deviation),
        "chance_high": min(1.0, 0.5 + _Z * deviation),
    }


def histogram(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Share of the values (n ≥ 1) in each bin, (len(edges) - 1); the bins together hold all of them."""
    return np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0] / len(values)
