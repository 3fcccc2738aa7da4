"""Tables that other programs read and people can line up; figures that are whole, repeatable and leave nothing open."""

import csv
import dataclasses
import sys
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from ziggurat.analyses import Point
from ziggurat.errors import UserError
from ziggurat.measure import SCHEMA
from ziggurat.report import Panel, Series, accuracy_figure
from ziggurat.report.tables import POINT_COLUMNS, RESULT_COLUMNS, Column, aligned, csv_text, markdown

COLUMNS = (Column("what", "system"), Column("time", "time", "ms", ".1f"), Column("note", "note"))
ROWS = [{"what": "full", "time": 12.3456}, {"what": "a|b\nc", "time": 3, "note": "fast"}]


def test_markdown_is_aligned_and_names_units():
    assert markdown(ROWS, COLUMNS).splitlines() == [
        r"| system | time (ms) | note |",
        r"| ------ | --------: | ---- |",
        r"| full   |      12.3 | –    |",
        r"| a\|b c |       3.0 | fast |",
    ]


def test_aligned_text_has_numbers_right_and_no_trailing_blanks():
    rows = [{"what": "full", "time": 12.3456}, {"what": "early exit", "time": None, "note": "fast"}]
    assert aligned(rows, COLUMNS) == (
        "system      time (ms)  note\n"
        "full             12.3  –\n"
        "early exit          –  fast\n"
    )  # fmt: skip


def test_csv_reads_back_in_full_precision():
    header, *body = csv.reader(csv_text(ROWS, COLUMNS).splitlines(keepends=True))
    assert header == ["system", "time (ms)", "note"]
    assert body == [["full", "12.3456", ""], ["a|b\nc", "3", "fast"]]


def test_a_table_without_rows_is_its_header():
    assert markdown([], COLUMNS).count("\n") == 2
    assert aligned([], COLUMNS) == "system  time (ms)  note\n"


def test_points_and_result_rows_have_columns_ready():
    table = markdown([dataclasses.asdict(Point("oracle", 0.91234, 2.5))], POINT_COLUMNS)
    assert table.splitlines()[-1].split() == ["|", "oracle", "|", "–", "|", "91.23%", "|", "2.50", "|"]
    assert {column.key for column in RESULT_COLUMNS} <= set(SCHEMA) | {"warning"}


def some_panels():
    x, y = [1.0, 2.0, 8.0], [0.7, 0.85, 0.9]
    band = {"low": [v - 0.02 for v in y], "high": [v + 0.02 for v in y]}
    series = [
        Series("adaptive", x, y, **band),
        Series("random exit", x, [v - 0.05 for v in y], line="--"),
        Series("operating points", [2.0], [0.85], low=[0.83], high=[0.87], line="", marker="D", notes=["fast"]),
    ]
    wide = [Series("adaptive", np.logspace(-1, 3, 5), np.linspace(0.5, 0.9, 5)), Series("oracle", x, y, line=":")]
    return [
        Panel("time per text (ms)", series),
        Panel("GFLOPs per text", wide, y_range=(0.4, 1.0)),
        Panel("speed-up (x)", series, log_x=False),
    ]


def test_a_title_is_no_wider_than_its_panels(tmp_path):
    title = " ".join(f"word{place}" for place in range(30))
    _, svg = accuracy_figure(some_panels()[:1], title, tmp_path / "figure")
    text = svg.read_text()
    assert title not in text and all(f"word{place}" in text for place in range(30))


def test_figure_is_written_as_png_and_svg_and_nothing_else(tmp_path):
    paths = accuracy_figure(some_panels(), "MiniLM on docs · CPU, 2 threads, batch 32", tmp_path / "new" / "v0.1 curve")
    assert [path.name for path in paths] == ["v0.1 curve.png", "v0.1 curve.svg"]
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["v0.1 curve.png", "v0.1 curve.svg"]
    assert paths[0].read_bytes().startswith(b"\x89PNG")
    assert ET.parse(paths[1]).getroot().tag.endswith("svg")


@pytest.mark.slow
def test_the_same_data_gives_the_same_bytes(tmp_path):
    first = accuracy_figure(some_panels(), "title", tmp_path / "a.png")
    again = accuracy_figure(some_panels(), "title", tmp_path / "b.svg")
    for one, other in zip(first, again, strict=True):
        assert one.read_bytes() == other.read_bytes()
    assert [path.name for path in first] == ["a.png", "a.svg"]


def drawn(monkeypatch, tmp_path, panels):
    """The matplotlib figure behind the files."""
    from matplotlib.figure import Figure

    figures = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: (figures.append(self), save(self, *a, **k)))
    accuracy_figure(panels, "title", tmp_path / "figure")
    return figures[0]


def test_legend_names_each_label_once_and_covers_no_data(monkeypatch, tmp_path):
    figure = drawn(monkeypatch, tmp_path, some_panels())
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["adaptive", "random exit", "operating points", "oracle"]
    for axes in figure.axes:
        assert not legend.get_window_extent().overlaps(axes.get_window_extent())


@pytest.mark.slow
def test_many_panels_stand_in_rows_of_three_at_most(monkeypatch, tmp_path):
    for count, rows, columns in ((4, 2, 2), (7, 3, 3)):
        figure = drawn(monkeypatch, tmp_path, (3 * some_panels())[:count])
        grid = figure.axes[0].get_subplotspec().get_gridspec()
        assert (len(figure.axes), grid.nrows, grid.ncols) == (count, rows, columns)
        boxes = [axes.get_tightbbox() for axes in figure.axes]
        assert not any(one.overlaps(other) for place, one in enumerate(boxes) for other in boxes[:place])


def test_a_label_has_one_colour_in_all_panels(monkeypatch, tmp_path):
    colours = {}
    for axes in drawn(monkeypatch, tmp_path, some_panels()).axes:
        for line in axes.get_lines():
            colours.setdefault(line.get_label(), set()).add(line.get_color())
    assert [len(found) for found in colours.values()] == [1, 1, 1, 1]
    assert len(set.union(*colours.values())) == 4


def test_axes_read_in_percent_and_plain_numbers(monkeypatch, tmp_path):
    narrow, wide, linear = drawn(monkeypatch, tmp_path, some_panels()).axes
    assert narrow.get_lines()[0].get_ydata() == pytest.approx([70, 85, 90])
    assert wide.get_ylim() == pytest.approx((40, 100))
    assert (narrow.get_xscale(), wide.get_xscale(), linear.get_xscale()) == ("log", "log", "linear")
    labels = [text.get_text() for text in narrow.get_xticklabels()]
    assert {"1", "1.5", "2", "8"} <= set(labels)
    labels = [text.get_text() for text in wide.get_xticklabels()]
    assert {"0.1", "1", "1000"} <= set(labels) and "1.5" not in labels


def test_drawing_opens_no_global_figure(tmp_path):
    accuracy_figure(some_panels(), "title", tmp_path / "figure")
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or not pyplot.get_fignums()


@pytest.mark.slow
def test_a_figure_that_fails_leaves_the_old_one(monkeypatch, tmp_path):
    from pathlib import Path

    png, _ = accuracy_figure(some_panels(), "title", tmp_path / "figure")
    before = png.read_bytes()

    def no_space(*_):
        raise OSError("no space")

    monkeypatch.setattr(Path, "replace", no_space)
    with pytest.raises(OSError, match="no space"):
        accuracy_figure(some_panels(), "another title", tmp_path / "figure")
    assert png.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 2


def test_without_matplotlib_the_fix_is_named(monkeypatch, tmp_path):
    for name in ("matplotlib", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match=r"pip install '\.\[report\]' in Ziggurat's folder"):
        accuracy_figure(some_panels(), "title", tmp_path / "figure")


def test_a_figure_of_nothing_is_refused(tmp_path):
    with pytest.raises(ValueError, match="at least one panel"):
        accuracy_figure([], "title", tmp_path / "figure")
