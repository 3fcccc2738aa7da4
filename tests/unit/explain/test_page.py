"""The views' common parts and the page, on explanations made by hand."""

from dataclasses import replace
from html.parser import HTMLParser

import pytest

from ziggurat.explain import Explanation, facts
from ziggurat.explain.page import comparison, decision, departures, legible, page, stretches
from ziggurat.explain.record import RungDecision, TokenFate


def token(piece, side=None, start=0, end=0, left_at=None):
    return TokenFate(piece, 0, side, start, end, left_at, ())


def rung(layer, score, threshold, leaves, **probabilities):
    answer = {"probabilities": probabilities or {"river": 0.25, "stone": 0.75}}
    return RungDecision(layer, f"layer {layer}", score, threshold, None, leaves, answer)


def made(text, inner, **changes):
    told = Explanation(
        model="runs/tiny",
        operating_point="balanced",
        text=text,
        windows=None,
        tokens=(token("[CLS]"), *inner, token("[SEP]", left_at=1)),
        answer={"probabilities": {"river": 0.25, "stone": 0.75}},
        layers=2,
        of_layers=4,
        truncated=False,
        flops=10**9,
        full_flops=2 * 10**9,
        flops_ratio=2.0,
        full={"probabilities": {"river": 0.6, "stone": 0.4}},
        agrees=False,
        score="entropy",
        larger_is_surer=False,
        rungs=(rung(1, 0.41, 0.3, False), rung(2, 0.2, 0.3, True)),
        pruning=None,
    )
    return replace(told, **changes)


def shown(explanation) -> str:
    return "".join(stretch.string for stretch in stretches(explanation))


def test_word_pieces_follow_each_other_and_keep_their_own_layers():
    told = made("Two towers", [token("two", 0, 0, 3, 0), token("tower", 0, 4, 9, 2), token("##s", 0, 9, 10)])
    assert shown(told) == "[CLS] Two towers [SEP]"
    assert [(s.string, s.left_at) for s in stretches(told) if s.token] == [
        ("[CLS]", None),
        ("Two", 0),
        ("tower", 2),
        ("s", None),
        ("[SEP]", 1),
    ]


def test_tokens_of_one_character_are_shown_once():
    places = [(1, 2), (2, 3), (None, 1)]
    for first, second in places:
        tokens = [token("ᄒ", 0, 0, 1, first), token("##ᅡ", 0, 0, 1, second), token("a", 0, 1, 2)]
        told = stretches(made("한a", tokens))
        assert [s.string for s in told if s.token] == ["[CLS]", "한", "a", "[SEP]"]
        assert told[2].left_at == (None if first is None else second)
        assert told[2].note.count("\n") == 1


def test_a_pair_is_shown_in_order_with_an_ellipsis_for_the_cut():
    tokens = [token("a", 0, 1, 2), token("[SEP]"), token("b", 1, 0, 1), token("c", 1, 2, 3)]
    assert shown(made((" a ", "b c"), tokens)) == "[CLS] a [SEP] b c [SEP]"
    assert shown(made((" a ", "b c d"), tokens, truncated=True)) == "[CLS] a [SEP] b c … [SEP]"
    assert shown(made((" a d", "b c "), tokens, truncated=True)) == "[CLS] a … [SEP] b c [SEP]"


def test_characters_that_move_the_cursor_are_not_shown():
    assert legible("a\x1b[31mb\n\u202ec\ud800é한") == "a [31mb  c é한"
    assert shown(made("a\tb", [token("a", 0, 0, 1), token("b", 0, 2, 3)])) == "[CLS] a b [SEP]"


@pytest.mark.parametrize(
    ("score", "threshold", "leaves", "larger", "line"),
    [
        (0.41, 0.3, False, False, "0.41 > 0.30"),
        (0.3, 0.3, True, False, "0.30 <= 0.30"),
        (0.9, 0.8, True, True, "0.90 >= 0.80"),
        (0.7, 0.8, False, True, "0.70 < 0.80"),
        (0.30004, 0.3, False, False, "0.300040 > 0.300000"),
        (0.5, "-inf", False, False, "0.50 > -inf"),
        (0.5, None, True, False, "0.50"),
    ],
)
def test_a_comparison_shows_the_sign_and_enough_digits_to_see_it(score, threshold, leaves, larger, line):
    told = made("", [], larger_is_surer=larger)
    assert comparison(told, rung(1, score, threshold, leaves)) == line


def test_a_rung_stays_leaves_or_is_the_last():
    assert decision(rung(1, 0.5, 0.4, False)) == "stays"
    assert decision(rung(1, 0.3, 0.4, True)) == "leaves"
    assert "last" in decision(rung(4, 0.5, None, True))


def test_departures_count_tokens_by_layer():
    told = made("a b c", [token("a", 0, 0, 1, 2), token("b", 0, 2, 3, 0), token("c", 0, 4, 5, 2)])
    assert list(departures(told).items()) == [(0, 1), (1, 1), (2, 2)]


def test_facts_say_the_answer_the_cost_and_what_full_depth_says():
    told = dict(facts(made("a", [token("a", 0, 0, 1)], truncated=True)))
    assert told["answer"] == "stone 0.75, river 0.25"
    assert told["layers"] == "2 of 4 ran, at balanced"
    assert told["tokens"] == "2 of 3 stayed; the text was cut"
    assert told["FLOPs"] == "1 of 2 G, 2.00x fewer"
    assert told["full depth"] == "another answer: river 0.60, stone 0.40"
    dear = dict(facts(made("a", [], flops_ratio=0.5, agrees=True)))
    assert dear["FLOPs"].endswith("2.00x more") and dear["full depth"].startswith("the same answer")


class Elements(HTMLParser):
    """What a browser would make of a page: its elements and their attributes, and the text that is not style."""

    def __init__(self, document):
        super().__init__()
        self.open, self.found, self.text = [], [], ""
        self.feed(document)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data * ("style" not in self.open)


@pytest.fixture(scope="module")
def nasty():
    """Everything that comes from outside tries to be markup."""
    evil = "<script>alert('1')</script>\"&amp;"
    tokens = [token(f'"{evil}', 0, 0, 8, 0), token("##x", 0, 8, len(evil), 2)]
    rungs = (rung(1, 0.41, 0.3, False, **{evil: 0.9, "b": 0.1}),)
    return evil, made(
        evil, tokens, model=evil, rungs=rungs, answer={"probabilities": {evil: 1.0}}, operating_point=evil
    )


def test_nothing_from_outside_becomes_markup(nasty):
    evil, told = nasty
    elements = Elements(page(told))
    assert elements.open == []
    assert not {"script", "b"} & {tag for tag, _ in elements.found}
    assert {name for _, attributes in elements.found for name in attributes} <= {
        *("lang", "charset", "name", "content", "http-equiv", "class", "style", "title")
    }
    # The title, the text, the rung, the answer, the operating point and the model.
    assert elements.text.count(evil) == 6
    assert f"[CLS] {evil}2 [SEP]1" in elements.text


def test_a_page_needs_no_network_or_scripts_and_has_dark_colours(nasty):
    document = page(nasty[1])
    assert "prefers-color-scheme: dark" in document
    assert not any(word in document for word in ("http:", "https:", "<link", "<img", "src=", "url(", "@import"))


def test_a_tokens_colour_goes_from_early_to_late():
    tokens = [token("a", 0, i, i + 1, layer) for i, layer in enumerate([1, 2, 3, 4])]
    spans = [attributes for _, attributes in Elements(page(made("aaaa", tokens))).found if "style" in attributes][:4]
    assert [span["style"] for span in spans] == [f"--hue: {hue}" for hue in (0, 90, 180, 270)]


@pytest.mark.parametrize("name", ["bert", "roberta", "camembert"])
def test_a_text_is_shown_as_it_was_given(tmp_path, name):
    from tests.kit.families import tokenizer_of
    from ziggurat.data import TextTokenizer

    tokenizer_of(name).save_pretrained(tmp_path)
    text = "barks, émile 한국 stone"
    pieces = TextTokenizer(tmp_path, 64).pieces(text)
    tokens = tuple(token(one.string, one.side, one.start, one.end) for one in pieces)
    told = made(text, [], tokens=tokens)
    first, *_, last = (stretch.string for stretch in stretches(told))
    assert shown(told) == f"{first} {text} {last}"
