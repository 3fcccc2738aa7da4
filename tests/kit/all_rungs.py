"""What every rung of one model reads of batches that are made already."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ziggurat.data import PackedBatch
from ziggurat.engine import Backend
from ziggurat.engine.backend import AllRungs
from ziggurat.policies import TokenRule


def run_every_rung(
    backend: Backend, batches: Iterable[PackedBatch], n_inputs: int, tokens: TokenRule | None = None
) -> AllRungs:
    """Of n inputs of one sequence each, in the order of the batches' `rows`."""
    shape = n_inputs, len(backend.rung_layers), backend.width
    readings, kept = (
        np.full(shape, np.nan, dtype=backend.reading_dtype),
        np.zeros((n_inputs, backend.n_layers + 1), int),
    )
    for batch in batches:
        found = backend.all_rungs(batch, tokens)
        readings[batch.rows], kept[batch.rows] = found.readings, found.token_counts
    return AllRungs(readings, kept)
