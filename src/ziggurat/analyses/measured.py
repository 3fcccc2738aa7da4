"""The papers' analyses, computed from arrays: results of a setting per row, and summaries over groups of rows."""

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
_Z = 1.96  # standard deviations of a two-sided 95 % interval


@dataclass(frozen=True)
class Measured:
    """Results of one setting of a model on n rows."""

    predictions: np.ndarray  # (n) int64 class indices, or the answers of another problem
    right: np.ndarray  # (n) bool, equal to the label
    layers: np.ndarray  # (n) int64, encoder layers that ran
    token_counts: np.ndarray  # (n, L + 1) int64: tokens that enter layer 1, then after each layer; 0 = did not run
    flops: np.ndarray  # (n) int64
    figures: Judge  # quality of the answers to a subset of rows


def summary(measured: Measured, full: Measured, rows: np.ndarray | None = None) -> dict[str, Any]:
    """Quality and cost compared with the full model, over the rows where `rows` (n, bool) is true (default: all).

    Names of the full model's figures begin with "full_". For the first figure there is also the change. Ratios are
    ratios of sums. Without rows the summary is only {"n": 0}.
    """
    chosen = np.ones(len(measured.right), dtype=bool) if rows is None else rows
    n = int(chosen.sum())
    if n == 0:
        return {"n": 0}
    figures, full_figures = measured.figures(chosen), full.figures(chosen)
    first, quality = next(iter(figures)), main_figure(figures)
    flops, full_flops = measured.flops[chosen].sum(), full.flops[chosen].sum()
    return {
        "n": n,
        "tokens_mean": float(full.token_counts[chosen].max(axis=1).mean()),  # for a cascade, the tier that reads most
        **figures,
        **{f"full_{name}": value for name, value in full_figures.items() if not name.endswith(("_low", "_high"))},
        f"{first}_change": figures[first] - full_figures[first],
        **(quality and quality | {"full_quality": full_figures[first]}),
        "flops_ratio": float(full_flops / flops),
        "relative_flops": float(flops / full_flops),
        "gflops_mean": float(flops / n / 1e9),
        "mean_layers": float(measured.layers[chosen].mean()),
    }


def buckets(lengths: np.ndarray, edges: Sequence[float]) -> np.ndarray:
    """Bucket index of each length, (n) int64 from 0 to len(edges); a length equal to an edge is below it."""
    return np.searchsorted(np.asarray(edges, dtype=np.float64), lengths, side="left")


def bucket_names(edges: Sequence[int]) -> list[str]:
    """Names of buckets in tables: edges 35 and 70 → 1-35, 36-70, > 70."""
    starts = [1, *(edge + 1 for edge in edges)]
    return [*(f"{start}-{edge}" for start, edge in zip(starts, edges, strict=False)), f"> {edges[-1]}"]


def quantile_names(quantiles: Sequence[float]) -> list[str]:
    """Names of the groups between quantiles in tables: 0.5 and 0.75 → 0-50 %, 50-75 %, 75-100 %."""
    percents = [f"{100 * edge:g}" for edge in (0.0, *quantiles, 1.0)]
    return [f"{low}-{high} %" for low, high in pairwise(percents)]


def span(lengths: np.ndarray) -> str | None:
    """Shortest and longest of these lengths; None if there are none."""
    return f"{lengths.min()}-{lengths.max()}" if len(lengths) else None


def trajectory(token_counts: np.ndarray, full: np.ndarray) -> list[dict[str, Any]]:
    """Tokens after each layer, 0 = as read: `Measured.token_counts` (n ≥ 1, L + 1) → L + 1 rows (LTP Figure 4.6).

    Shares are relative to the tokens that the full model reads, whose counts are `full`. A text that has exited counts
    with 0 tokens.
    """
    shares = token_counts / full[:, :1]
    return [
        {"layer": layer, **spread("tokens", token_counts[:, layer]), "share_mean": float(shares[:, layer].mean())}
        for layer in range(token_counts.shape[1])
    ]


def spread(name: str, values: np.ndarray) -> dict[str, float | None]:
    """Mean and quartiles of values (n) under keys that begin with `name`; None if there are no values."""
    if not len(values):
        return dict.fromkeys([f"{name}_mean", *(f"{name}_{key}" for key, _ in QUARTILES)])
    quartiles = {f"{name}_{key}": float(np.quantile(values, share)) for key, share in QUARTILES}
    return {f"{name}_mean": float(values.mean()), **quartiles}


def lengths_kept(measured: Measured, full: Measured) -> Mapping[str, np.ndarray]:
    """Three measures of the tokens that pruning keeps of each text, (n) each (LTP Figure 4.7).

    Shares are relative to the tokens that the full model reads.
    """
    n, steps = len(measured.layers), np.arange(1, measured.token_counts.shape[1])
    shares = measured.token_counts / full.token_counts[:, :1]
    ran = steps <= measured.layers[:, None]
    return {
        "tokens read": measured.token_counts[:, 0].astype(np.float64),
        "share left at the end": shares[np.arange(n), measured.layers],
        "mean share over layers": (shares[:, 1:] * ran).sum(axis=1) / measured.layers,
    }


def right_beside_wrong(values: np.ndarray, right: np.ndarray) -> dict[str, Any]:
    """Distributions of values (n) over right and wrong answers, `right` (n) bool, and their distance.

    `wrong_above_right` is the probability that a wrong answer's value is above a right one's; ties count half. If the
    value is independent of correctness, it is in [`chance_low`, `chance_high`] with probability 95 % (the deviation of
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
