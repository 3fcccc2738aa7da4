"""Which inputs share a batch."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np


def by_length(lengths: np.ndarray, batch_size: int) -> Iterator[np.ndarray]:
    """Indices of each batch, longest inputs first: like lengths together, and the memory peak comes at once."""
    order = np.argsort(-lengths, kind="stable")
    return in_order(order, batch_size)


def in_order(order: np.ndarray, batch_size: int) -> Iterator[np.ndarray]:
    """Indices of each batch, as they come."""
    return (order[start : start + batch_size] for start in range(0, len(order), batch_size))
