"""FLOPs of answers that are spans: as `flops`, but heads read every token of a window, those that left included."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ziggurat.encoder.flops import layer_flops
from ziggurat.encoder.spec import EncoderSpec


def span_head_flops(spec: EncoderSpec, lengths: np.ndarray) -> np.ndarray:
    """Of one span head, d → 2 on every token: lengths (n) → (n) int64."""
    flops: np.ndarray = 4 * spec.hidden * lengths.astype(np.int64)
    return flops


def span_full_flops(spec: EncoderSpec, lengths: np.ndarray) -> np.ndarray:
    """Of the whole model without exits and pruning: lengths (n) → (n) int64."""
    flops: np.ndarray = spec.layers * layer_flops(spec, lengths) + span_head_flops(spec, lengths)
    return flops


def span_rung_flops(
    spec: EncoderSpec,
    lengths: np.ndarray,
    kept: np.ndarray,
    rung_layers: Sequence[int],
    asked: Sequence[bool],
    guessed: Sequence[bool] | None = None,
) -> np.ndarray:
    """FLOPs of leaving at each rung: (n, n_rungs) int64.

    `lengths` (n) before any pruning, `kept` (n, L + 1), `asked` and `guessed` as in `flops.rung_flops`.
    """
    per_layer = layer_flops(spec, kept[:, :-1], kept[:, 1:])
    if guessed is not None:
        per_layer = per_layer + 2 * spec.hidden * kept[:, :-1] * np.asarray(guessed)
    layers = per_layer.cumsum(axis=1)[:, np.asarray(rung_layers) - 1]
    passed = np.concatenate([[0], np.cumsum(asked[: len(rung_layers) - 1], dtype=np.int64)])
    flops: np.ndarray = layers + span_head_flops(spec, lengths)[:, None] * (passed + 1)
    return flops
