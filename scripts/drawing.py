"""A small canvas for the pictures of the documentation: boxes, arrows and text as SVG, readable in light and dark."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from itertools import pairwise

FONT = "font-family='system-ui, DejaVu Sans, sans-serif' font-size='14'"
FILLS = {
    "room": "#e8eef7",
    "base": "#f3ead8",
    "strong": "#bcd4f0",
    "exit": "#cfe8cf",
    "gone": "#f4f4f4",
    "warn": "#f6d5c8",
    "plain": "#ffffff",
}
INK, LINE, PALE = "#1c2733", "#6b7885", "#b9c2cb"


def number(value: float) -> str:
    """A coordinate with one digit at most, the same on every machine."""
    return (
        f"{value:.1f}".removesuffix(".0").replace("-0", "0") if abs(value) < 0.05 else f"{value:.1f}".removesuffix(".0")
    )


class Canvas:
    """Collects shapes and writes one SVG file. Coordinates are pixels from the upper left corner."""

    def __init__(self, width: int, height: int, title: str) -> None:
        self._head = (
            f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {height}' width='{width}' height='{height}' "
            f"role='img' {FONT}>\n<title>{escape(title)}</title>\n"
            "<defs><marker id='tip' viewBox='0 0 8 8' refX='7' refY='4' markerWidth='7' markerHeight='7' "
            f"orient='auto-start-reverse'><path d='M0 0 8 4 0 8z' fill='{LINE}'/></marker></defs>\n"
            f"<rect width='{width}' height='{height}' fill='#ffffff'/>\n"
        )
        self._shapes: list[str] = []

    def box(self, x: float, y: float, width: float, height: float, label: str = "", kind: str = "room") -> None:
        """A rounded box with a label in its middle."""
        dashed = " stroke-dasharray='4 3'" if kind == "gone" else ""
        self._shapes.append(
            f"<rect x='{number(x)}' y='{number(y)}' width='{number(width)}' height='{number(height)}' rx='5' "
            f"fill='{FILLS[kind]}' stroke='{PALE if kind == 'gone' else LINE}'{dashed}/>"
        )
        if label:
            self.text(x + width / 2, y + height / 2 + 5, label, ink=PALE if kind == "gone" else INK)

    def text(self, x: float, y: float, label: str, anchor: str = "middle", size: int = 14, ink: str = INK) -> None:
        """A line of text; `y` is its base line."""
        place = f"x='{number(x)}' y='{number(y)}' text-anchor='{anchor}'"
        self._shapes.append(f"<text {place} font-size='{size}' fill='{ink}'>{escape(label)}</text>")

    def arrow(self, x: float, y: float, to_x: float, to_y: float, tip: bool = True) -> None:
        """A straight line, with a tip at its end."""
        self._path(f"M{number(x)} {number(y)}L{number(to_x)} {number(to_y)}", LINE, 1.3, tip)

    def curve(self, points: Sequence[tuple[float, float]]) -> None:
        """A smooth line downwards through the points, with a tip at its end."""
        path = f"M{number(points[0][0])} {number(points[0][1])}"
        for (x, y), (to_x, to_y) in pairwise(points):
            middle = number((y + to_y) / 2)
            path += f"C{number(x)} {middle} {number(to_x)} {middle} {number(to_x)} {number(to_y)}"
        self._path(path, LINE, 1.3, tip=True)

    def line(self, points: Sequence[tuple[float, float]], ink: str = LINE, width: float = 2) -> None:
        """Straight lines from point to point."""
        path = "L".join(f"{number(x)} {number(y)}" for x, y in points)
        self._path(f"M{path}", ink, width, tip=False)

    def _path(self, path: str, ink: str, width: float, tip: bool) -> None:
        end = " marker-end='url(#tip)'" if tip else ""
        self._shapes.append(f"<path d='{path}' fill='none' stroke='{ink}' stroke-width='{width}'{end}/>")

    def svg(self) -> str:
        """The file."""
        return self._head + "\n".join(self._shapes) + "\n</svg>\n"
