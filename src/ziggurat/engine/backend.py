"""What an engine asks of whatever computes the layers."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from ziggurat.data.packing import PackedBatch
from ziggurat.policies.prune import TokenRule


class Backend(Protocol):
    """Computes; decides nothing."""

    n_layers: int
    n_classes: int
    rung_layers: tuple[int, ...]  # the layer (1 … L) after which each rung stands; the last is L
    token_rule: TokenRule | None  # the pruning that the model was trained for; None = it does not prune
    device: str  # what computes, for result rows: "cpu", or the GPU's name
    dtype: str  # of weights and activations
    threads: int  # of the CPU that it uses

    def embed(self, batch: PackedBatch, tokens: TokenRule | None) -> PackedBatch:
        """Token and segment ids (n_tokens, 2) → token states (n_tokens, d) of the tokens that the rule reads."""

    def layer(self, layer: int, batch: PackedBatch, tokens: TokenRule | None) -> PackedBatch:
        """Token states before → after layer `layer`, 1 … L, of the tokens that the rule leaves there."""

    def logits(self, rung: int, batch: PackedBatch) -> np.ndarray:
        """What rung `rung`, 0 … n_rungs - 1, says to each sequence: (n_seqs, n_classes) float32."""
