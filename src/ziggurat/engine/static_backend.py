"""A static tier that answers: compiled where that is installed, else in numpy. Both give the same bits."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from ziggurat import native
from ziggurat.small.static import StaticTier


class Scorer(Protocol):
    """What gives each text logits from token ids alone."""

    @property
    def n_classes(self) -> int:
        """Classes that it tells apart."""
        ...

    def logits(self, tokens: np.ndarray, cu_seqlens: np.ndarray) -> np.ndarray:
        """(n_tokens, 2) and (n + 1) int64 → (n, n_classes) float32."""
        ...


class StaticBackend:
    """A static tier in the compiled core, which keeps the tier's arrays where they are.

    Texts are read on the calling thread without the interpreter's lock: several threads may use one backend at once.
    """

    def __init__(self, tier: StaticTier) -> None:
        """UserError where the compiled core is missing."""
        self._core = native.StaticTier(tier.weights, tier.scales, tier.bias, tier.kinds)

    @property
    def n_classes(self) -> int:
        """Classes that it tells apart."""
        return self._core.n_classes

    def logits(self, tokens: np.ndarray, cu_seqlens: np.ndarray) -> np.ndarray:
        """As `StaticTier.logits`, bit for bit. ValueError for ids or edges that do not fit, TypeError for types."""
        return self._core.logits(tokens, cu_seqlens)


def fastest(tier: StaticTier) -> Scorer:
    """The compiled backend of a tier, or where there is none the tier itself."""
    return tier if native.why_missing() else StaticBackend(tier)
