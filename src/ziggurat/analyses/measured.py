"""The papers' analyses on arrays: results of one setting for each row, summarised over groups of rows."""

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
    """Results of one setting of a model for n rows."""

    predictions: np.ndarray  # (n) int64, class indices; for other problems their predictions
    right: np.ndarray  # (n) bool, the prediction equals the label
    layers: np.ndarray  # (n) int64, encoder layers that ran
    remaining: np.ndarray  # (n, L + 1) int64: tokens that enter layer 1, then tokens after each layer; 0 = did not run
    flops: np.ndarray  # (n) int64
    figures: Judge  # quality of the answers to some of the rows


def summary(measured: Measured, full: Measured, rows: np.ndarray | None = None) -> dict[str, Any]:
    """Quality and cost beside the full model, over the rows where `rows` (n, bool) is true (default: all of them).

    Figures of the full model have the prefix "full_"; for the first figure there is also the change. Ratios are ratios
    of sums. For no rows, the only key is n.
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
        "tokens_mean": float(full.remaining[chosen].max(axis=1).mean()),  # of a cascade, the tier that reads most
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
    """Bucket of each length, (n) int64 from 0 to len(edges); a length equal to an edge is in the lower bucket."""
    return np.searchsorted(np.asarray(edges, dtype=np.float64), lengths, side="left")


def bucket_names(edges: Sequence[int]) -> list[str]:
    """Names of buckets in tables: edges 35 and 70 → 1-35, 36-70, > 70."""
    starts = [1, *(edge + 1 for edge in edges)]
    return [*(f"{start}-{edge}" for start, edge in zip(starts, edges, strict=False)), f"> {edges[-1]}"]


def quantile_names(quantiles: Sequence[float]) -> list[str]:
    """Names of groups between quantiles in tables: 0.5 and 0.75 → 0-50 %, 50-75 %, 75-100 %."""
    percents = [f"{100 * edge:g}" for edge in (0.0, *quantiles, 1.0)]
    return [f"{low}-{high} %" for low, high in pairwise(percents)]


def span(lengths: np.ndarray) -> str | None:
    """Shortest and longest of these lengths; None for no lengths."""
    return f"{lengths.min()}-{lengths.max()}" if len(lengths) else None


def trajectory(remaining: np.ndarray, full: np.ndarray) -> list[dict[str, Any]]:
    """Tokens after each layer, 0 = as read: `Measured.remaining` (n ≥ 1, L + 1) → L + 1 rows (LTP Figure 4.6).

    Shares are relative to the full model's tokens, `remaining` of which is `full`. After its exit a text has 0 tokens.
    """
    shares = remaining / full[:, :1]
    return [
        {"layer": layer, **spread("tokens", remaining[:, layer]), "share_mean": float(shares[:, layer].mean())}
        for layer in range(remaining.shape[1])
    ]


def spread(name: str, values: np.ndarray) -> dict[str, float | None]:
    """Mean and quartiles of values (n), with keys that begin with `name`; None without values."""
    if not len(values):
        return dict.fromkeys([f"{name}_mean", *(f"{name}_{key}" for key, _ in QUARTILES)])
    quartiles = {f"{name}_{key}": float(np.quantile(values, share)) for key, share in QUARTILES}
    return {f"{name}_mean": float(values.mean()), **quartiles}


def lengths_kept(measured: Measured, full: Measured) -> Mapping[str, np.ndarray]:
    """Three measures of how much of each text was kept, (n) each, which LTP Figure 4.7 compares with correctness.

    Shares are relative to the full model's tokens.
    """
    n, steps = len(measured.layers), np.arange(1, measured.remaining.shape[1])
    shares = measured.remaining / full.remaining[:, :1]
    ran = steps <= measured.layers[:, None]
    return {
        "tokens read": measured.remaining[:, 0].astype(np.float64),
        "share left at the end": shares[np.arange(n), measured.layers],
        "mean share over layers": (shares[:, 1:] * ran).sum(axis=1) / measured.layers,
    }


def right_beside_wrong(values: np.ndarray, right: np.ndarray) -> dict[str, Any]:
    """Distributions of values (n) over right and wrong answers, `right` (n) bool, and their separation.

    `wrong_above_right` is the probability that a wrong answer's value exceeds a right one's; ties count half. If values
    and correctness are independent, it is in [`chance_low`, `chance_high`] with probability 95 % (standard deviation of
    the Mann-Whitney statistic, 1947; ties only reduce it).
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
