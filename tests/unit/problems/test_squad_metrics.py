"""EM and F1 on cases made by hand, by the rules of SQuAD's official scripts."""

import numpy as np
import pytest

from ziggurat.problems import grades
from ziggurat.problems.metrics import exact_match, normalised
from ziggurat.problems.metrics import word_f1 as f1
from ziggurat.problems.metrics import word_f1_or_none as f1_or_none


@pytest.mark.parametrize(
    ("answer", "plain"),
    [
        ("The  Broncos!", "broncos"),
        ("an apple, a day", "apple day"),
        ("U.S. dollars", "us dollars"),
        ("theatre and anthem", "theatre and anthem"),  # an article is a word, not a beginning
        ("\tnew\nline ", "new line"),
        ("The", ""),
        ("—", "—"),  # only ASCII punctuation goes
        ("well-known", "wellknown"),
        ("the-a", "thea"),  # punctuation goes first, then articles
        ("A A a", ""),
        ("É", "é"),
    ],
)
def test_answers_are_compared_without_case_and_articles(answer, plain):
    assert normalised(answer) == plain


@pytest.mark.parametrize(
    ("prediction", "gold", "exact", "score"),
    [
        ("Denver Broncos", "the denver broncos.", 1, 1),
        ("Denver", "Denver Broncos", 0, 2 / 3),
        ("in Denver, Colorado", "Denver Broncos", 0, 2 / 5),
        ("Carolina", "Denver", 0, 0),
        ("one one two", "one two two", 0, 2 / 3),  # words count as often as they stand there
        ("", "Denver", 0, 0),
        ("Denver", "", 0, 0),
    ],
)
def test_exact_match_and_f1_of_one_answer(prediction, gold, exact, score):
    assert exact_match(prediction, gold) == exact
    assert f1(prediction, gold) == pytest.approx(score)
    assert f1_or_none(prediction, gold) == pytest.approx(score)


def test_two_wordless_answers_are_worth_0_in_1_1_and_1_in_2_0():
    assert (exact_match("the", "a"), f1("the", "a"), f1_or_none("the", "a"), f1_or_none("", "")) == (1, 0, 1, 1)


def test_the_best_of_several_golds_counts():
    exact, scores = grades(["Denver Broncos"], [["Carolina", "Denver", "the Denver Broncos"]])
    assert exact.tolist() == [1] and scores.tolist() == [1]
    exact, scores = grades(["Denver city"], [["Carolina", "Denver"]])
    assert exact.tolist() == [0] and scores == pytest.approx(np.array([2 / 3]))


def test_of_a_question_without_an_answer_only_silence_is_right():
    exact, scores = grades(["", "Denver", "", "Denver"], [[], [], ["Denver"], ["Denver"]])
    assert exact.tolist() == scores.tolist() == [1, 0, 0, 1]


def test_in_2_0_golds_without_words_are_left_out():
    assert grades(["", "x"], [["the"], []])[1].tolist() == [1, 0]
    assert grades(["Denver", "x"], [["the", "Denver"], []])[1].tolist() == [1, 0]


def test_predictions_and_golds_must_pair():
    with pytest.raises(ValueError, match="1 predictions for 2 questions"):
        grades(["x"], [["x"], ["y"]])
