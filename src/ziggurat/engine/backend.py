"""What an engine asks of whatever computes the layers."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from ziggurat.data.packing import PackedBatch


class Backend(Protocol):
    """Computes; decides nothing."""

    n_layers: int
    n_classes: int
    rung_layers: tuple[int, ...]  # the layer (1 … L) after which each rung stands; the last is L
    device: str  # what computes, for result rows: "cpu", or the GPU's name
    dtype: str  # of weights and activations
    threads: int  # of the CPU that it uses

    def embed(self, batch: PackedBatch) -> PackedBatch:
        """Token and segment ids (n_tokens, 2) → token states (n_tokens, d)."""

    def layer(self, layer: int, batch: PackedBatch) -> PackedBatch:
        """Token states before → after layer `layer`, 1 … L."""

    def logits(self, rung: int, batch: PackedBatch) -> np.ndarray:
        """What rung `rung`, 0 … n_rungs - 1, says to each sequence: (n_seqs, n_classes) float32."""
