"""Small models, which answer from token ids alone: without layers or pruning, with a single rung."""

from __future__ import annotations

import time
from typing import Protocol

import numpy as np

from ziggurat import native
from ziggurat.data.packing import PackedBatch
from ziggurat.engine.backend import TOGETHER, Finished
from ziggurat.engine.backends.stepwise import StepwiseBackend, StepwiseWork
from ziggurat.policies.prune import TokenRule
from ziggurat.policies.rules import ExitRule
from ziggurat.small.bilstm import BilstmTier
from ziggurat.small.folder import SmallTier
from ziggurat.small.static import StaticTier


class Scorer(Protocol):
    """Computes logits of texts from token ids alone."""

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        ...

    def logits(self, tokens: np.ndarray, cu_seqlens: np.ndarray) -> np.ndarray:
        """(n_tokens, 2) and (n + 1) int64 → (n, n_classes) float32."""
        ...


class _Compiled:
    """A small model in the compiled core. It computes on the calling thread without the interpreter's lock, so several
    threads may call it at once.
    """

    def __init__(self, compiled: Scorer) -> None:
        self._core = compiled

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return self._core.n_classes

    def logits(self, tokens: np.ndarray, cu_seqlens: np.ndarray) -> np.ndarray:
        """As the tier's `logits`. ValueError for ids or edges that do not fit, TypeError for wrong dtypes."""
        return self._core.logits(tokens, cu_seqlens)


class StaticBackend(_Compiled):
    """A static tier without a copy of its arrays; bit-identical to `StaticTier.logits`."""

    def __init__(self, tier: StaticTier) -> None:
        """UserError where the compiled core is missing."""
        super().__init__(native.StaticTier(tier.weights, tier.scales, tier.bias, tier.kinds))


class BilstmBackend(_Compiled):
    """A BiLSTM tier: the embedding is not copied, the other weights are repacked. Logits agree with `BilstmTier` to
    1e-5; the logits of a text are bit-identical in all batches.
    """

    def __init__(self, tier: BilstmTier) -> None:
        """UserError where the compiled core is missing."""
        parts = (tier.vocabulary, tier.embedding, tier.segments, tier.first, tier.second, tier.hidden, tier.output)
        super().__init__(native.BilstmTier(*parts))


def fastest(tier: SmallTier) -> Scorer:
    """The compiled version of a tier; the tier itself if the compiled core is missing."""
    if native.why_missing():
        return tier
    return StaticBackend(tier) if isinstance(tier, StaticTier) else BilstmBackend(tier)


class SmallBackend(StepwiseBackend):
    """A static or BiLSTM model; implements `engine.backend.Backend`."""

    device = "cpu"
    n_layers = 0
    rung_layers: tuple[int, ...] = (0,)
    token_rule: TokenRule | None = None
    together = TOGETHER

    def __init__(self, tier: SmallTier) -> None:
        scorer = fastest(tier)
        self._scorer = scorer
        self.n_classes = scorer.n_classes
        self.engine = "numpy" if scorer is tier else "native"
        self.dtype = "int16" if isinstance(tier, StaticTier) else "float32"

    @property
    def threads(self) -> int:
        """1: the calling thread."""
        return 1

    def embed(self, batch: PackedBatch, tokens: TokenRule | None = None) -> PackedBatch:
        """The batch unchanged: the model reads token and segment ids."""
        return batch

    def layer(self, layer: int, batch: PackedBatch, tokens: TokenRule | None = None) -> PackedBatch:
        """Never called: there are no layers."""
        raise AssertionError("a small model has no layers; this is a bug")

    def logits(self, rung: int, batch: PackedBatch) -> np.ndarray:
        """Logits of each sequence, (n_seqs, n_classes) float32."""
        return self._scorer.logits(batch.states, batch.cu_seqlens)

    def advance(self, work: StepwiseWork, rule: ExitRule, to_layer: int) -> tuple[StepwiseWork, Finished]:
        """Runs all inputs at once; if its rung is the ladder's last, all of them finish."""
        if rule.first < len(rule.active) - 1 or work.live is None:
            return super().advance(work, rule, to_layer)
        begun = time.perf_counter()
        logits = self.logits(0, work.live)
        n, token_counts = len(work.rows), work.live.lengths[:, None]
        seconds = np.full(n, time.perf_counter() - begun)
        done = Finished(work.rows, logits, np.zeros(n, dtype=np.int64), seconds, token_counts)
        return work.emptied(), done
