"""Figures of accuracy against cost: panels, at most three in a row, one legend below; as PNG and SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from textwrap import fill
from typing import Any

from ziggurat.errors import UserError, install
from ziggurat.files import whole_file
from ziggurat.system import legible

# Okabe and Ito's palette, distinct for colour-blind readers too; without yellow, which is invisible on white.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9")
MAKER = "ziggurat"  # marks figures written by Ziggurat
NOTE_COLOUR = "#333333"
ABREAST = 3  # panels in a row, at most: more are too small to read at page width
_TITLE = 62  # characters per panel in a line of the title
# Tick labels of a logarithmic axis, times powers of ten: for about one decade, and for more.
NARROW_TICKS = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)
WIDE_TICKS = (1.0, 2.0, 5.0)


@dataclass(frozen=True)
class Series:
    """A curve, or single points, in a panel. Series with the same label share a colour and a legend entry."""

    label: str
    x: Sequence[float]
    y: Sequence[float]  # accuracy or another share; drawn in percent if `Panel.percent`
    low: Sequence[float] | None = None  # 95 % interval of y, drawn as a band from low to high
    high: Sequence[float] | None = None
    line: str = "-"  # matplotlib's line style; "" = markers only
    marker: str = ""  # matplotlib's marker; "" = line only
    notes: Sequence[str] = ()  # a short text beside each point
    colour: str | None = None  # None = the next colour of the palette


@dataclass(frozen=True)
class Panel:
    """One pair of axes."""

    xlabel: str  # with its unit
    series: Sequence[Series]
    log_x: bool = True
    ylabel: str = "accuracy (%)"
    y_range: tuple[float, float] | None = None  # in the unit of y; None = fit to the series
    percent: bool = True  # y are shares, drawn in percent; False = drawn unchanged

    def shown(self, values: Sequence[float]) -> list[float]:
        """Values of y in the axis' unit."""
        return [100 * value for value in values] if self.percent else list(values)


def accuracy_figure(panels: Sequence[Panel], title: str, out: Path) -> tuple[Path, Path]:
    """Draws `panels` in rows and writes `out`.png and `out`.svg; returns both paths.

    The same data gives the same SVG, byte for byte, with one version of matplotlib. Each file is written completely or
    not at all. UserError if matplotlib is missing or the folder is not writable; ValueError without panels.
    """
    if not panels:
        raise ValueError("a figure needs at least one panel")
    require_matplotlib()
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    paths = figure_paths(out)
    with rc_context({"svg.hashsalt": MAKER, "font.size": 10.0, "text.parse_math": False}):
        # Not pyplot, which has global state and may need a display.
        rows = ceil(len(panels) / ABREAST)
        columns = ceil(len(panels) / rows)
        figure = Figure(figsize=(5.2 * columns + 0.6, 4.6 * rows + 0.2), layout="constrained")
        figure.suptitle(fill(legible(title), _TITLE * columns), fontsize=11)
        colours = _colours(panels)
        for number, panel in enumerate(panels, start=1):
            _draw_panel(figure.add_subplot(rows, columns, number), panel, colours)
        _draw_legend(figure)
        for path, metadata in zip(paths, ({"Software": MAKER}, {"Date": None, "Creator": MAKER}), strict=True):
            with whole_file(path) as temporary:
                figure.savefig(temporary, format=path.suffix[1:], dpi=160, metadata=metadata)
    return paths


def figure_paths(out: Path) -> tuple[Path, Path]:
    """The PNG and SVG file of figure `out`, which may have one of these endings."""
    base = out.with_suffix("") if out.suffix in (".png", ".svg") else out
    return base.with_name(base.name + ".png"), base.with_name(base.name + ".svg")


def require_matplotlib() -> None:
    """UserError if matplotlib is missing; call it before long measurements."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        raise UserError(f"figures need matplotlib; {install('report')}") from None


def _colours(panels: Sequence[Panel]) -> Mapping[str, str]:
    """Colour of each label: its fixed colour, else the palette's in order of appearance."""
    all_series = [series for panel in panels for series in panel.series]
    fixed = {series.label: series.colour for series in all_series if series.colour is not None}
    labels = dict.fromkeys(series.label for series in all_series if series.label not in fixed)
    return {label: PALETTE[index % len(PALETTE)] for index, label in enumerate(labels)} | fixed


def _draw_panel(axes: Any, panel: Panel, colours: Mapping[str, str]) -> None:
    for depth, series in enumerate(panel.series):
        _draw_series(
            axes, panel, series, colours[series.label], 20 - depth
        )  # the first series is the most important and is drawn on top
    axes.set_xlabel(panel.xlabel)
    axes.set_ylabel(panel.ylabel)
    axes.grid(True, which="major", color="#dddddd", linewidth=0.7)
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.06, y=0.08)
    if panel.y_range is not None:
        axes.set_ylim(panel.shown(panel.y_range))
    if panel.log_x:
        _make_logarithmic(axes)


def _draw_series(axes: Any, panel: Panel, series: Series, colour: str, depth: float) -> None:
    shown = panel.shown(series.y)
    style = {"color": colour, "linestyle": series.line or "none", "marker": series.marker or None, "zorder": depth}
    if not series.line:
        style |= {
            "markersize": 14 if series.marker == "*" else 9,
            "markeredgecolor": "white",
            "markeredgewidth": 0.8,
            "zorder": depth + 20,
        }
    axes.plot(series.x, shown, label=legible(series.label), linewidth=1.8, **style)
    if series.low is not None and series.high is not None:
        low, high = panel.shown(series.low), panel.shown(series.high)
        if series.line:
            axes.fill_between(series.x, low, high, color=colour, alpha=0.15, linewidth=0, zorder=1)
        else:
            axes.vlines(series.x, low, high, color=colour, linewidth=1.2, zorder=depth)
    for x, y, note in zip(series.x, shown, series.notes, strict=False):
        # Place notes above points: only an oracle's curve runs above points with notes.
        offset = {"xytext": (0, 11), "textcoords": "offset points", "ha": "center"}
        axes.annotate(legible(note), (x, y), fontsize=9, color=NOTE_COLOUR, zorder=60, **offset)


def _make_logarithmic(axes: Any) -> None:
    """Makes the x axis logarithmic, with plain numbers as labels, also within one decade."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axes.set_xscale("log")
    low, high = axes.get_xlim()
    axes.xaxis.set_major_locator(LogLocator(subs=NARROW_TICKS if high < 15 * low else WIDE_TICKS))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axes.xaxis.set_minor_locator(NullLocator())


def _draw_legend(figure: Any) -> None:
    """Draws one legend for all panels, below them, so that it covers no data."""
    handles: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    if handles:
        columns = min(len(handles), 3 * figure.axes[0].get_subplotspec().get_gridspec().ncols)
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=columns, frameon=False)
