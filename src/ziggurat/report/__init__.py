"""Report room: clocks, rows, tables, figures. No torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ziggurat.lazy import lazily

if TYPE_CHECKING:
    from ziggurat.report.plots import Panel, Series, accuracy_figure

_HOMES = {
    "Panel": "ziggurat.report.plots",
    "Series": "ziggurat.report.plots",
    "accuracy_figure": "ziggurat.report.plots",
}
__all__ = [
    "Panel",
    "Series",
    "accuracy_figure",
]

__getattr__ = lazily(__name__, _HOMES)
