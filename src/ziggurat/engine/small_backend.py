"""A small model that answers from token ids alone, as a backend without layers: one rung, and nothing to prune."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from ziggurat.data.packing import PackedBatch, join
from ziggurat.engine.backend import Answered
from ziggurat.engine.bilstm_backend import BilstmBackend, fastest_bilstm
from ziggurat.engine.rules import ExitRule
from ziggurat.engine.static_backend import Scorer, StaticBackend, fastest
from ziggurat.policies.prune import TokenRule
from ziggurat.small.folder import SmallTier
from ziggurat.small.static import StaticTier


class SmallBackend:
    """A static or BiLSTM model; implements `engine.backend.WholeForward`."""

    device = "cpu"
    threads = 1
    n_layers = 0
    rung_layers: tuple[int, ...] = (0,)
    token_rule: TokenRule | None = None

    def __init__(self, scorer: Scorer, flops: Callable[[np.ndarray], np.ndarray]) -> None:
        """`flops` gives the cost of texts of so many tokens, (n) → (n) int64."""
        self._scorer = scorer
        self.n_classes = scorer.n_classes
        self.engine = "native" if isinstance(scorer, StaticBackend | BilstmBackend) else "numpy"
        self.dtype = "int16" if isinstance(scorer, StaticBackend | StaticTier) else "float32"
        self.flops = flops

    def embed(self, batch: PackedBatch, tokens: TokenRule | None = None) -> PackedBatch:
        """The batch as it is: token and segment ids are what the model reads."""
        return batch

    def layer(self, layer: int, batch: PackedBatch, tokens: TokenRule | None = None) -> PackedBatch:
        """There is none."""
        raise AssertionError("a small model has no layers; this is a bug")

    def logits(self, rung: int, batch: PackedBatch) -> np.ndarray:
        """What the model says to each sequence, (n_seqs, n_classes) float32."""
        return self._scorer.logits(batch.states, batch.cu_seqlens)

    def answer(self, batches: Sequence[PackedBatch], rule: ExitRule) -> Answered:
        """All answers at once; the only rung answers everything."""
        start = time.perf_counter()
        batch = batches[0] if len(batches) == 1 else join(batches)
        logits = self.logits(0, batch)
        seconds = np.full(batch.n_seqs, time.perf_counter() - start)
        return Answered(logits, np.zeros(batch.n_seqs, dtype=np.int64), seconds, batch.lengths[:, None])


def backend_of(tier: SmallTier) -> SmallBackend:
    """The fastest backend that there is for a small model."""
    return SmallBackend(fastest(tier) if isinstance(tier, StaticTier) else fastest_bilstm(tier), tier.flops)
