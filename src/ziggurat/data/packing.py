"""PackedBatch, the only batch inside the library, and the only file that knows padding."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

Array = Any  # a numpy array or a torch tensor: this file indexes it and asks for nothing else


@dataclass(frozen=True)
class PackedBatch:
    """Token states of several sequences, concatenated without padding.

    Only `take_sequences` and `take_tokens` make batches smaller. The index arrays are numpy arrays on the host, for
    states on any device: their sizes are the shapes of the next computations.
    """

    states: Array  # (n_tokens, d); before the embedding layer (n_tokens, 2): token id and segment id
    cu_seqlens: np.ndarray  # (n_seqs + 1) int64: sequence i owns tokens cu_seqlens[i] … cu_seqlens[i + 1] - 1
    positions: np.ndarray  # (n_tokens) int64: where each surviving token stood in its text
    rows: np.ndarray  # (n_seqs) int64: which input each sequence is of, or one of its sequences
    original: np.ndarray  # (n_seqs) int64: how many tokens each sequence had before any was pruned

    @property
    def n_seqs(self) -> int:
        """Sequences in the batch."""
        return len(self.rows)

    @property
    def lengths(self) -> np.ndarray:
        """Live tokens of each sequence, (n_seqs) int64."""
        return np.diff(self.cu_seqlens)

    def with_states(self, states: Array) -> PackedBatch:
        """The same tokens in new states, (n_tokens, any width)."""
        return replace(self, states=states)

    def take_sequences(self, keep: np.ndarray) -> PackedBatch:
        """Only the sequences where `keep` (n_seqs, bool) is true, in their order."""
        if keep.all():
            return self
        tokens = np.flatnonzero(np.repeat(keep, self.lengths))
        cu_seqlens = cumulate(self.lengths[keep])
        return PackedBatch(
            self.states[tokens], cu_seqlens, self.positions[tokens], self.rows[keep], self.original[keep]
        )

    def take_tokens(self, keep: np.ndarray) -> PackedBatch:
        """Only the tokens where `keep` (n_tokens, bool) is true, in their order; every sequence keeps its first."""
        keep = keep.copy()
        keep[self.cu_seqlens[:-1]] = True
        if keep.all():
            return self
        tokens = np.flatnonzero(keep)
        lengths = np.add.reduceat(keep.astype(np.int64), self.cu_seqlens[:-1])
        return PackedBatch(self.states[tokens], cumulate(lengths), self.positions[tokens], self.rows, self.original)


def cumulate(lengths: np.ndarray) -> np.ndarray:
    """`cu_seqlens` of these lengths: (n_seqs) → (n_seqs + 1), starting with 0."""
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def pack(sequences: Sequence[np.ndarray], rows: np.ndarray | None = None) -> PackedBatch:
    """Sequences of shape (length_i ≥ 1, width) as one batch; `rows` defaults to 0 … n_seqs - 1."""
    lengths = np.array([len(sequence) for sequence in sequences], dtype=np.int64)
    if not len(lengths) or lengths.min() < 1:
        raise ValueError("a batch needs at least one sequence and every sequence at least one token")
    rows = np.arange(len(lengths)) if rows is None else rows
    states, cu_seqlens = np.concatenate(sequences), cumulate(lengths)
    return PackedBatch(states, cu_seqlens, _places(cu_seqlens, lengths), rows, lengths)


def join(
    batches: Sequence[PackedBatch], concatenated: Callable[[Sequence[Array]], Array] = np.concatenate
) -> PackedBatch:
    """Several batches as one, in their order; states are arrays of one width, put together by `concatenated`."""
    lengths = np.concatenate([batch.lengths for batch in batches])
    positions, rows, original = (
        np.concatenate([getattr(batch, name) for batch in batches]) for name in ("positions", "rows", "original")
    )
    states = concatenated([batch.states for batch in batches])
    return PackedBatch(states, cumulate(lengths), positions, rows, original)


def slots_in(batch: PackedBatch, live: PackedBatch) -> np.ndarray:
    """Index of each live token in the unpruned batch: (n_live) int64."""
    slots: np.ndarray = np.repeat(batch.cu_seqlens[:-1], live.lengths) + live.positions
    return slots


def place_in_sequence(lengths: np.ndarray) -> np.ndarray:
    """0 … length_i - 1 for each sequence, concatenated: (n_seqs) → (n_tokens)."""
    return _places(cumulate(lengths), lengths)


def _places(cu_seqlens: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    places: np.ndarray = np.arange(cu_seqlens[-1]) - np.repeat(cu_seqlens[:-1], lengths)
    return places


def padded_slots(lengths: np.ndarray) -> np.ndarray:
    """Index of each packed token in a flattened (n_seqs, longest) grid: (n_tokens) int64."""
    return place_in_sequence(lengths) + np.repeat(np.arange(len(lengths)) * lengths.max(), lengths)


MOST_TOKENS = 1 << 16  # of a batch of several inputs: 128 of 512 tokens, 8 of 8,192; memory grows with them


def by_length(lengths: np.ndarray, batch_size: int, counts: np.ndarray | None = None) -> Iterator[np.ndarray]:
    """Indices of each batch, longest inputs first: similar lengths share a batch, and the memory peak comes first.

    A batch has at most `batch_size` sequences, and at most `MOST_TOKENS` tokens if all were as long as its first, but
    at least one input. `counts` (n) are the sequences of each input, None = one each; `lengths` (n) are the tokens of
    each input's longest sequence.
    """
    order = np.argsort(-lengths, kind="stable")
    return _filled(order, counts, lambda first: min(batch_size, MOST_TOKENS // max(1, int(lengths[first]))))


def in_order(order: np.ndarray, batch_size: int, counts: np.ndarray | None = None) -> Iterator[np.ndarray]:
    """Indices of each batch, in order: at most `batch_size` sequences, at least one input; `counts` as above."""
    return _filled(order, counts, lambda first: batch_size)


def _filled(order: np.ndarray, counts: np.ndarray | None, most_of: Callable[[int], int]) -> Iterator[np.ndarray]:
    """`order` in batches; `most_of` gives the largest number of sequences from a batch's first input."""
    before = None if counts is None else np.cumsum(counts[order])
    start = 0
    while start < len(order):
        fitting = most_of(order[start])
        if before is None:
            stop = start + max(1, fitting)
        else:
            most = fitting + (before[start - 1] if start else 0)
            stop = max(start + 1, int(np.searchsorted(before, most, side="right")))
        yield order[start:stop]
        start = stop
