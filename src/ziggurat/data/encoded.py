"""Token ids of several inputs, and batches of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from ziggurat.data.packing import PackedBatch, cumulate, pack, place_in_sequence
from ziggurat.system import cached_property


@dataclass(frozen=True, eq=False)
class Encoded:
    """Token ids of n inputs. An input has one sequence, or several: the windows of a long context."""

    tokens: list[np.ndarray]  # (s) int64 arrays (length, 2): token id, segment id; of windows (length, 3), see there
    truncated: np.ndarray  # (n) bool: the text was longer than the model reads
    texts: Sequence[str] | None = None  # (n) what was read, for a tier with a tokenizer of its own; None = unknown
    pairs: Sequence[str] | None = None  # (n) second texts; None = single texts
    owners: np.ndarray | None = None  # (s) int64, rising: which input each sequence is of; None = one each, s = n

    @cached_property
    def lengths(self) -> np.ndarray:
        """Tokens of each sequence, special ones included, (s) int64."""
        return np.array([len(tokens) for tokens in self.tokens], dtype=np.int64)

    @cached_property
    def edges(self) -> np.ndarray:
        """Input i owns sequences edges[i] … edges[i + 1] - 1: (n + 1) int64."""
        if self.owners is None:
            return np.arange(len(self) + 1)
        return cumulate(np.bincount(self.owners, minlength=len(self)))

    @cached_property
    def read(self) -> np.ndarray:
        """Tokens of all of an input's sequences, (n) int64."""
        return self.lengths if self.owners is None else np.add.reduceat(self.lengths, self.edges[:-1])

    @cached_property
    def longest(self) -> np.ndarray:
        """Tokens of each input's longest sequence, (n) int64."""
        return self.lengths if self.owners is None else np.maximum.reduceat(self.lengths, self.edges[:-1])

    def __len__(self) -> int:
        return len(self.truncated)

    def take(self, rows: np.ndarray) -> Self:
        """Only these inputs, (m) indices, in this order."""
        texts, pairs = (None if side is None else [side[row] for row in rows] for side in (self.texts, self.pairs))
        owners = None if self.owners is None else np.repeat(np.arange(len(rows)), np.diff(self.edges)[rows])
        tokens = [self.tokens[sequence] for sequence in self.sequences_of(rows)]
        return replace(self, tokens=tokens, truncated=self.truncated[rows], texts=texts, pairs=pairs, owners=owners)

    def by_sequence(self) -> Encoded:
        """The same sequences, each as a separate input."""
        return self if self.owners is None else Encoded(self.tokens, self.truncated[self.owners])

    def summed(self, values: np.ndarray) -> np.ndarray:
        """Sums over the sequences of each input: (s, …) → (n, …)."""
        if self.owners is None or not len(self):
            return values
        found: np.ndarray = np.add.reduceat(values, self.edges[:-1], axis=0)
        return found

    def sequences_of(self, rows: np.ndarray) -> np.ndarray:
        """Indices of the sequences of these inputs, (m) indices, input by input."""
        if self.owners is None:
            return rows
        starts, counts = self.edges[:-1][rows], np.diff(self.edges)[rows]
        found: np.ndarray = np.repeat(starts, counts) + place_in_sequence(counts)
        return found


def pack_rows(encoded: Encoded, rows: np.ndarray) -> PackedBatch:
    """All sequences of the inputs with these indices, (m ≥ 1) int, as one batch; `rows` say which input each is of."""
    rows = np.asarray(rows, dtype=np.int64)
    if encoded.owners is None:
        return pack([encoded.tokens[row] for row in rows], rows=rows)
    sequences = encoded.sequences_of(rows)
    return pack([encoded.tokens[sequence] for sequence in sequences], rows=encoded.owners[sequences])


def join_encoded(parts: Sequence[Encoded]) -> Encoded:
    """Several inputs' tokens as one, in their order; texts only where all have them."""
    if len(parts) == 1:
        return parts[0]
    texts, pairs = (
        None if any(side is None for side in sides) else [text for side in sides for text in side or ()]
        for sides in ([part.texts for part in parts], [part.pairs for part in parts])
    )
    owners = None
    if any(part.owners is not None for part in parts):
        starts = cumulate(np.array([len(part) for part in parts]))
        sides = zip(parts, starts[:-1].tolist(), strict=True)
        owners = np.concatenate(
            [start + (np.arange(len(part)) if part.owners is None else part.owners) for part, start in sides]
        )
    tokens = [sequence for part in parts for sequence in part.tokens]
    return Encoded(tokens, np.concatenate([part.truncated for part in parts]), texts, pairs, owners)
