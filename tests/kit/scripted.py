"""A backend that computes nothing, and ladders of it."""

from __future__ import annotations

import numpy as np

from ziggurat.data import PackedBatch
from ziggurat.data.tokenizer import Encoded
from ziggurat.engine.backends.stepwise import StepwiseBackend
from ziggurat.engine.tiers import EncoderTier, Tier

N, CLASSES = 30, 3
DEPTHS = ((0,), (1, 2), (1, 3, 4))  # a small model, a shallow encoder, a deep one
R = sum(map(len, DEPTHS))


class ScriptedBackend(StepwiseBackend):
    """Looks its logits up and writes down what it was asked: input i's tokens hold the number i.

    `script` (n, n_rungs, n_classes) is what each rung says to each input; rung r stands after layer `rung_layers[r]`.
    """

    engine, device, dtype, threads = "none", "none", "float32", 1

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


def make_tiers(seed: int = 0, depths=DEPTHS, backend=ScriptedBackend) -> list[Tier]:
    rng = np.random.default_rng(seed)
    scripts = [rng.normal(scale=2, size=(N, len(layers), CLASSES)) for layers in depths]
    backends = [backend(script, layers) for script, layers in zip(scripts, depths, strict=True)]
    return [EncoderTier(backend, None, "shared tokenizer", "a spec") for backend in backends]


def inputs(seed: int = 0) -> Encoded:
    """Input i holds the number i, as often as it is long."""
    lengths = np.random.default_rng(seed).integers(1, 9, N)
    tokens = [np.full((length, 2), number) for number, length in enumerate(lengths)]
    return Encoded(tokens, np.zeros(N, dtype=bool))
