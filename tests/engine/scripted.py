"""A backend that computes nothing."""

from __future__ import annotations

import numpy as np

from ziggurat.data.packing import PackedBatch


class ScriptedBackend:
    """Looks its logits up and writes down what it was asked: input i's tokens hold the number i.

    `script` (n, n_rungs, n_classes) is what each rung says to each input; rung r stands after layer `rung_layers[r]`.
    """

    device, dtype, threads, token_rule = "none", "float32", 1, None

    def __init__(self, script: np.ndarray, rung_layers: tuple[int, ...]) -> None:
        self.script = script.astype(np.float32)
        self.rung_layers = rung_layers
        self.n_layers = rung_layers[-1]
        self.n_classes = script.shape[2]
        self.layers_run: list[tuple[int, int, int]] = []  # layer, sequences, tokens
        self.heads_run: list[tuple[int, int]] = []  # rung, sequences

    def embed(self, batch: PackedBatch, tokens=None) -> PackedBatch:
        return batch

    def layer(self, layer: int, batch: PackedBatch, tokens=None) -> PackedBatch:
        assert len(batch.states) == batch.lengths.sum() == len(batch.positions)
        self.layers_run.append((layer, batch.n_seqs, len(batch.states)))
        return batch

    def logits(self, rung: int, batch: PackedBatch) -> np.ndarray:
        self.heads_run.append((rung, batch.n_seqs))
        return self.script[batch.states[batch.cu_seqlens[:-1], 0], rung]
