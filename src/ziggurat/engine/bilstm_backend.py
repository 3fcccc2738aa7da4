"""A BiLSTM tier that answers: compiled where that is installed, else in numpy. They agree to 1e-5."""

from __future__ import annotations

import numpy as np

from ziggurat import native
from ziggurat.engine.static_backend import Scorer
from ziggurat.small.bilstm import BilstmTier


class BilstmBackend:
    """A BiLSTM tier in the compiled core, which keeps the embedding where it is and packs the other weights anew.

    Texts are read on the calling thread without the interpreter's lock: several threads may use one backend at once.
    """

    def __init__(self, tier: BilstmTier) -> None:
        """UserError where the compiled core is missing."""
        self._core = native.BilstmTier(
            tier.vocabulary, tier.embedding, tier.segments, tier.first, tier.second, tier.hidden, tier.output
        )

    @property
    def n_classes(self) -> int:
        """Classes that it tells apart."""
        return self._core.n_classes

    def logits(self, tokens: np.ndarray, cu_seqlens: np.ndarray) -> np.ndarray:
        """As `BilstmTier.logits`, to 1e-5; the same bits for a text whatever else is in the batch.

        ValueError for ids or edges that do not fit, TypeError for types.
        """
        return self._core.logits(tokens, cu_seqlens)


def fastest_bilstm(tier: BilstmTier) -> Scorer:
    """The compiled backend of a tier, or where there is none the tier itself."""
    return tier if native.why_missing() else BilstmBackend(tier)
