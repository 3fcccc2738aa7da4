"""The nearest word pieces of each word piece, by the embeddings of a model."""

from __future__ import annotations

import numpy as np

from ziggurat.data.pieces import SPECIAL

_ROWS = 512  # whose similarities are in memory at a time: with 30,000 others 60 MB
_GROUP = 64  # similarities of which the largest is found before the others are looked at


def neighbours(embeddings: np.ndarray, kinds: np.ndarray, count: int, fixed: np.ndarray | None = None) -> np.ndarray:
    """For each entry of a vocabulary the `count` others with the largest cosine, nearest first, (V, count) int32.

    `embeddings` (V, d) are a model's word-piece embeddings, `kinds` (V) uint8 as `TextTokenizer.piece_kinds` gives
    them, `fixed` (V) bool the entries that nothing may replace, as `TextTokenizer.no_words` (punctuation). What starts
    a word has neighbours that start one, what continues a word those that continue one. A special or fixed entry is
    its own neighbour and nobody else's; an entry with fewer than `count` others of its kind is its own for the rest.

    Raises:
        ValueError: the arguments do not fit together, or an embedding that is needed is not finite.
    """
    size = len(kinds)
    if count < 1:
        raise ValueError(f"count {count}: must be at least 1")
    if embeddings.ndim != 2 or len(embeddings) != size:
        raise ValueError(f"embeddings: must be ({size}, d), as there are {size} kinds, not {embeddings.shape}")
    if fixed is not None and fixed.shape != (size,):
        raise ValueError(f"fixed: must be ({size},), not {fixed.shape}")
    free = kinds != SPECIAL if fixed is None else (kinds != SPECIAL) & ~fixed
    table = np.repeat(np.arange(size, dtype=np.int32)[:, None], count, axis=1)
    for kind in np.unique(kinds[free]):
        members = np.flatnonzero(free & (kinds == kind))
        most = min(count, len(members) - 1)
        if most:
            table[members, :most] = members[_nearest(_unit(embeddings[members]), most)]
    return table


def _unit(vectors: np.ndarray) -> np.ndarray:
    """The same directions with length 1, float32; what has none stays 0."""
    vectors = vectors.astype(np.float32)
    lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
    if not np.isfinite(lengths).all():
        raise ValueError("embeddings: must be finite")
    return vectors / np.maximum(lengths, np.finfo(np.float32).tiny)[:, None]


def _nearest(vectors: np.ndarray, count: int) -> np.ndarray:
    """The `count` < m others with the largest inner product with each of m vectors, falling, (m, count) int64.

    The largest `count` numbers lie in the `count` groups with the largest maxima. Maxima of groups take one pass over
    the similarities; partitioning all of them would take longer than the product that makes them.
    """
    size = len(vectors)
    n_groups = -(-size // _GROUP)
    wide = np.zeros((n_groups * _GROUP, vectors.shape[1]), dtype=np.float32)
    wide[:size] = vectors
    found = np.empty((size, count), dtype=np.int64)
    for start in range(0, size, _ROWS):
        rows = np.arange(start, min(start + _ROWS, size))
        similar = vectors[rows] @ wide.T
        similar[:, size:] = -np.inf
        similar[rows - start, rows] = -np.inf
        maxima = similar.reshape(len(rows), _GROUP, n_groups).max(axis=1)  # group g: columns g, g + n_groups, …
        groups = _largest(maxima, min(count, n_groups))
        columns = (groups[:, :, None] + np.arange(_GROUP) * n_groups).reshape(len(rows), -1)
        among = np.take_along_axis(similar, columns, axis=1)
        best = _largest(among, count)
        values = np.take_along_axis(among, best, axis=1)
        best = np.take_along_axis(best, np.argsort(-values, axis=1, kind="stable"), axis=1)
        found[rows] = np.take_along_axis(columns, best, axis=1)
    return found


def _largest(values: np.ndarray, count: int) -> np.ndarray:
    """Where the `count` largest of each row are, in no order, (rows, count)."""
    return np.argpartition(values, values.shape[1] - count, axis=1)[:, values.shape[1] - count :]
