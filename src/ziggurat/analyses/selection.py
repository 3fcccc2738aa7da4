"""Cost of token selection: a threshold compared with a top-k, on random scores (LTP Figure 4.5).

Both are the rules of `ziggurat.policies.prune`, in numpy on the host. Its top-k ranks all tokens of a packed batch with
one sort. For comparison there is a partition of a rectangular array, which a batch of different lengths cannot use: it
is the least cost of a top-k in numpy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from ziggurat.data.packing import PackedBatch, pack
from ziggurat.measure.clock import Timing, interleave, paired_ratio
from ziggurat.policies.prune import above, top_share

_CALLS = 100  # per timed run, because one comparison is too short for the clock


def selection_costs(
    lengths: Sequence[int],
    shares: Sequence[float],
    batch_size: int = 32,
    repeats: int = 11,
    progress: Callable[[str], None] | None = None,
) -> list[dict[str, Any]]:
    """A row for each length and share of kept tokens: median microseconds per batch, interleaved, and ratios."""
    rows = []
    for length in lengths:
        scores, batch = _random_batch(length, batch_size)
        calls: dict[str, Callable[[], object]] = {}
        for share in shares:
            calls |= {f"{rule} {share}": call for rule, call in _calls(scores, batch, share).items()}
        timings = interleave(calls, repeats, progress=progress)
        rows += [{"length": length, "share": share, "batch": batch_size, **_row(timings, share)} for share in shares]
    return rows


def _random_batch(length: int, batch_size: int) -> tuple[np.ndarray, PackedBatch]:
    """A batch, and its scores (batch_size x length), whose mean in each text is 1, as for a model."""
    scores = np.random.default_rng(0).exponential(size=(batch_size, length))
    scores /= scores.mean(axis=1, keepdims=True)
    return scores.ravel(), pack([np.zeros((length, 1))] * batch_size)


def _calls(scores: np.ndarray, batch: PackedBatch, share: float) -> Mapping[str, Callable[[], object]]:
    """Rules that keep this share of a batch of texts of equal length."""
    grid = scores.reshape(batch.n_seqs, -1)
    leaving = grid.shape[1] - max(1, round(share * grid.shape[1]))
    return {
        "threshold": partial(_often, above, float(np.quantile(scores, 1 - share)), scores, batch),
        "top-k": partial(_often, top_share, share, scores, batch),
        "partition": partial(_often, np.argpartition, grid, leaving, 1),
    }


def _often(function: Callable[..., object], *arguments: object) -> None:
    for _ in range(_CALLS):
        function(*arguments)


def _row(timings: Mapping[str, Timing], share: float) -> dict[str, Any]:
    threshold, top, partition = (timings[f"{rule} {share}"] for rule in ("threshold", "top-k", "partition"))
    ratio = paired_ratio(top, threshold)
    return {
        "threshold_us": 1e6 * threshold.p50 / _CALLS,
        "top_us": 1e6 * top.p50 / _CALLS,
        "partition_us": 1e6 * partition.p50 / _CALLS,
        "ratio": ratio.median,
        "ratio_low": ratio.low,
        "ratio_high": ratio.high,
        "partition_ratio": paired_ratio(partition, threshold).median,
    }
