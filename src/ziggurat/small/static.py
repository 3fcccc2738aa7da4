"""The smallest first tier: a table row for each hashed n-gram of a text, summed. No torch.

Rows hold whole numbers, so their sum is exact in any order: this file, which is the specification, and the compiled
core (`engine.static_backend`) give the same bits, whatever else is in the batch.

Hashed n-grams of word pieces and of words, from token ids alone: what the static tier reads. No torch.

Of a text's pieces (special tokens aside) the features are

- every piece, and every two neighbours;
- every word of several pieces, and every two neighbouring words of which one at least has several: of other words the
  pieces have said it already.

A word is a piece that starts one, with the pieces behind it that continue it. Neighbours stand in one segment with no
special token between them. Segments have features of their own, so that the two texts of a pair are told apart.
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
    """The bucket of each feature of n texts, (n_features) int64 below `n_buckets`, and how many each text has, (n).

    `tokens` (n_tokens, 2) int64 are token and segment ids, `cu_seqlens` (n + 1) int64 the texts' edges, `kinds`
    (vocabulary) uint8 as `piece_kinds` gives them, `n_buckets` a power of two. The features of a text are behind one
    another, in no order that means anything. ValueError for ids out of range or edges that do not fit.
    """
    check_texts(tokens, cu_seqlens, len(kinds))
    text = np.repeat(np.arange(len(cu_seqlens) - 1), np.diff(cu_seqlens))
    kind = kinds[tokens[:, 0]]
    fresh = np.ones(len(tokens), dtype=bool)  # has no left neighbour
    fresh[1:] = (kind[:-1] == SPECIAL) | (np.diff(text) != 0) | (np.diff(tokens[:, 1]) != 0)
    read = kind != SPECIAL
    text, kind, fresh, tokens = text[read], kind[read], fresh[read], tokens[read]
    pieces = (tokens[:, 1].astype(np.uint64) << _HALF) + tokens[:, 0].astype(np.uint64)
    starts = np.flatnonzero((kind != CONTINUES) | fresh)
    lengths = np.diff(np.append(starts, len(pieces)))
    words = _words(pieces, starts, lengths)
    several = lengths > 1
    joined = ~fresh[starts]  # to the word before
    joined[1:] &= several[1:] | several[:-1]
    seconds, joined_words = np.flatnonzero(~fresh), np.flatnonzero(joined)
    hashes = [
        _mixed(pieces),
        _mixed(_mixed(pieces[seconds - 1]) + pieces[seconds]),
        _mixed(words[several]),
        _mixed(_mixed(words[joined_words - 1]) + words[joined_words]),
    ]
    owners = np.concatenate([text, text[seconds], text[starts[several]], text[starts[joined_words]]])
    order = np.argsort(owners, kind="stable")
    buckets = (np.concatenate(hashes)[order] >> np.uint64(65 - int(n_buckets).bit_length())).astype(np.int64)
    return buckets, np.bincount(owners, minlength=len(cu_seqlens) - 1)


def _words(pieces: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """A number for each word from those of its pieces, in their order."""
    words = pieces[starts] + _E  # so that a word is not taken for its piece
    longer = np.arange(len(starts))
    for place in range(1, int(lengths.max(initial=0))):
        longer = longer[lengths[longer] > place]
        words[longer] = _mixed(words[longer]) + pieces[starts[longer] + place]
    return words


def _mixed(numbers: np.ndarray) -> np.ndarray:
    """A hash of each number, uint64, whose upper bits are the good ones."""
    spread = numbers * _GOLDEN
    return (spread ^ (spread >> _HALF)) * _PI


def check_texts(tokens: np.ndarray, cu_seqlens: np.ndarray, vocabulary: int) -> None:
    """ValueError unless these are texts of this vocabulary, as `features` takes them."""
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


FORMAT_VERSION = 1  # of the file; another way to hash is another version
FEATURES_PER_TOKEN = 4  # at most: a piece, two neighbours, a word and two neighbouring words may end with a token
LARGEST = 32767  # of the numbers in a row; -LARGEST is the smallest


@dataclass(frozen=True, eq=False)
class StaticTier:
    """What a static tier has learned; ValueError where its parts do not fit together."""

    weights: np.ndarray  # (n_buckets, n_classes) int16; n_buckets is a power of two, 2 … 2^30
    scales: np.ndarray  # (n_classes) float32, above 0: what a 1 in `weights` stands for
    bias: np.ndarray  # (n_classes) float32
    kinds: np.ndarray  # (vocabulary) uint8, see `data.pieces`

    def __post_init__(self) -> None:
        n_buckets, n_classes = self.weights.shape if self.weights.ndim == 2 else (0, 0)
        _demand(self.weights.dtype == np.int16 and n_classes >= 1, "weights: int16, a column for each class")
        _demand(2 <= n_buckets <= 2**30 and not n_buckets & (n_buckets - 1), "weights: a power of two of rows")
        for name, values in (("scales", self.scales), ("bias", self.bias)):
            _demand(values.dtype == np.float32 and values.shape == (n_classes,), f"{name}: float32, one for each class")
            _demand(bool(np.isfinite(values).all()), f"{name}: finite")
        _demand(bool((self.scales > 0).all()), "scales: above 0")
        _demand(self.kinds.dtype == np.uint8 and self.kinds.ndim == 1 and len(self.kinds) > 0, "kinds: uint8")
        _demand(int(self.kinds.max()) <= SPECIAL, "kinds: 0, 1 or 2")

    @property
    def n_ids(self) -> int:
        """Token ids that it knows."""
        return len(self.kinds)

    @property
    def n_classes(self) -> int:
        """Classes that it tells apart."""
        return int(self.weights.shape[1])

    def logits(self, tokens: np.ndarray, cu_seqlens: np.ndarray) -> np.ndarray:
        """What it says of n texts: (n_tokens, 2) int64, token and segment ids, and (n + 1) int64 → (n, n_classes).

        The sum of the features' weights over the root of their number, plus the bias, float32; of a text without
        features the bias. ValueError for ids or edges that do not fit, see `encoder.ngrams.features`.
        """
        buckets, counts = features(tokens, cu_seqlens, self.kinds, len(self.weights))
        sums = np.concatenate([np.zeros((1, self.n_classes), dtype=np.int64), np.cumsum(self.weights[buckets], axis=0)])
        edges = cumulate(counts)
        total = (sums[edges[1:]] - sums[edges[:-1]]) * self.scales.astype(np.float64)
        said: np.ndarray = total / np.sqrt(np.maximum(counts, 1))[:, None] + self.bias
        return said.astype(np.float32)

    def flops(self, lengths: np.ndarray) -> np.ndarray:
        """At most so many for texts of these lengths: (n) → (n) int64."""
        return np.asarray(static_flops(FEATURES_PER_TOKEN * lengths.astype(np.int64), self.n_classes))

    def save(self, path: Path) -> None:
        """Writes the tier as one safetensors file."""
        tensors = {"weights": self.weights, "scales": self.scales, "bias": self.bias, "kinds": self.kinds}
        save_tier(path, "static", FORMAT_VERSION, tensors)


def load_static_tier(path: Path) -> StaticTier:
    """A tier from its file; UserError if it is missing, broken, or newer."""
    return static_tier_of(read_tensors(path), path)


def static_tier_of(file: TensorFile, path: Path) -> StaticTier:
    """A tier from the tensors of the file that was at `path`; UserError if they are no tier's, or newer."""
    return tier_of(file, path, "static", FORMAT_VERSION, StaticTier)


def static_flops(n_features: int | np.ndarray, n_classes: int) -> int | np.ndarray:
    """FLOPs of an answer from so many features: 2 for each of them and class. Any shape of counts."""
    return 2 * n_features * n_classes


def _demand(holds: bool, what: str) -> None:
    if not holds:
        raise ValueError(f"static tier: {what}")
