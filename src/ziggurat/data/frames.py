"""The special tokens that a tokenizer puts around texts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise, repeat
from pathlib import Path
from typing import Any

import numpy as np

from ziggurat.cached import cached_property
from ziggurat.data.packing import cumulate
from ziggurat.errors import UserError


@dataclass(frozen=True, eq=False)
class Frame:
    """The special tokens around a text, or around and between the two texts of a pair."""

    blocks: list[np.ndarray]  # (sides + 1) arrays of (any number, 2): before the first side, …, after the last
    segments: list[int]  # (sides): the segment id of each side's own tokens

    @cached_property
    def size(self) -> int:
        """How many special tokens there are."""
        return sum(map(len, self.blocks))

    def around(self, sides: Sequence[Sequence[Sequence[int]]]) -> list[np.ndarray]:
        """Token ids of n texts, for each side → n arrays (length_i, 2)."""
        lengths = np.array([[len(ids) for ids in side] for side in sides], dtype=np.int64)
        edges = cumulate(lengths.sum(axis=0) + self.size)
        table = np.empty((edges[-1], 2), dtype=np.int64)
        parts: list[Iterable[Sequence[int]]] = [repeat(self._specials[0])]  # of each text in turn
        for side, special in zip(sides, self._specials[1:], strict=True):
            parts += [side, repeat(special)]
        ids = chain.from_iterable(chain.from_iterable(zip(*parts, strict=False)))
        table[:, 0] = np.fromiter(ids, dtype=np.int64, count=len(table))
        table[:, 1] = self._segments_of(lengths)
        return [table[start:stop] for start, stop in pairwise(edges.tolist())]

    @cached_property
    def _specials(self) -> list[list[int]]:
        """Each block's token ids."""
        return [block[:, 0].tolist() for block in self.blocks]

    @cached_property
    def _pattern(self) -> tuple[np.ndarray, np.ndarray]:
        """Segments of a text's parts (special tokens one by one, each side whole), and which parts are sides."""
        segments = [self.blocks[0][:, 1]]
        for side, block in zip(self.segments, self.blocks[1:], strict=True):
            segments += [np.array([side]), block[:, 1]]
        before = np.cumsum(list(map(len, segments)))
        return np.concatenate(segments), before[:-1:2]

    def _segments_of(self, lengths: np.ndarray) -> np.ndarray | int:
        """Segment ids of texts behind one another, of lengths (sides, n): (n_tokens), or one for all."""
        segments, own = self._pattern
        if not segments.any():
            return 0
        n = lengths.shape[1]
        counts = np.ones((n, len(segments)), dtype=np.int64)
        counts[:, own] = lengths.T
        return np.repeat(np.tile(segments, n), counts.ravel())


def frame_of(tokenizer: Any, path: Path, sides: int) -> Frame:
    """What the tokenizer puts around a text (`sides` 1) or a pair (2), read off an example.

    UserError where nothing stands before the text.
    """
    example = tokenizer.encode(*["a"] * sides)
    table = np.array([example.ids, example.type_ids], dtype=np.int64).T
    owners = example.sequence_ids  # per token: which side it comes from, None = special
    if any(side not in owners for side in range(sides)) or owners[0] is not None:
        raise UserError(f"{path}: puts no special token before the text, which a classifier reads; use a BERT-like one")
    starts = [owners.index(side) for side in range(sides)]
    ends = [len(owners) - owners[::-1].index(side) for side in range(sides)]
    blocks = [table[end:start] for end, start in zip([0, *ends], [*starts, len(owners)], strict=True)]
    return Frame(blocks, [int(table[start, 1]) for start in starts])
