"""FLOPs of answers that are spans: as `flops`, but heads read every token of a window, those that left included."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ziggurat.encoder.architectures import ARCHITECTURES
from ziggurat.encoder.flops import embedding_flops, passed_flops
from ziggurat.encoder.spec import EncoderSpec


def span_head_flops(spec: EncoderSpec, lengths: np.ndarray) -> np.ndarray:
    """Of one exit's span head, d → 2 on every token: lengths (n) → (n) int64."""
    flops: np.ndarray = 4 * spec.hidden * lengths.astype(np.int64)
    return flops


def span_full_flops(spec: EncoderSpec, lengths: np.ndarray) -> np.ndarray:
    """Of the whole model without exits and pruning: lengths (n) → (n) int64."""
    kept = np.repeat(lengths[:, None], spec.layers + 1, axis=1)
    flops: np.ndarray = span_rung_flops(spec, lengths, kept, (spec.layers,), ())[:, 0]
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

    `lengths` (n) before any pruning, `kept` (n, L + 1), `asked` and `guessed` as in `flops.rung_flops`. Tokens that are
    not read are embedded none the less. The last rung's head maps d → d before where the architecture's own does.
    """
    layers = passed_flops(spec, kept, guessed)[:, np.asarray(rung_layers) - 1]
    passed = np.concatenate([[0], np.cumsum(asked[: len(rung_layers) - 1], dtype=np.int64)])
    heads = span_head_flops(spec, lengths)[:, None] * (passed + 1)
    flops: np.ndarray = embedding_flops(spec, lengths)[:, None] + layers + heads
    if ARCHITECTURES[spec.model_type].dense_spans:
        flops[:, -1] += 2 * spec.hidden**2 * lengths.astype(np.int64)
    return flops
