"""The best span and its doubt, against loops that say what is meant."""

from math import log

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ziggurat.policies import SPAN_ENTROPY, ExitRule, exit_score
from ziggurat.problems.spans import best_spans, end_entropies, null_scores


def literal(logits, context, longest):
    best = (-np.inf, 0, 0)
    for start in np.flatnonzero(context):
        for end in np.flatnonzero(context):
            total = float(logits[start, 0]) + float(logits[end, 1])
            if start <= end <= start + longest and total > best[0]:
                best = (total, start, end)
    return best


@settings(derandomize=True, deadline=None, max_examples=60)
@given(
    n=st.integers(1, 4),
    width=st.integers(1, 20),
    longest=st.integers(0, 25),
    seed=st.integers(0, 999),
    ties=st.booleans(),
)
def test_the_best_span_is_the_one_that_trying_all_finds(n, width, longest, seed, ties):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, width, 2)).astype(np.float32)
    logits = logits.round() if ties else logits
    context = rng.random((n, width)) < 0.7
    scores, places = best_spans(logits, context, longest)
    for window in range(n):
        total, start, end = literal(logits[window], context[window], longest)
        assert (scores[window], *places[window]) == (total, start, end)


def test_a_window_without_context_has_no_span():
    scores, places = best_spans(np.ones((1, 3, 2), np.float32), np.zeros((1, 3), bool), 5)
    assert np.isneginf(scores[0]) and places.tolist() == [[0, 0]]


def test_entropies_are_of_the_candidates_and_between_0_and_1():
    logits = np.zeros((2, 5, 2), np.float32)
    logits[0, 1, 0], logits[:, 4] = 50, 99  # the last token is no candidate
    candidates = np.array([[True, True, True, False, False], [True, True, False, True, False]])
    entropies = end_entropies(logits, candidates)
    assert entropies == pytest.approx(np.array([[0, 1], [1, 1]]), abs=1e-9)
    logits[1, 0, 1] = log(2)  # 1/2, 1/4, 1/4 of three candidates
    assert end_entropies(logits, candidates)[1, 1] == pytest.approx(1.5 * log(2) / log(3))


def test_one_candidate_is_sure():
    assert end_entropies(np.zeros((1, 2, 2), np.float32), np.array([[True, False]])).tolist() == [[0, 0]]


def test_no_answer_scores_what_the_first_token_does():
    assert null_scores(np.arange(8, dtype=np.float32).reshape(1, 4, 2)).tolist() == [1]


def test_a_question_leaves_when_start_and_end_are_sure():
    history = np.array([[[0.9, 0.9], [0.1, 0.3]], [[0.1, 0.1], [0.3, 0.5]]])
    assert exit_score(SPAN_ENTROPY).of(history).tolist() == [0.3, 0.5]
    assert ExitRule.uniform(SPAN_ENTROPY, 0.3, 3).exits(1, history, np.arange(2)).tolist() == [True, False]
