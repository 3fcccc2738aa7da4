"""The papers' tables and figures, for any model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ziggurat.lazy import lazily

if TYPE_CHECKING:
    from ziggurat.analyses.by_length import lengths, quantiles
    from ziggurat.analyses.curves import Point
    from ziggurat.analyses.drawing import draw
    from ziggurat.analyses.reporting import Request
    from ziggurat.analyses.settings import EXITS, EXITS_AND_PRUNING, FULL_DEPTH, PRUNING, Exits

_HOMES = {
    "EXITS": "ziggurat.analyses.settings",
    "EXITS_AND_PRUNING": "ziggurat.analyses.settings",
    "Exits": "ziggurat.analyses.settings",
    "FULL_DEPTH": "ziggurat.analyses.settings",
    "PRUNING": "ziggurat.analyses.settings",
    "Point": "ziggurat.analyses.curves",
    "Request": "ziggurat.analyses.reporting",
    "draw": "ziggurat.analyses.drawing",
    "lengths": "ziggurat.analyses.by_length",
    "quantiles": "ziggurat.analyses.by_length",
}
__all__ = [
    "EXITS",
    "EXITS_AND_PRUNING",
    "Exits",
    "FULL_DEPTH",
    "PRUNING",
    "Point",
    "Request",
    "draw",
    "lengths",
    "quantiles",
]

__getattr__ = lazily(__name__, _HOMES)
