"""What `explain` shows in a terminal, from a real explanation."""

import dataclasses
import re
from itertools import pairwise
from pathlib import Path

import pytest

from ziggurat.cli.explain import SCALE, explanation_text
from ziggurat.engine import OpenedModel
from ziggurat.explain import explanation

ANSI = re.compile("\x1b\\[[0-9;]*m")
TEXT = "Bat kin, rat loss ban unheard net posh bat kish mulm ban lon nend balm"


@pytest.fixture(scope="module")
def told(pruned_folder):
    classifier = OpenedModel.from_pretrained(pruned_folder, "cpu")
    result = explanation(classifier, TEXT, classifier.rule("entropy", 0.0))
    return dataclasses.replace(result, model="tiny", operating_point="entropy 0")


@pytest.fixture(scope="module")
def unpruned(model_folder):
    classifier = OpenedModel.from_pretrained(model_folder, "cpu")
    result = explanation(classifier, TEXT, classifier.rule("entropy", 0.0))
    return dataclasses.replace(result, model="tiny", operating_point="entropy 0")


def test_each_layer_that_dropped_tokens_is_a_line_with_dots(told):
    lines = explanation_text(told, width=200).splitlines()
    text = lines[0]
    assert text == f"{'text':<13} [CLS] {TEXT} [SEP]"
    layers = sorted({token.left_at for token in told.tokens} - {None})
    assert len(layers) >= 3 and layers[0] == 0
    for layer, line in zip(layers, lines[1:], strict=False):
        assert len(line) == len(text)
        assert line.startswith("read -" if layer == 0 else f"layer {layer} -")
        for token in told.tokens:
            gone = token.left_at is not None and token.left_at <= layer
            if token.side is not None:
                shown = line[20:][token.start : token.end]
                assert shown == ("·" * len(shown) if gone else TEXT[token.start : token.end])


def test_lines_keep_to_the_width_and_break_at_the_same_places(told):
    paragraphs = explanation_text(told, width=60).split("\n\n")[0].splitlines()
    titles = [i for i, line in enumerate(paragraphs) if not line.startswith(" ")] + [len(paragraphs)]
    heights = {b - a for a, b in pairwise(titles)}
    assert heights == {2}
    assert max(map(len, paragraphs)) <= 60


def test_without_pruning_the_text_is_shown_once(unpruned):
    lines = explanation_text(unpruned).splitlines()
    assert [line.startswith("text") for line in lines[:2]] == [True, False]
    assert "·" not in "".join(lines)


def test_every_rung_is_a_line_and_the_last_one_answers(told):
    lines = explanation_text(told).split("\n\n")[1].splitlines()
    assert [line.split()[:3] for line in lines] == [["layer", str(layer), "entropy"] for layer in (1, 2, 3, 4)]
    assert all("> 0.00  stays" in line for line in lines[:-1])
    assert "answers" in lines[-1]


def test_colours_change_nothing_but_colours(told):
    plain = ANSI.sub("", explanation_text(told, colour=True))
    assert plain.splitlines()[0] == f"[CLS] {TEXT} [SEP]"
    assert plain.split("\n\n")[2:] == explanation_text(told).split("\n\n")[1:]


def test_each_layer_of_a_deep_model_up_to_twelve_has_its_colour(told):
    tokens = [dataclasses.replace(token, left_at=place + 1) for place, token in enumerate(told.tokens[:12])]
    coloured = explanation_text(dataclasses.replace(told, tokens=tuple(tokens), of_layers=12), colour=True)
    assert [int(code) for code in re.findall("48;5;([0-9]+)m", coloured)[:12]] == list(SCALE)


def test_the_page_that_was_written_is_named(told):
    assert explanation_text(dataclasses.replace(told, html=Path("a/b.html"))).splitlines()[-1].split() == [
        "page",
        "a/b.html",
    ]
    assert "page" not in explanation_text(told)
