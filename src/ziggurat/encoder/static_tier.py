"""The smallest first tier: a table row for each hashed n-gram of a text, summed. No torch.

Rows hold whole numbers, so their sum is exact in any order: this file, which is the specification, and the compiled
core (`engine.static_backend`) give the same bits, whatever else is in the batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ziggurat.data.packing import cumulate
from ziggurat.data.pieces import SPECIAL
from ziggurat.encoder.mapped import TensorFile, read_tensors
from ziggurat.encoder.ngrams import features
from ziggurat.encoder.tier_file import save_tier, tier_of

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
