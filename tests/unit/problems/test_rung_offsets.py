"""The no-answer threshold, against trying every cut."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ziggurat.problems.spans import best_offset as best_no_answer


def mean_score(threshold, leads, answered, silent):
    return float(np.where(leads > threshold, silent, answered).mean())


@settings(derandomize=True, deadline=None)
@given(n=st.integers(1, 30), seed=st.integers(0, 999), ties=st.booleans())
def test_no_other_threshold_scores_better(n, seed, ties):
    rng = np.random.default_rng(seed)
    leads = rng.normal(size=n).round(1 if ties else 9)
    silent = (rng.random(n) < 0.4).astype(float)
    answered = np.where(silent > 0, 0, rng.random(n))
    chosen = best_no_answer(leads, answered, silent)
    assert chosen not in leads
    tried = [mean_score(cut, leads, answered, silent) for cut in [*leads, leads.min() - 1]]
    assert mean_score(chosen, leads, answered, silent) >= max(tried) - 1e-12


def test_it_lies_between_questions_with_and_without_an_answer():
    leads, silent = np.array([-2.0, -1.0, 1.0, 3.0]), np.array([0.0, 0.0, 1.0, 1.0])
    assert best_no_answer(leads, 1 - silent, silent) == 0.0
    assert best_no_answer(leads, np.ones(4), np.zeros(4)) > 3
    assert best_no_answer(leads, np.zeros(4), np.ones(4)) < -2


def test_a_context_without_words_decides_nothing():
    assert np.isfinite(best_no_answer(np.array([0.5, -0.5]), np.array([1.0, 1.0]), np.zeros(2)))
    assert best_no_answer(np.array([-1.0, np.inf]), np.array([1.0, 0.0]), np.array([0.0, 1.0])) > -1
