"""Pruning rules: which tokens stay at a layer, from a score per token. They return masks; nothing is shortened here.

The unit of every score is *mean received attention*: within a sequence the live tokens' mean is 1, whatever its length,
padding or layer. LTP's and MP's own scales (LTP eq. 3.7, MP eq. 7) are factors on it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ziggurat.data.packing import PackedBatch, padded_slots
from ziggurat.system import cached_property

LTP_PADDED = 128  # the length to which LTP's released scripts pad, and by which its code divides

# A token's score in a paper's unit is its relative score times this, for texts of n tokens before any pruning.
SCALES: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "relative": lambda n: np.ones(len(n)),
    "paper": lambda n: 1 / n,  # as LTP eq. 3.7 and MP eq. 7 are printed: long inputs are pruned harder
    "ltp-code": lambda n: np.full(len(n), 1 / LTP_PADDED),
}
RECEIVED = "received"  # attention received from all live tokens, mean over heads (LTP, MP, SpAtten, LAT)
FROM_OTHERS = "received-from-others"  # the same without what a token gives itself (PoWER-BERT)
PREDICTED = "predicted"  # a learned guess at what later layers will attend to (after ToP)
SCORES = (RECEIVED, FROM_OTHERS, PREDICTED)

# (value of this layer, scores (n_tokens), batch) → (n_tokens) bool, True = stays. A user's own rule is one of these.
Keep = Callable[[float, np.ndarray, PackedBatch], np.ndarray]


def above(value: float, scores: np.ndarray, batch: PackedBatch) -> np.ndarray:
    """Tokens whose score is larger than the threshold `value` (LTP eq. 3.8; MP eq. 10 as it is meant)."""
    return scores > value


def top_share(value: float, scores: np.ndarray, batch: PackedBatch) -> np.ndarray:
    """The best tokens, as many as the share `value` of the text's length before any pruning, rounded (SpAtten)."""
    return rank_in_sequence(scores, batch) < np.repeat(np.rint(value * batch.original), batch.lengths)


def top_count(value: float, scores: np.ndarray, batch: PackedBatch) -> np.ndarray:
    """The `value` best tokens of every sequence, whatever its length (PoWER-BERT, Length-Adaptive Transformer)."""
    return rank_in_sequence(scores, batch) < value


KINDS: Mapping[str, Keep] = {"threshold": above, "share": top_share, "count": top_count}


@dataclass(frozen=True, eq=False)
class TokenRule:
    """Which tokens stay, layer by layer. The first token of a sequence always does: `PackedBatch` sees to it."""

    keep: Keep
    values: np.ndarray  # (L) float64, one for each layer in the unit of `keep`; NaN = nobody leaves there
    score: str = RECEIVED
    scale: str = "relative"  # of thresholds, a key of SCALES
    vocabulary: np.ndarray | None = None  # (n_vocabulary) bool: entries that are read at all; None = every one

    @cached_property
    def key(self) -> Hashable:
        """Equal for rules that prune alike."""
        read = None if self.vocabulary is None else self.vocabulary.tobytes()
        return self.keep, self.values.tobytes(), self.score, self.scale, read

    def prunes(self, layer: int) -> bool:
        """Whether tokens may leave at layer 1 … L."""
        value = self.values[layer - 1]
        return not (np.isnan(value) or (self.keep is above and value <= 0))  # every score is above 0

    def stays(self, layer: int, scores: np.ndarray, batch: PackedBatch) -> np.ndarray:
        """Relative scores (n_tokens) of a batch at a layer → (n_tokens) bool."""
        factor = SCALES[self.scale](batch.original)
        kept = self.keep(float(self.values[layer - 1]), scores * np.repeat(factor, batch.lengths), batch)
        return np.asarray(kept, dtype=bool)

    def reads(self, batch: PackedBatch) -> np.ndarray | None:
        """Which tokens of ids (n_tokens, 2) are read at all, (n_tokens) bool; None = all of them."""
        if self.vocabulary is None:
            return None
        ids = batch.states[:, 0]
        return self.vocabulary[np.asarray(ids.cpu() if hasattr(ids, "cpu") else ids)]  # in training on a GPU: a tensor


def scaled(rule: TokenRule | None, factor: float) -> TokenRule | None:
    """The rule pruning harder (factor above 1) or less; 0 prunes nothing. ValueError unless it has thresholds, or 0, 1.

    What the vocabulary leaves out stays out at every factor above 0.
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
    # Row by row, and not one sort of all tokens by sequence and score: that takes several times as long.
    np.put_along_axis(ranks, np.argsort(grid, axis=1, kind="stable"), np.arange(grid.shape[1])[None], axis=1)
    placed: np.ndarray = ranks.ravel()[slots]
    return placed


def linear_schedule(final: float, n_layers: int) -> np.ndarray:
    """θ·l/L for l = 1 … L (LTP, MP; LTP's code counts l from 0)."""
    return final * np.arange(1, n_layers + 1) / n_layers


def spatten_schedule(final: float, n_layers: int) -> np.ndarray:
    """Shares that stay: the first max(3, ⌈0.15 L⌉) layers keep all (NaN), then down in a line to `final` at layer L."""
    first = min(max(3, int(np.ceil(0.15 * n_layers))), n_layers)
    shares = np.full(n_layers, np.nan)
    falling = 1 + (final - 1) * np.arange(1, n_layers - first + 1) / max(n_layers - first, 1)
    shares[first:] = np.maximum(falling, 0.01)
    return shares


def geometric_schedule(first: float, final: float, n_layers: int) -> np.ndarray:
    """From `first` at layer 1 to `final` > 0 at layer L by the same factor; PoWER-BERT's learned counts look so."""
    return np.geomspace(first, final, n_layers)


def only_first(kind: str, scale: str, value: float, max_length: int) -> bool:
    """Whether a number leaves every text of up to `max_length` tokens nothing but its first token, whatever its scores.

    A token's score is at most n: all the attention of a text of n tokens.
    """
    if kind == "threshold":
        lengths = np.arange(1, max_length + 1)
        return bool(value >= (lengths * SCALES[scale](lengths)).max())
    return bool((np.rint(value * max_length) if kind == "share" else value) <= 1)


def without_repeats(shares: np.ndarray) -> np.ndarray:
    """Shares (L) with NaN where the layer before keeps as much: nothing leaves there, and no score is needed."""
    return np.where(shares == np.concatenate([[1.0], shares[:-1]]), np.nan, shares)


def rescale(values: np.ndarray | float, source: str, target: str, length: int) -> np.ndarray:
    """Thresholds of one paper's scale in another's, for texts of `length` tokens."""
    n = np.array([length])
    return np.asarray(values) * SCALES[target](n) / SCALES[source](n)


def one_by_one(
    rule: Callable[[int, np.ndarray, int], np.ndarray],
) -> Callable[[float, np.ndarray, PackedBatch], np.ndarray]:
    """A `Keep` from a function of one text: (layer, scores (n), tokens before any pruning) → (n) bool.

    Give the rule's `values` as 1 … L, so that the function learns the layer.
    """

    def keep(value: float, scores: np.ndarray, batch: PackedBatch) -> np.ndarray:
        edges = batch.cu_seqlens
        parts: Sequence[np.ndarray] = [
            rule(int(value), scores[edges[i] : edges[i + 1]], int(batch.original[i])) for i in range(batch.n_seqs)
        ]
        return np.concatenate(parts)

    return keep
