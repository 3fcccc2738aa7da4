"""Explains how one input was answered: rungs, scores, dropped tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ziggurat.lazy import lazily

if TYPE_CHECKING:
    from ziggurat.explain.explain import explanation
    from ziggurat.explain.page import facts
    from ziggurat.explain.record import Explanation

_HOMES = {
    "Explanation": "ziggurat.explain.record",
    "explanation": "ziggurat.explain.explain",
    "facts": "ziggurat.explain.page",
}
__all__ = [
    "Explanation",
    "explanation",
    "facts",
]

__getattr__ = lazily(__name__, _HOMES)
