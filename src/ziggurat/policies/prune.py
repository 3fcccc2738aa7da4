"""Pruning rules: which tokens a layer keeps, from a score per token. Rules return masks; backends remove the tokens.

The unit of all scores is *mean received attention*: the mean over the live tokens of a sequence is 1, for any length,
padding and layer. The scales of LTP and MP (LTP eq. 3.7, MP eq. 7) are factors on it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ziggurat.data.packing import PackedBatch, padded_slots
from ziggurat.system import cached_property

LTP_PADDED = 128  # the padded length in LTP's released scripts; its code divides by it

# Factor from relative scores to a paper's unit, for texts of n tokens before pruning.
SCALES: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "relative": lambda n: np.ones(len(n)),
    "paper": lambda n: 1 / n,  # LTP eq. 3.7 and MP eq. 7 as printed: long inputs are pruned harder
    "ltp-code": lambda n: np.full(len(n), 1 / LTP_PADDED),
}
RECEIVED = "received"  # attention received from all live tokens, mean over heads (LTP, MP, SpAtten, LAT)
FROM_OTHERS = "received-from-others"  # the same without a token's attention to itself (PoWER-BERT)
PREDICTED = "predicted"  # a learned prediction of the attention in later layers (after ToP)
SCORES = (RECEIVED, FROM_OTHERS, PREDICTED)

# (value of this layer, scores (n_tokens), batch) → (n_tokens) bool, True = keep. A custom rule has this type.
Keep = Callable[[float, np.ndarray, PackedBatch], np.ndarray]


def above(value: float, scores: np.ndarray, batch: PackedBatch) -> np.ndarray:
    """Tokens whose score is larger than the threshold `value` (LTP eq. 3.8; MP eq. 10 as intended)."""
    return scores > value


def top_share(value: float, scores: np.ndarray, batch: PackedBatch) -> np.ndarray:
    """The best tokens; their number is the share `value` of the text's length before pruning, rounded (SpAtten)."""
    return rank_in_sequence(scores, batch) < np.repeat(np.rint(value * batch.original), batch.lengths)


def top_count(value: float, scores: np.ndarray, batch: PackedBatch) -> np.ndarray:
    """The `value` best tokens of each sequence, for any length (PoWER-BERT, Length-Adaptive Transformer)."""
    return rank_in_sequence(scores, batch) < value


KINDS: Mapping[str, Keep] = {"threshold": above, "share": top_share, "count": top_count}


@dataclass(frozen=True, eq=False)
class TokenRule:
    """Which tokens each layer keeps. The first token of a sequence is always kept: `PackedBatch` ensures it."""

    keep: Keep
    values: np.ndarray  # (L) float64, one for each layer in the unit of `keep`; NaN = the layer removes no token
    score: str = RECEIVED
    scale: str = "relative"  # of thresholds, a key of SCALES
    vocabulary: np.ndarray | None = None  # (n_vocabulary) bool: entries that are read at all; None = all of them

    @cached_property
    def key(self) -> Hashable:
        """Equal for rules that prune in the same way."""
        read = None if self.vocabulary is None else self.vocabulary.tobytes()
        return self.keep, self.values.tobytes(), self.score, self.scale, read

    def prunes(self, layer: int) -> bool:
        """Whether layer 1 … L may remove tokens."""
        value = self.values[layer - 1]
        return not (np.isnan(value) or (self.keep is above and value <= 0))  # all scores are above 0

    def keep_mask(self, layer: int, scores: np.ndarray, batch: PackedBatch) -> np.ndarray:
        """Which tokens a layer keeps: relative scores (n_tokens) of a batch → (n_tokens) bool."""
        factor = SCALES[self.scale](batch.original)
        mask = self.keep(float(self.values[layer - 1]), scores * np.repeat(factor, batch.lengths), batch)
        return np.asarray(mask, dtype=bool)

    def reads(self, batch: PackedBatch) -> np.ndarray | None:
        """Which tokens of a batch of ids (n_tokens, 2) the vocabulary reads, (n_tokens) bool; None = all of them."""
        if self.vocabulary is None:
            return None
        ids = batch.states[:, 0]
        return self.vocabulary[np.asarray(ids.cpu() if hasattr(ids, "cpu") else ids)]  # in training on a GPU: a tensor


def scaled(rule: TokenRule | None, factor: float) -> TokenRule | None:
    """The rule with its thresholds times `factor`: above 1 it prunes harder; at 0 it prunes nothing (None).

    Tokens outside the vocabulary are removed at any factor above 0. ValueError for a rule without thresholds if the
    factor is neither 0 nor 1.
    """
    if rule is None or factor == 0:
        return None
    if factor == 1:
        return rule
    if rule.keep is not above:
        raise ValueError("only thresholds can be scaled; a schedule is on (1) or off (0)")
    return replace(rule, values=rule.values * factor)


def rank_in_sequence(scores: np.ndarray, batch: PackedBatch) -> np.ndarray:
    """0 for each sequence's first token, then 1, 2, … by falling score, earlier tokens first: (n_tokens) int64."""
    slots = padded_slots(batch.lengths)
    grid = np.full((batch.n_seqs, int(batch.lengths.max())), np.inf)  # padding comes last
    grid.ravel()[slots] = -scores
    grid[:, 0] = -np.inf
    ranks = np.empty(grid.shape, dtype=np.int64)
    # Sorting row by row is several times as fast as one sort of all tokens by sequence and score.
    np.put_along_axis(ranks, np.argsort(grid, axis=1, kind="stable"), np.arange(grid.shape[1])[None], axis=1)
    placed: np.ndarray = ranks.ravel()[slots]
    return placed


def linear_schedule(final: float, n_layers: int) -> np.ndarray:
    """θ·l/L for l = 1 … L (LTP, MP; LTP's code counts l from 0)."""
    return final * np.arange(1, n_layers + 1) / n_layers


def spatten_schedule(final: float, n_layers: int) -> np.ndarray:
    """Shares to keep: all (NaN) in the first max(3, ⌈0.15 L⌉) layers, then linearly down to `final` at layer L."""
    first = min(max(3, int(np.ceil(0.15 * n_layers))), n_layers)
    shares = np.full(n_layers, np.nan)
    falling = 1 + (final - 1) * np.arange(1, n_layers - first + 1) / max(n_layers - first, 1)
    shares[first:] = np.maximum(falling, 0.01)
    return shares


def geometric_schedule(first: float, final: float, n_layers: int) -> np.ndarray:
    """Geometric from `first` at layer 1 to `final` > 0 at layer L; PoWER-BERT's learned counts have this shape."""
    return np.geomspace(first, final, n_layers)


def only_first(kind: str, scale: str, value: float, max_length: int) -> bool:
    """Whether a value always reduces texts of up to `max_length` tokens to their first token, for any scores.

    A token's score is at most n: all the attention of a text of n tokens.
    """
    if kind == "threshold":
        lengths = np.arange(1, max_length + 1)
        return bool(value >= (lengths * SCALES[scale](lengths)).max())
    return bool((np.rint(value * max_length) if kind == "share" else value) <= 1)


def without_repeats(shares: np.ndarray) -> np.ndarray:
    """Shares (L) with NaN where the layer before has the same share: no token is removed, and no score needed."""
    return np.where(shares == np.concatenate([[1.0], shares[:-1]]), np.nan, shares)


def rescale(values: np.ndarray | float, source: str, target: str, length: int) -> np.ndarray:
    """Converts thresholds between the scales of two papers, for texts of `length` tokens."""
    n = np.array([length])
    return np.asarray(values) * SCALES[target](n) / SCALES[source](n)


def one_by_one(
    rule: Callable[[int, np.ndarray, int], np.ndarray],
) -> Callable[[float, np.ndarray, PackedBatch], np.ndarray]:
    """A `Keep` from a function of one text: (layer, scores (n), number of tokens before pruning) → (n) bool.

    Set the `values` of the `TokenRule` to 1 … L: they pass the layer to the function.
    """

    def keep(value: float, scores: np.ndarray, batch: PackedBatch) -> np.ndarray:
        edges = batch.cu_seqlens
        parts: Sequence[np.ndarray] = [
            rule(int(value), scores[edges[i] : edges[i + 1]], int(batch.original[i])) for i in range(batch.n_seqs)
        ]
        return np.concatenate(parts)

    return keep
