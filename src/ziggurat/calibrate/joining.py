"""Which batches of a call share a layer, as the compiled engine lets them: for predicted times."""

from __future__ import annotations

import numpy as np

from ziggurat.engine.runner import TOGETHER


def leaders(tokens: np.ndarray) -> np.ndarray:
    """Tokens of each batch that enter each layer (n, L) → the number of the batch with which it runs there (n, L).

    A batch of which less than half of what a call's largest batch has is left waits for the next ones, until they would
    be more than that together. Here groups are made layer by layer and are as full as they are on average: going from
    batch to batch, as the engine does, would take a search too long.
    """
    n, n_layers = tokens.shape
    entered = tokens[:, 0]
    calls = (np.cumsum(entered) - entered) // TOGETHER
    starts = np.flatnonzero(np.diff(calls, prepend=-1))
    most = np.repeat(np.maximum.reduceat(entered, starts), np.diff(starts, append=n))
    found = np.empty((n, n_layers), dtype=np.int64)
    found[:, 0] = leading = np.arange(n)
    for layer in range(1, n_layers):
        left = np.bincount(leading, weights=tokens[:, layer], minlength=n)
        few = np.flatnonzero((left > 0) & (2 * left <= most))
        if len(few) > 1:
            joined = np.arange(n)
            joined[few] = _led(few, left[few], most[few], calls[few])
            leading = joined[leading]
        found[:, layer] = leading
    return found


def _led(few: np.ndarray, left: np.ndarray, most: np.ndarray, calls: np.ndarray) -> np.ndarray:
    """The first of each one's group; a group ends, half a batch early on average, where the next would be too much."""
    before = np.cumsum(left) - left
    own = before - before[np.searchsorted(calls, calls)]  # tokens that wait before these, in their call
    groups = own // (most - left.mean() / 2)
    first = np.flatnonzero((np.diff(calls, prepend=-1) != 0) | (np.diff(groups, prepend=-1) != 0))
    led: np.ndarray = np.repeat(few[first], np.diff(first, append=len(few)))
    return led


def moved(sums: np.ndarray, leading: np.ndarray) -> np.ndarray:
    """What each batch has in each layer (n, L), at the batch in whose company it runs; others have 0 there."""
    n, n_layers = sums.shape
    cells = leading * n_layers + np.arange(n_layers)
    total = np.bincount(cells.ravel(), weights=sums.ravel(), minlength=n * n_layers)
    found: np.ndarray = total.astype(sums.dtype).reshape(n, n_layers)
    return found
