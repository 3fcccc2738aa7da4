"""Whatever a text holds, a terminal stays as it was, JSON says it exactly, and files are UTF-8."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ziggurat.system import json_text, legible, legible_values, utf8

ANY = st.text(st.characters(codec=None), max_size=30)  # lone surrogates too


@given(ANY)
def test_what_people_see_is_one_line_that_moves_nothing(text):
    shown = legible(text)
    assert len(shown) == len(text)
    assert len(shown.splitlines()) <= 1 and "\t" not in shown
    assert all(one.isprintable() or one in "\u200c\u200d" for one in shown)
    assert legible(shown) == shown
    shown.encode("utf-8")


@pytest.mark.parametrize("text", ["Straße, 日本語, 한국어, עברית", "\U0001f469\u200d\U0001f4bb", "می\u200cخواهم"])
def test_what_people_write_stays(text):
    assert legible(text) == text


def test_escapes_marks_of_direction_and_line_ends_become_spaces():
    assert legible("a\x1b]0;b\x07\u202ec\r\nd\x9be\u2028f\ud83d") == "a ]0;b  c  d e f "


def test_values_are_legible_wherever_they_are():
    values = {"a\n": ["b\x1b", {"c": ("d\t", 1, None)}], "n": 2.5}
    assert legible_values(values) == {"a ": ["b ", {"c": ("d ", 1, None)}], "n": 2.5}


@given(st.lists(st.dictionaries(ANY, ANY | st.none() | st.integers(), max_size=3), max_size=3))
def test_json_is_exact_one_line_and_utf8(values):
    line = json_text(values)
    assert json.loads(line.encode("utf-8")) == json.loads(json.dumps(values))  # two halves become one character
    assert line.splitlines() in ([line], [])
    assert not any("\x7f" <= one <= "\x9f" or one == "\x1b" for one in line)


def test_json_keeps_letters_and_says_halves_as_escapes():
    assert json_text({"é": "日\ud83d\u202e"}) == '{"é": "日\\ud83d\\u202e"}'
    assert json_text([1], indent=1) == "[\n 1\n]"


def test_half_a_character_is_a_mark_in_files_that_cannot_say_it():
    assert utf8("a\ud83db é") == "a\ufffdb é".encode()
