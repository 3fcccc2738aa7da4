"""Models without layers, for the first tier of a cascade: n-grams and a BiLSTM, each with its training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ziggurat.lazy import lazily

if TYPE_CHECKING:
    from ziggurat.small.bilstm import UNKNOWN, BilstmTier, load_bilstm_tier
    from ziggurat.small.folder import save_small
    from ziggurat.small.static import LARGEST, StaticTier, features, load_static_tier
    from ziggurat.small.train_static import minimise

_HOMES = {
    "BilstmTier": "ziggurat.small.bilstm",
    "LARGEST": "ziggurat.small.static",
    "StaticTier": "ziggurat.small.static",
    "UNKNOWN": "ziggurat.small.bilstm",
    "features": "ziggurat.small.static",
    "load_bilstm_tier": "ziggurat.small.bilstm",
    "load_static_tier": "ziggurat.small.static",
    "minimise": "ziggurat.small.train_static",
    "save_small": "ziggurat.small.folder",
}
__all__ = [
    "BilstmTier",
    "LARGEST",
    "StaticTier",
    "UNKNOWN",
    "features",
    "load_bilstm_tier",
    "load_static_tier",
    "minimise",
    "save_small",
]

__getattr__ = lazily(__name__, _HOMES)
