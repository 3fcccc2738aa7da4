"""Progress bars: often for people, seldom in files."""

import io
import sys

import pytest

from ziggurat.system import bar


@pytest.mark.parametrize(("people", "least", "most"), [(True, 0, 1), (False, 10, 60)])
def test_a_bar_is_drawn_often_for_people_and_seldom_into_a_file(people, least, most, monkeypatch):
    stream = io.StringIO()
    stream.isatty = lambda: people
    monkeypatch.setattr(sys, "stderr", stream)
    with bar("x", 3, "texts") as shown:
        assert least < shown.mininterval < most
