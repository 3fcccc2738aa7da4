"""The frontier of a calibration as SVG for a page, with the page's fonts and its light or dark colours."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from ziggurat.calibrate.page.data import Picture, Spot
from ziggurat.report.plots import NARROW_TICKS, WIDE_TICKS, require_matplotlib
from ziggurat.system import legible

# Colours as matplotlib writes them. Each stands for a variable of the page, so all of them differ.
BACK, INK, FAINT, LINE, BLUE, ORANGE, GREEN, PINK = (
    "#fefefe",
    "#1b1b1b",
    "#767676",
    "#d8d8d8",
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
)
VARIABLES: Mapping[str, str] = {
    BACK: "--back",
    INK: "--ink",
    FAINT: "--faint",
    LINE: "--line",
    BLUE: "--blue",
    ORANGE: "--orange",
    GREEN: "--green",
    PINK: "--pink",
}
_NEAR = 1.7  # range of the left panel, as a multiple of the largest target


def frontier_svg(picture: Picture, targets: Mapping[str, float], axis: str) -> str:
    """An `<svg>` element: loss of settings against time, near the `targets` (by point) and over the whole range.

    `axis` is the label of the losses. UserError if matplotlib is not installed.
    """
    require_matplotlib()
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    settings = {"svg.hashsalt": "ziggurat", "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 9.5}
    with rc_context(settings | {name: FAINT for name in ("xtick.color", "ytick.color", "axes.edgecolor")}):
        figure = Figure(figsize=(10.4, 5.0), layout="constrained")
        near, overview = figure.subplots(1, 2, width_ratios=(3, 2))
        for axes in (near, overview):
            _draw(axes, picture, axes is near)
        near.set_ylabel(axis, color=INK)
        _show_near(near, picture, targets)
        _show_overview(overview, picture)
        _add_accuracy(near, overview, picture)
        handles, labels = near.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, labelcolor=INK)
        out = io.StringIO()
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _for_a_page(out.getvalue(), "Time per text against what is lost")


def _draw(axes: Any, picture: Picture, labelled: bool) -> None:
    """Scales predicted times by full depth's measured pace, so that predictions and measurements share an axis."""
    curve, pace = picture.frontier, picture.pace
    ms = pace * curve.ms
    if len(ms):
        axes.plot(ms, 100 * curve.loss, color=BLUE, linewidth=2, label="adaptive, certifying rows", zorder=20)
        axes.plot(ms, 100 * picture.estimate, color=BLUE, linewidth=1, linestyle=":", label="ordering rows", zorder=19)
    if curve.low is not None and curve.high is not None and len(ms):
        axes.fill_between(ms, 100 * curve.low, 100 * curve.high, color=BLUE, alpha=0.16, linewidth=0, zorder=1)
    for control, colour, line, marker, label in (
        (picture.random, PINK, "--", None, "random exits"),
        (picture.oracle, GREEN, "-", "v", "oracle exits"),
    ):
        if len(control.ms):
            style = {"color": colour, "linestyle": line, "marker": marker, "linewidth": 1.5}
            axes.plot(pace * control.ms, 100 * control.loss, label=label, **style)
    full = [picture.full_ms], [100 * picture.full_loss]
    axes.plot(*full, "*", color=INK, markersize=14, label="full depth", zorder=40)
    for number, spot in enumerate(picture.spots):
        side = (-1) ** number if labelled else None  # alternate, so that neighbours' names do not overlap
        _draw_spot(axes, spot, pace, "operating point" if number == 0 else None, side)
    axes.set_xlabel("time per text (ms)", color=INK)
    axes.grid(True, color=LINE, linewidth=0.7)
    axes.spines[["top", "right"]].set_visible(False)
    axes.invert_yaxis()  # up is better, as on every figure of accuracy


def _draw_spot(axes: Any, spot: Spot, pace: float, label: str | None, side: int | None) -> None:
    """Draws a point at its measured time, with a line to the predicted one; the bar is the loss's confidence interval.

    The name is above (`side` 1) or below (-1) the point; None = no name.
    """
    loss, edge = 100 * spot.loss, {"markeredgecolor": BACK, "markeredgewidth": 0.8}
    axes.plot([pace * spot.predicted_ms, spot.measured_ms], [loss, loss], color=ORANGE, linewidth=1, zorder=29)
    axes.vlines(spot.measured_ms, 100 * spot.low, 100 * spot.high, color=ORANGE, linewidth=1.6, zorder=30)
    axes.plot([spot.measured_ms], [loss], "D", color=ORANGE, markersize=7.5, label=label, zorder=50, **edge)
    if side is not None:
        place = {"xytext": (8, 12 * side), "va": "center", "color": INK, "fontweight": "bold", "fontsize": 10.5}
        _annotate(axes, f"{spot.name}  {spot.gain:.1f}x", (spot.measured_ms, loss), **place)


def _annotate(axes: Any, text: str, place: tuple[float, float], **how: Any) -> None:
    """Text on a patch of the page's colour, so that lines do not cross it; names may contain dollar signs."""
    patch = {"facecolor": BACK, "edgecolor": "none", "pad": 0.8, "alpha": 0.85}
    axes.annotate(legible(text), place, textcoords="offset points", bbox=patch, zorder=60, parse_math=False, **how)


def _show_near(axes: Any, picture: Picture, targets: Mapping[str, float]) -> None:
    """Limits the axes to the surroundings of the targets, and draws a line for each."""
    largest = 100 * max(targets.values(), default=0.0)
    reach = _NEAR * largest or 1.0
    highest = [0.0, picture.full_loss, *(spot.low for spot in picture.spots), *picture.oracle.loss]
    top = max(100 * min(highest), -reach)
    axes.set_ylim(reach, top - 0.2 * reach)
    for name, target in targets.items():
        if target > 0:
            axes.axhline(100 * target, color=FAINT, linewidth=1, linestyle="--", zorder=5)
            place = {"xycoords": ("axes fraction", "data"), "xytext": (-3, -7), "ha": "right", "va": "center"}
            _annotate(axes, f"at most {100 * target:g}: {name}", (1, 100 * target), color=FAINT, **place)
    times = [picture.full_ms, *(spot.measured_ms for spot in picture.spots)]
    for curve in (picture.frontier, picture.oracle):
        times += (picture.pace * curve.ms)[100 * curve.loss <= reach].tolist()
    axes.set_xlim(*_margins(times))
    axes.set_title("near the promises", color=FAINT, fontsize=10, loc="left")
    _make_logarithmic(axes)


def _show_overview(axes: Any, picture: Picture) -> None:
    times = [picture.full_ms, *(spot.measured_ms for spot in picture.spots)]
    for curve in (picture.frontier, picture.random, picture.oracle):
        times += (picture.pace * curve.ms).tolist()
    axes.set_xlim(*_margins(times))
    axes.set_title("all settings", color=FAINT, fontsize=10, loc="left")
    _make_logarithmic(axes)


def _margins(values: Sequence[float]) -> tuple[float, float]:
    return min(values) / 1.12, max(values) * 1.12


def _make_logarithmic(axes: Any) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    low, high = axes.get_xlim()
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    axes.xaxis.set_major_locator(LogLocator(subs=NARROW_TICKS if high < 15 * low else WIDE_TICKS))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axes.xaxis.set_minor_locator(NullLocator())


def _add_accuracy(near: Any, overview: Any, picture: Picture) -> None:
    """A second scale with the accuracy, only where the loss is a drop in accuracy."""
    if picture.accuracy_scale is None:
        return
    zero = 100 * picture.accuracy_scale
    for axes in (near, overview):
        scale = axes.secondary_yaxis("right", functions=(lambda y: zero - y, lambda y: zero - y))
        scale.spines["right"].set_visible(False)
        if axes is overview:
            scale.set_ylabel("accuracy (%)", color=INK)


def _for_a_page(svg: str, name: str) -> str:
    """The SVG element without metadata, with the page's colours."""
    start, end = svg.index("<svg"), svg.index("</svg>") + len("</svg>")
    svg = svg[start:end]
    if "<metadata>" in svg:
        svg = svg[: svg.index("<metadata>")] + svg[svg.index("</metadata>") + len("</metadata>") :]
    for colour, variable in VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    return svg.replace("<svg", f'<svg role="img" aria-label="{escape(name)}"', 1)
