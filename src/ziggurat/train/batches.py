"""Encoded rows as a torch data set, and lists of them as the tensors that a Trainer can carry between processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ziggurat.data.encoded import Encoded
from ziggurat.data.labels import labelled
from ziggurat.data.packing import PackedBatch, cumulate, pack, place_in_sequence

BATCH = 64  # inputs of a forward pass without gradient
Example = tuple[np.ndarray, ...]  # tokens (length, 2), label (…), and the teacher's logits (…) if there are any


@dataclass(frozen=True)
class Examples(Dataset[Example]):
    """Token ids with labels (spans have two, the tokens with which they start and end), and what a teacher says."""

    encoded: Encoded
    labels: np.ndarray  # (n, …), see `ziggurat.data.labels`
    taught: np.ndarray | None = None  # logits (n, …), see `train.teaching`

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Example:
        known = self.encoded.tokens[index], self.labels[index]
        return known if self.taught is None else (*known, self.taught[index])

    def labelled(self) -> Examples:
        """Only the rows that have a label."""
        keep = np.flatnonzero(labelled(self.labels))
        tokens = [self.encoded.tokens[row] for row in keep]
        taught = None if self.taught is None else self.taught[keep]
        return Examples(Encoded(tokens, self.encoded.truncated[keep]), self.labels[keep], taught)


def collate(examples: Sequence[Example]) -> dict[str, Tensor]:
    """Labels (n, …) first, for a Trainer takes the batch size from the first entry; then packed tokens and lengths.

    What a teacher says of them (n, …) comes last, where it is known.
    """
    tokens, labels, *taught = zip(*examples, strict=True)
    batch = {
        "labels": torch.from_numpy(np.stack(labels)),
        "lengths": torch.tensor([len(row) for row in tokens]),
        "states": torch.from_numpy(np.concatenate(tokens)),
    }
    return batch | {"taught": torch.from_numpy(np.stack(taught[0]))} if taught else batch


def packed(states: Tensor, lengths: Tensor) -> PackedBatch:
    """The PackedBatch of a collated batch."""
    counts = lengths.cpu().numpy()
    return PackedBatch(states, cumulate(counts), place_in_sequence(counts), np.arange(len(counts)), counts)


def in_batches(tokens: Sequence[np.ndarray]) -> Iterator[PackedBatch]:
    """All inputs in their order, some at a time, for a forward pass without gradient."""
    for start in range(0, len(tokens), BATCH):
        yield pack(tokens[start : start + BATCH])


def spread(n: int, most: int) -> np.ndarray:
    """At most so many of n places, all over: rows may be sorted by label. (k) int64."""
    return np.linspace(0, n - 1, min(n, most)).astype(np.int64)
