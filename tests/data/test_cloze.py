"""Cloze questions: answers stand in their contexts, nothing depends on other texts, stages learn from them."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ziggurat.data.cloze import EDGE, FUNCTION_WORDS, LONGEST, cloze_questions
from ziggurat.data.squad import Questions
from ziggurat.data.tasks import Role

TEXT = (
    "The Panthers gave up just 308 points in 2015, ranking sixth in the league. Kawann Short (a lineman) led the "
    'team in sacks with 11. It was "over" by then.'
)
words = st.sampled_from(
    ["the", "of", "Ann", "Lee", "308", "1998,", "(red", "boat)", "ran.", "and", "sea;", "“”", "..."]
)
texts = st.lists(words, max_size=25).map("  ".join)


def asked(contexts, role=Role.TRAIN):
    n = len(contexts)
    return Questions([str(i) for i in range(n)], ["?"] * n, contexts, [f"a{i}" for i in range(n)], None, role, "rows")


@given(st.lists(texts, max_size=4), st.integers(1, 6))
def test_every_answer_stands_where_it_says_and_begins_and_ends_with_a_word_that_means_something(contexts, count):
    made = cloze_questions(asked(contexts), count)
    for context, question, golds in zip(made.contexts, made.texts, made.golds, strict=True):
        [(text, start)] = golds
        assert text and context[start : start + len(text)] == text
        ends = [word.strip(EDGE).lower() for word in text.split()]
        assert len(ends) <= LONGEST and not {ends[0], ends[-1]} & {*FUNCTION_WORDS, ""}
        assert question.endswith("?") and len(question.split()) >= 4
    assert len(set(made.ids)) == len(made)


def test_a_sentence_gets_at_most_so_many_different_answers_and_the_question_leaves_them_out():
    made = cloze_questions(asked([TEXT]), 4)
    sentences = [TEXT[:74], TEXT[75:136]]
    for sentence in sentences:
        begin = TEXT.index(sentence)
        starts = [gold for [gold] in made.golds if begin <= gold[1] < begin + len(sentence)]
        assert 2 <= len(starts) <= 4 and len(set(starts)) == len(starts)
    by_answer = {golds[0][0]: text for text, golds in zip(made.texts, made.golds, strict=True)}
    assert all(answer not in question for answer, question in by_answer.items() if len(answer) > 2)


def test_names_and_numbers_are_asked_for_more_often_than_other_spans():
    contexts = [f"{TEXT} {number}" for number in range(60)]
    answers = [golds[0][0] for golds in cloze_questions(asked(contexts), 1).golds]
    assert answers.count("Kawann Short") > 3 * answers.count("sixth") and answers.count("308") > answers.count("just")


def test_a_year_is_asked_for_as_a_year():
    made = cloze_questions(asked([TEXT]), 40)
    years = [text for text, golds in zip(made.texts, made.golds, strict=True) if golds[0][0] == "2015"]
    assert years and all(text.startswith("What year ") for text in years)


def test_what_is_made_of_a_text_depends_on_no_other_and_each_is_used_once():
    both, alone = (cloze_questions(asked(contexts), 3) for contexts in ([TEXT[:80], TEXT, TEXT], [TEXT]))
    mine = np.flatnonzero([context == TEXT for context in both.contexts])
    assert both.take(mine).texts == alone.texts and both.take(mine).golds == alone.golds
    assert set(both.take(mine).articles) == {"a2"} and len(alone) > 2
    assert cloze_questions(asked([TEXT]), 3).texts == alone.texts != cloze_questions(asked([TEXT]), 3, seed=1).texts
    assert cloze_questions(asked([TEXT], Role.SELECT), 3).role is Role.SELECT


def test_nothing_is_made_of_nothing_and_a_number_below_one_is_refused():
    assert len(cloze_questions(asked(["the of and", ""]), 3)) == 0
    with pytest.raises(ValueError, match="per_sentence 0"):
        cloze_questions(dataclasses.replace(asked([TEXT])), 0)
