"""The smallest first tier: the sum of one table row for each hashed n-gram of a text. No torch.

Rows are integers, so sums are exact in any order. This file is the specification; the compiled core gives the same bits
for any batch.

N-grams are computed from token ids. The features of a text, special tokens excluded, are

- every piece, and every pair of adjacent pieces;
- every word of several pieces, and every pair of adjacent words of which at least one has several pieces. Other words
  equal one piece, so their features exist already.

A word is a piece that starts a word, with the following pieces that continue it. Adjacent means in the same segment,
without a special token in between. Features of the two segments differ, which distinguishes the texts of a pair.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ziggurat.data.packing import cumulate
from ziggurat.data.tokenizer import CONTINUES, SPECIAL
from ziggurat.encoder.weights import TensorFile, read_tensors, save_tier, tier_of

_GOLDEN, _PI, _E = (np.uint64(digits) for digits in (0x9E3779B97F4A7C15, 0x243F6A8885A308D3, 0xB7E151628AED2A6B))
_HALF = np.uint64(32)


def features(
    tokens: np.ndarray, cu_seqlens: np.ndarray, kinds: np.ndarray, n_buckets: int
) -> tuple[np.ndarray, np.ndarray]:
    """The bucket of each feature of n texts, (n_features) int64 below `n_buckets`, and the number per text, (n).

    `tokens` (n_tokens, 2) int64 are token and segment ids, `cu_seqlens` (n + 1) int64 the texts' edges, `kinds`
    (vocabulary) uint8 the result of `piece_kinds`, `n_buckets` a power of two. Features of a text are contiguous, in
    arbitrary order. ValueError for invalid ids or edges.
    """
    check_texts(tokens, cu_seqlens, len(kinds))
    text = np.repeat(np.arange(len(cu_seqlens) - 1), np.diff(cu_seqlens))
    kind = kinds[tokens[:, 0]]
    fresh = np.ones(len(tokens), dtype=bool)  # True = no adjacent piece before
    fresh[1:] = (kind[:-1] == SPECIAL) | (np.diff(text) != 0) | (np.diff(tokens[:, 1]) != 0)
    read = kind != SPECIAL
    text, kind, fresh, tokens = text[read], kind[read], fresh[read], tokens[read]
    pieces = (tokens[:, 1].astype(np.uint64) << _HALF) + tokens[:, 0].astype(np.uint64)
    starts = np.flatnonzero((kind != CONTINUES) | fresh)
    lengths = np.diff(np.append(starts, len(pieces)))
    words = _words(pieces, starts, lengths)
    composed = lengths > 1
    joined = ~fresh[starts]  # forms a pair with the word before
    joined[1:] &= composed[1:] | composed[:-1]
    seconds, joined_words = np.flatnonzero(~fresh), np.flatnonzero(joined)
    hashes = [
        _mixed(pieces),
        _mixed(_mixed(pieces[seconds - 1]) + pieces[seconds]),
        _mixed(words[composed]),
        _mixed(_mixed(words[joined_words - 1]) + words[joined_words]),
    ]
    owners = np.concatenate([text, text[seconds], text[starts[composed]], text[starts[joined_words]]])
    order = np.argsort(owners, kind="stable")
    buckets = (np.concatenate(hashes)[order] >> np.uint64(65 - int(n_buckets).bit_length())).astype(np.int64)
    return buckets, np.bincount(owners, minlength=len(cu_seqlens) - 1)


def _words(pieces: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """A number for each word, from the numbers of its pieces, in order."""
    words = pieces[starts] + _E  # words must differ from single pieces
    longer = np.arange(len(starts))
    for index in range(1, int(lengths.max(initial=0))):
        longer = longer[lengths[longer] > index]
        words[longer] = _mixed(words[longer]) + pieces[starts[longer] + index]
    return words


def _mixed(numbers: np.ndarray) -> np.ndarray:
    """A hash of each number, uint64; use its upper bits."""
    spread = numbers * _GOLDEN
    return (spread ^ (spread >> _HALF)) * _PI


def check_texts(tokens: np.ndarray, cu_seqlens: np.ndarray, vocabulary: int) -> None:
    """ValueError unless `tokens` and `cu_seqlens` are valid arguments of `features` for this vocabulary size."""
    if tokens.dtype != np.int64 or tokens.ndim != 2 or tokens.shape[1] != 2:
        raise ValueError("tokens: must be int64 with two columns")
    if cu_seqlens.dtype != np.int64 or cu_seqlens.ndim != 1 or not len(cu_seqlens):
        raise ValueError("cu_seqlens: must be int64 with one axis of at least 1")
    if cu_seqlens[0] != 0 or cu_seqlens[-1] != len(tokens) or (np.diff(cu_seqlens) < 0).any():
        raise ValueError("cu_seqlens: must rise from 0 to the number of tokens")
    if len(tokens) and not (tokens[:, 0].min() >= 0 and tokens[:, 0].max() < vocabulary):
        raise ValueError(f"token id: must be at least 0 and below {vocabulary}")
    if len(tokens) and not (tokens[:, 1].min() >= 0 and tokens[:, 1].max() < 2**31):
        raise ValueError("segment id: must be at least 0 and below 2^31")


FORMAT_VERSION = 1  # of the file; a change of the hash is a new version
FEATURES_PER_TOKEN = 4  # at most: a piece, a pair of pieces, a word and a pair of words may end at a token
LARGEST = 32767  # weights are in -LARGEST … LARGEST


@dataclass(frozen=True, eq=False)
class StaticTier:
    """The weights of a static tier; ValueError if their shapes or types do not fit together."""

    weights: np.ndarray  # (n_buckets, n_classes) int16; n_buckets is a power of two, 2 … 2^30
    scales: np.ndarray  # (n_classes) float32, above 0: the value of 1 in `weights`
    bias: np.ndarray  # (n_classes) float32
    kinds: np.ndarray  # (vocabulary) uint8, see `TextTokenizer.piece_kinds`

    def __post_init__(self) -> None:
        n_buckets, n_classes = self.weights.shape if self.weights.ndim == 2 else (0, 0)
        _demand(self.weights.dtype == np.int16 and n_classes >= 2, "weights: int16, a column for each of ≥ 2 classes")
        _demand(2 <= n_buckets <= 2**30 and not n_buckets & (n_buckets - 1), "weights: a power of two of rows")
        for name, values in (("scales", self.scales), ("bias", self.bias)):
            _demand(values.dtype == np.float32 and values.shape == (n_classes,), f"{name}: float32, one for each class")
            _demand(bool(np.isfinite(values).all()), f"{name}: finite")
        _demand(bool((self.scales > 0).all()), "scales: above 0")
        _demand(self.kinds.dtype == np.uint8 and self.kinds.ndim == 1 and len(self.kinds) > 0, "kinds: uint8")
        _demand(int(self.kinds.max()) <= SPECIAL, "kinds: 0, 1 or 2")

    @property
    def n_ids(self) -> int:
        """Number of token ids."""
        return len(self.kinds)

    @property
    def n_classes(self) -> int:
        """Number of outputs."""
        return int(self.weights.shape[1])

    def logits(self, tokens: np.ndarray, cu_seqlens: np.ndarray) -> np.ndarray:
        """Logits of n texts: (n_tokens, 2) int64 token and segment ids, (n + 1) int64 edges → (n, n_classes) float32.

        The sum of the features' weights divided by the root of their number, plus the bias; without features, only the
        bias. ValueError for invalid ids or edges, see `features`.
        """
        buckets, counts = features(tokens, cu_seqlens, self.kinds, len(self.weights))
        sums = np.concatenate([np.zeros((1, self.n_classes), dtype=np.int64), np.cumsum(self.weights[buckets], axis=0)])
        edges = cumulate(counts)
        total = (sums[edges[1:]] - sums[edges[:-1]]) * self.scales.astype(np.float64)
        logits: np.ndarray = total / np.sqrt(np.maximum(counts, 1))[:, None] + self.bias
        return logits.astype(np.float32)

    def flops(self, lengths: np.ndarray) -> np.ndarray:
        """Upper bound of the FLOPs of texts of these lengths: (n) → (n) int64."""
        return np.asarray(static_flops(FEATURES_PER_TOKEN * lengths.astype(np.int64), self.n_classes))

    def save(self, path: Path) -> None:
        """Writes the tier as one safetensors file."""
        tensors = {"weights": self.weights, "scales": self.scales, "bias": self.bias, "kinds": self.kinds}
        save_tier(path, "static", FORMAT_VERSION, tensors)


def load_static_tier(path: Path) -> StaticTier:
    """Loads a tier; UserError if the file is missing, broken, or of a newer format."""
    return static_tier_of(read_tensors(path), path)


def static_tier_of(file: TensorFile, path: Path) -> StaticTier:
    """A tier from the tensors of the file at `path`; UserError if they are invalid, or of a newer format."""
    return tier_of(file, path, "static", FORMAT_VERSION, StaticTier)


def static_flops(n_features: int | np.ndarray, n_classes: int) -> int | np.ndarray:
    """FLOPs of an answer from `n_features` features (any shape): 2 per feature and class."""
    return 2 * n_features * n_classes


def _demand(holds: bool, wanted: str) -> None:
    if not holds:
        raise ValueError(f"static tier: {wanted}")
