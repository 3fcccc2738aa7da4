"""What a rung's logits say of spans: the best ones, and how sure it is. Numbers only, nothing is compared.

Logits are grids (n_windows, longest, 2) of start and end; masks (n_windows, longest) say which tokens count. Sums are
taken in float64, where two float32 logits add up exactly or nearly so: ties do not depend on rounding.
"""

from __future__ import annotations

import numpy as np

from ziggurat.policies.exits import log_softmax


def end_entropies(logits: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """Entropy of start and of end over the candidates, over the logarithm of their number: (n_windows, 2) in [0, 1].

    0 is sure, 1 is uniform, as MP eq. 5 has it of classes. 0 where there is one candidate.
    """
    masked = np.where(candidates[..., None], logits.astype(np.float64), -1e9)
    logs = log_softmax(masked.transpose(0, 2, 1))
    most = np.log(np.maximum(candidates.sum(axis=1), 2))
    return np.clip(-(np.exp(logs) * logs).sum(axis=-1) / most[:, None], 0.0, 1.0)


def best_spans(logits: np.ndarray, context: np.ndarray, longest: int) -> tuple[np.ndarray, np.ndarray]:
    """The best span of context tokens in each window: scores (n_windows) float64, first and last token (n_windows, 2).

    The largest start logit + end logit with start <= end <= start + `longest`; of equals the one that starts, then the
    one that ends first. -inf and (0, 0) in a window without context tokens.
    """
    start, end = (np.where(context, logits[..., side].astype(np.float64), -np.inf) for side in (0, 1))
    width = start.shape[1]
    ends, reach = np.full(start.shape, -np.inf), np.zeros(start.shape, dtype=np.int64)
    for further in range(min(longest + 1, width)):
        here = end[:, further:]
        better = here > ends[:, : width - further]
        ends[:, : width - further] = np.where(better, here, ends[:, : width - further])
        reach[:, : width - further] = np.where(better, further, reach[:, : width - further])
    totals = start + ends
    first = totals.argmax(axis=1)
    everyone = np.arange(len(first))
    found = np.stack([first, first + reach[everyone, first]], axis=1)
    scores = totals[everyone, first]
    return scores, np.where(np.isfinite(scores)[:, None], found, 0)


def null_scores(logits: np.ndarray) -> np.ndarray:
    """Start logit + end logit of the first token, which stand for "no answer here": (n_windows) float64."""
    scores: np.ndarray = logits[:, 0].astype(np.float64).sum(axis=-1)
    return scores
