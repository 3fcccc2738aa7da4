"""The special tokens around texts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from ziggurat.data.packing import cumulate, place_in_sequence
from ziggurat.errors import UserError
from ziggurat.system import cached_property


@dataclass(frozen=True, eq=False)
class Frame:
    """The special tokens around a text, or around and between the two texts of a pair."""

    blocks: list[np.ndarray]  # (sides + 1) arrays of (any number, 2): before the first side, …, after the last
    segments: list[int]  # (sides): the segment id of each side's own tokens

    @cached_property
    def size(self) -> int:
        """Number of special tokens."""
        return sum(map(len, self.blocks))

    def around(self, sides: Sequence[Sequence[Sequence[int]]]) -> list[np.ndarray]:
        """Token ids of n texts, for each side → n arrays (length_i, 2)."""
        lengths = np.array([[len(ids) for ids in side] for side in sides], dtype=np.int64)
        flat = [
            np.fromiter(chain.from_iterable(side), dtype=np.int64, count=int(n))
            for side, n in zip(sides, lengths.sum(axis=1), strict=True)
        ]
        return self.around_flat(flat, lengths)

    def around_flat(self, sides: Sequence[np.ndarray], lengths: np.ndarray) -> list[np.ndarray]:
        """The same for concatenated texts: for each side ids (n_tokens), and lengths (sides, n)."""
        edges = cumulate(lengths.sum(axis=0) + self.size)
        table = np.empty((edges[-1], 2), dtype=np.int64)
        at = edges[:-1]  # where the next part of each text begins
        for place, block in enumerate(self.blocks):
            for offset, token in enumerate(block):
                table[at + offset] = token
            at = at + len(block)
            if place < len(sides):
                rows = np.repeat(at, lengths[place]) + place_in_sequence(lengths[place])
                table[rows, 0], table[rows, 1] = sides[place], self.segments[place]
                at = at + lengths[place]
        return [table[start:stop] for start, stop in pairwise(edges.tolist())]


def frame_of(tokenizer: Any, path: Path, sides: int) -> Frame:
    """The special tokens around a text (`sides` 1) or a pair (2), taken from an example.

    UserError if no special token precedes the text, or a special token has no id.
    """
    _refuse_unknown(tokenizer.post_processor, path)
    example = tokenizer.encode(*["a"] * sides)
    table = np.array([example.ids, example.type_ids], dtype=np.int64).T
    owners = example.sequence_ids  # per token: which side it comes from, None = special
    if any(side not in owners for side in range(sides)) or owners[0] is not None:
        raise UserError(f"{path}: puts no special token before the text, which a classifier reads; use a BERT-like one")
    starts = [owners.index(side) for side in range(sides)]
    ends = [len(owners) - owners[::-1].index(side) for side in range(sides)]
    blocks = [table[end:start] for end, start in zip([0, *ends], [*starts, len(owners)], strict=True)]
    return Frame(blocks, [int(table[start, 1]) for start in starts])


def _refuse_unknown(processor: Any, path: Path) -> None:
    """UserError for a template with a special token without an id: the library would panic."""
    state = {} if processor is None else json.loads(processor.__getstate__())
    for part in (state, *state.get("processors", ())):
        if part.get("type") == "TemplateProcessing":
            pieces = [piece["SpecialToken"]["id"] for piece in part["single"] + part["pair"] if "SpecialToken" in piece]
            if unknown := sorted(set(pieces) - set(part["special_tokens"])):
                raise UserError(
                    f"{path}: puts {unknown[0]!r} around texts and has no id of it; save the tokenizer again"
                )
