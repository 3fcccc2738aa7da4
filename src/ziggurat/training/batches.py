"""Encoded rows as a torch data set, and their collation into tensors for transformers' Trainer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ziggurat.data.labels import labelled
from ziggurat.data.packing import PackedBatch, cumulate, pack, place_in_sequence
from ziggurat.data.tokenizer import Encoded

BATCH = 64  # inputs per forward pass without gradient
Example = tuple[np.ndarray, ...]  # tokens (length, 2), label (…), teacher logits (…) if there are any


@dataclass(frozen=True)
class Examples(Dataset[Example]):
    """Token ids, labels (of spans two: first and last token), and optionally a teacher's logits."""

    encoded: Encoded
    labels: np.ndarray  # (n, …), see `ziggurat.data.labels`
    teacher_logits: np.ndarray | None = None  # (n, …), see `train.precomputed`

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Example:
        example = self.encoded.tokens[index], self.labels[index]
        return example if self.teacher_logits is None else (*example, self.teacher_logits[index])

    def labelled(self) -> Examples:
        """The rows that have a label."""
        keep = np.flatnonzero(labelled(self.labels))
        tokens = [self.encoded.tokens[row] for row in keep]
        logits = None if self.teacher_logits is None else self.teacher_logits[keep]
        return Examples(Encoded(tokens, self.encoded.truncated[keep]), self.labels[keep], logits)


def collate(examples: Sequence[Example]) -> dict[str, Tensor]:
    """Collates labels (n, …), lengths and packed tokens, and teacher logits (n, …) if there are any.

    Labels come first, since the Trainer takes the batch size from the first entry.
    """
    tokens, labels, *teacher_logits = zip(*examples, strict=True)
    batch = {
        "labels": torch.from_numpy(np.stack(labels)),
        "lengths": torch.tensor([len(row) for row in tokens]),
        "states": torch.from_numpy(np.concatenate(tokens)),
    }
    return batch | {"teacher_logits": torch.from_numpy(np.stack(teacher_logits[0]))} if teacher_logits else batch


def packed(states: Tensor, lengths: Tensor) -> PackedBatch:
    """The PackedBatch of a collated batch."""
    counts = lengths.cpu().numpy()
    return PackedBatch(states, cumulate(counts), place_in_sequence(counts), np.arange(len(counts)), counts)


def in_batches(tokens: Sequence[np.ndarray]) -> Iterator[PackedBatch]:
    """Packs all inputs in order, in batches for forward passes without gradient."""
    for start in range(0, len(tokens), BATCH):
        yield pack(tokens[start : start + BATCH])


def spread(n: int, most: int) -> np.ndarray:
    """At most `most` evenly spaced indices below n, (k) int64: rows may be sorted by label."""
    return np.linspace(0, n - 1, min(n, most)).astype(np.int64)
