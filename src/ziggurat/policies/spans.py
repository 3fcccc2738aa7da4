"""A rung's reading of a question: how sure it is of an answer's start and end, and its best span. Nothing is compared.

Logits are grids (n_windows, longest, 2) of start and end; masks (n_windows, longest) say which tokens count. Sums are
taken in float64, where two float32 logits add up exactly or nearly so: ties do not depend on rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ziggurat.data.packing import PackedBatch, padded_slots
from ziggurat.policies.exits import log_softmax

# Columns of a reading. Exit scores read the entropies, each the largest of the question's windows.
ENTROPIES, PLACE, SCORE, NULL_SCORE = slice(0, 2), slice(2, 5), 5, 6


@dataclass(frozen=True)
class SpanReader:
    """Logits of every token of a question's windows → the question's reading; an `engine.backend.Reader`.

    Columns: entropy of start and of end; window (0 = the question's first), first and last token of the best span; its
    score, and that of there being none, the least of all windows.
    """

    longest: int  # tokens of a span at most, less one
    width: ClassVar[int] = 7
    dtype: ClassVar[type] = np.float64

    def read(self, logits: np.ndarray, marks: PackedBatch) -> np.ndarray:
        """Logits (n_tokens, 2) of whole windows → (n_questions, 7) float64.

        `marks` has 1 as the state (n_tokens) of tokens where a span may start or end, and as `rows` the question of
        each window; a question's windows stand together.
        """
        lengths = marks.lengths
        shape, slots = (marks.n_seqs, int(lengths.max())), padded_slots(lengths)
        grid, possible = np.zeros((*shape, 2), dtype=np.float32), np.zeros(shape, dtype=bool)
        grid.reshape(-1, 2)[slots], possible.ravel()[slots] = logits, marks.states > 0
        first = np.flatnonzero(np.diff(marks.rows, prepend=-1))
        readings = np.empty((len(first), self.width))
        readings[:, ENTROPIES] = np.maximum.reduceat(end_entropies(grid, possible), first, axis=0)
        possible[:, 0] = False  # the first token stands for "no answer here"
        scores, tokens = best_spans(grid, possible, self.longest)
        edges = zip(first.tolist(), [*first[1:].tolist(), len(scores)], strict=True)
        best = np.array([begin + int(scores[begin:stop].argmax()) for begin, stop in edges], dtype=np.int64)
        readings[:, PLACE] = np.concatenate([(best - first)[:, None], tokens[best]], axis=1)
        readings[:, SCORE], readings[:, NULL_SCORE] = scores[best], np.minimum.reduceat(null_scores(grid), first)
        return readings


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
