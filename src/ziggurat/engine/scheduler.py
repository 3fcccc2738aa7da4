"""Which inputs share a batch."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

MOST_TOKENS = 1 << 16  # of a batch of several inputs: 128 of 512 tokens, 8 of 8,192; memory grows with them


def by_length(lengths: np.ndarray, batch_size: int) -> Iterator[np.ndarray]:
    """Indices of each batch, longest inputs first: like lengths together, and the memory peak comes at once.

    At most `batch_size` inputs, and of long ones no more than make `MOST_TOKENS`.
    """
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        fitting = MOST_TOKENS // max(1, int(lengths[order[start]]))
        stop = start + max(1, min(batch_size, fitting))
        yield order[start:stop]
        start = stop


def in_order(order: np.ndarray, batch_size: int) -> Iterator[np.ndarray]:
    """Indices of each batch, as they come."""
    return (order[start : start + batch_size] for start in range(0, len(order), batch_size))
