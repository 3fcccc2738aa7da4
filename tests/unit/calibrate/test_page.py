"""A calibration's page says what was promised, holds its numbers, needs nothing from outside, and runs nothing."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from tests.kit.calibrations import SCRIPT, entry, picture, result, spot
from ziggurat.calibrate.page.page import page
from ziggurat.errors import UserError

EXACT = entry("exact", 0.0, note="1,450 rows do not certify 0 points for anything faster")
BALANCED, FAST = entry("balanced", 0.005, 4.5, 0.0012), entry("fast", 0.01, 6.125, 0.002)
FORBIDDEN = {"script", "link", "img", "iframe", "object", "embed", "base", "form", "image", "foreignobject"}


class Reader(HTMLParser):
    """Tags, attributes, and what can be read outside of them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attributes]
        self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attributes]

    def handle_endtag(self, tag):
        if tag in self.open:
            del self.open[len(self.open) - 1 - self.open[::-1].index(tag) :]

    def handle_data(self, data):
        if "style" not in self.open and data.strip():
            self.words.append(" ".join(data.split()))


@pytest.fixture(scope="module")
def made() -> str:
    return page(result(EXACT, BALANCED, FAST), picture(spot("balanced", 4.5), spot("fast", 6.125)))


def test_the_fastest_promise_stands_first(made):
    words = Reader(made).words
    assert words[0] == "fast: 6.1x as fast, loses at most 1 point of accuracy against full depth, with 95 % confidence"
    assert words[1] == "fast: 6.1x as fast as full depth"
    assert (
        words[2] == "With 95 % confidence it loses at most 1 point of accuracy against full depth, on texts like these."
    )


def test_every_point_has_its_promise_and_its_numbers(made):
    words = Reader(made).words
    row = words.index("balanced", words.index("What is promised"))
    assert words[row : row + 8] == [
        "balanced",
        "with 95 % confidence loses at most 0.5 points of accuracy against full depth on texts like these",
        "1,450",
        "0.12",
        "91.63%",
        "4.5x (4.2–4.8)",
        "0.453",
        "0.444",
    ]
    row = words.index("exact", words.index("What is promised"))
    exact = words[row : row + 9]
    assert exact[1:3] == ["is full depth, which loses nothing", EXACT.note]
    assert exact[4:] == ["0.00", "91.83%", "1x", "2.04", "–"]


def test_bars_and_cells_are_the_arrays(made):
    words = Reader(made).words
    section = words[words.index("fast", words.index("What the points do")) :]
    leave = section.index("Where texts leave")
    assert section[leave + 1 : leave + 7] == ["layer 2", "62.5 %", "layer 4", "25.0 %", "layer 6", "12.5 %"]
    assert "--share: 62.50%" in made and "--share: 11.10%" in made
    left = section.index("Tokens that are left behind each layer")
    assert section[left + 11 : left + 13] == ["layer 6", "11.1 %"]
    heat = section.index("would have corrected")
    cells = [f"{100 * value:.2f}" for value in spot("fast", 6.1).deciles.corrected]
    assert section[heat + 1 : heat + 12] == ["6.00", *cells]
    assert section[section.index("would have added") + 1] == "3.00"
    assert any("margin after layer 2" in word for word in section)


def test_what_does_not_pay_says_why(made):
    text = " ".join(Reader(made).words)
    assert "Leaving early pays: 0.5 ms with it, 2 ms without. Pruning is off: the model prunes no tokens." in text
    assert "exits alone 0.5 4.00x may leave after layer 2, layer 4" in text


def test_the_figure_names_the_points_and_the_controls(made):
    svg = made[made.index("<svg") : made.index("</svg>")]
    for name in ("fast 6.1x", "balanced 4.5x", "random exits", "oracle exits", "full depth", "accuracy (%)"):
        assert f">{name}<" in " ".join(svg.split()), name
    assert "at most 0.5: balanced" in svg and "at most 1: fast" in svg
    assert "var(--blue)" in svg and "var(--ink)" in svg
    assert not re.search(
        r"#[0-9a-f]{6}", re.sub(r'"#[^"]*"|url\(#[^)]*\)', "", svg)
    )  # a colour that fits one theme only


@pytest.mark.parametrize("labels", [True, False])
def test_the_page_is_self_contained_and_runs_nothing(labels):
    spots = spot("fast", 6.125, labels)
    text = page(result(EXACT, FAST, criterion="accuracy" if labels else "agreement"), picture(spots, labels=labels))
    reader = Reader(text)
    assert not FORBIDDEN & set(reader.tags)
    for name, value in reader.attributes:
        assert not name.startswith("on")
        if name.startswith("xmlns"):
            assert value.startswith("http://www.w3.org/")
        else:
            assert "//" not in value, (name, value)
        if name in ("href", "xlink:href", "src"):
            assert value.startswith("#")
    outside = re.findall(r"https?://[^\"'<\s]*", text)
    assert set(outside) <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert "default-src 'none'" in text and "@import" not in text


def test_nothing_that_a_user_names_becomes_markup():
    name = "a<b>$x^2$"
    text = page(result(entry(name, 0.01, 6.0), EXACT), picture(spot(name, 6.0)))
    reader = Reader(text)
    words = " ".join(reader.words)
    assert "script" not in reader.tags
    assert SCRIPT in words and "runs/<b>model</b>" in words
    assert f"{name} 6.0x" in words  # in the figure too, and not as a formula
    assert "<script" not in text


def test_a_long_text_is_cut():
    shown = picture(spot("fast", 6.0))
    long = replace(shown, costly=(replace(shown.costly[0], text="word " * 200),))
    assert "word " * 40 + " …" in page(result(FAST), long)


def test_without_labels_it_counts_disagreements():
    made = page(result(FAST, criterion="agreement"), picture(spot("fast", 6.125, labels=False), labels=False))
    words = Reader(made).words
    assert "differs from full depth" in words and "would have corrected" not in words
    assert "With 95 % confidence it answers at most 1 % of texts otherwise than full depth, on" in " ".join(words)
    assert "accuracy (%)" not in made
    row = words.index("fast", words.index("What is promised"))
    assert words[row + 3 : row + 5] == ["0.20", "–"]
    assert "label" not in words


def test_where_nothing_was_certified_it_says_so_and_why():
    slow = entry("fast", 0.01, note="nothing is faster than full depth on this machine")
    made = page(result(EXACT, slow), picture(settings=0))
    words = Reader(made).words
    assert words[0] == "runs/<b>model</b>: nothing faster than full depth is promised"
    assert words[1:3] == [
        "Nothing faster than full depth is promised",
        "fast: nothing is faster than full depth on this machine.",
    ]
    assert "What the points do" not in words
    assert "The inputs that cost most at full depth" in words


def test_a_target_without_a_point_promises_nothing():
    none = replace(entry("fast", 0.01, note="too few rows"), point=None)
    words = Reader(page(result(none, reference="original"), picture())).words
    row = words.index("fast", words.index("What is promised"))
    assert words[row : row + 9] == ["fast", "no promise", "too few rows", *["–"] * 6]


def test_against_another_model_full_depth_is_a_point_too():
    made = page(result(entry("fast", 0.01), reference="runs/original"), picture())
    promise = "loses at most 1 point of accuracy against runs/original at full depth on texts like these"
    assert f"with 95 % confidence {promise}" in Reader(made).words


def test_without_matplotlib_the_way_to_install_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UserError, match=r"'\.\[report\]'"):
        page(result(FAST), picture(spot("fast", 6.0)))
