"""Measures of answers, against the formulae of sklearn and scipy worked by hand and against scipy itself."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ziggurat.errors import UserError
from ziggurat.problems import MEASURES, f1, mcc
from ziggurat.problems.metrics import (
    accuracy,
    bootstrap_interval,
    f1_macro,
    f1_micro,
    measure_by_name,
    measures,
    pearson,
    spearman,
)

# TP 3, FP 1, FN 2, TN 4
PREDICTIONS = np.array([1, 1, 1, 1, 0, 0, 0, 0, 0, 0])
TRUTH = np.array([1, 1, 1, 0, 1, 1, 0, 0, 0, 0])
CLASSES = ("accuracy", "f1", "f1-macro", "f1-micro", "mcc")
SETS = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 0]])
TRUE_SETS = np.array([[1, 0, 0], [1, 0, 0], [0, 1, 0], [1, 0, 0]])

numbers = st.integers(2, 12).flatmap(
    lambda n: st.tuples(*[st.lists(st.integers(-3, 3), min_size=n, max_size=n)] * 2, st.integers(0, 10**6))
)


def test_binary_measures_are_those_of_the_table_of_confusions():
    assert accuracy(PREDICTIONS, TRUTH) == 0.7
    assert f1(PREDICTIONS, TRUTH) == pytest.approx(2 * 3 / (2 * 3 + 1 + 2))
    assert mcc(PREDICTIONS, TRUTH) == pytest.approx((3 * 4 - 1 * 2) / math.sqrt(4 * 5 * 5 * 6))


def test_matthews_of_several_classes_is_gorodkins():
    truth, answers = np.array([0, 1, 2, 2, 1]), np.array([0, 2, 2, 2, 1])
    # n 5, right 4; answered (1, 1, 3), true (1, 2, 2): (5·4 - (1 + 2 + 6)) / √((25 - 11) (25 - 9))
    assert mcc(answers, truth) == pytest.approx(11 / math.sqrt(14 * 16))


@pytest.mark.parametrize("answers", [np.zeros(10, int), np.ones(10, int)])
def test_constant_answers_have_a_correlation_of_0_as_in_sklearn(answers):
    assert mcc(answers, TRUTH) == 0
    assert mcc(TRUTH, answers) == 0


def test_f1_without_any_positive_is_0_as_in_sklearn():
    nothing = np.zeros(4, int)
    assert f1(nothing, nothing) == 0
    assert f1_micro(np.zeros((4, 2), int), np.zeros((4, 2), int)) == 0


def test_label_sets_have_a_share_of_exact_answers_and_two_f1():
    assert accuracy(SETS, TRUE_SETS) == 0.5
    # Labels: (TP 2, FP 0, FN 1), (TP 1, FP 1, FN 0), nobody names the third.
    assert f1_macro(SETS, TRUE_SETS) == pytest.approx((4 / 5 + 2 / 3 + 0) / 3)
    assert f1_micro(SETS, TRUE_SETS) == pytest.approx(2 * 3 / (2 * 3 + 1 + 1))


def test_f1_of_classes_is_the_mean_over_those_that_occur():
    truth, answers = np.array([0, 0, 1, 5]), np.array([0, 1, 1, 0])
    # Classes: 0 (TP 1, FP 1, FN 1), 1 (TP 1, FP 1, FN 0), 5 (FN 1).
    assert f1_macro(answers, truth) == pytest.approx((1 / 2 + 2 / 3 + 0) / 3)
    assert f1_micro(answers, truth) == accuracy(answers, truth) == 0.5


def test_correlations_of_a_constant_are_not_defined():
    x = np.array([1.0, 2.0, 3.0])
    for measure in (pearson, spearman):
        assert math.isnan(measure(np.full(3, 0.1), x))
        assert math.isnan(measure(x, np.full(3, 0.1)))
    assert measures(["pearson"], np.full(3, 0.1), x) == {"pearson": None, "pearson_low": None, "pearson_high": None}


@settings(max_examples=60, deadline=None)
@given(numbers)
def test_correlations_are_scipys(case):
    x, y = (np.array(one, dtype=float) for one in case[:2])
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return
    assert pearson(x, y) == pytest.approx(stats.pearsonr(x, y).statistic, abs=1e-9)
    assert spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(numbers)
def test_a_row_that_counts_twice_is_a_row_that_is_there_twice(case):
    x, y, seed = np.array(case[0]), np.array(case[1]), case[2]
    weights = np.random.default_rng(seed).integers(0, 3, size=(4, len(x))).astype(float)
    weights[:, 0] += 1
    for name in (*CLASSES, "pearson", "spearman"):
        measure = MEASURES[name]
        repeated = [measure(np.repeat(x, w), np.repeat(y, w)) for w in weights.astype(int)]
        np.testing.assert_allclose(measure(x, y, weights), repeated, atol=1e-9)


def test_the_measure_of_label_sets_counts_rows_likewise():
    weights = np.array([[2.0, 0.0, 1.0, 1.0], [0.0, 3.0, 0.0, 1.0]])
    for measure in (accuracy, f1_macro, f1_micro):
        repeated = [measure(*(np.repeat(sets, w, axis=0) for sets in (SETS, TRUE_SETS))) for w in weights.astype(int)]
        np.testing.assert_allclose(measure(SETS, TRUE_SETS, weights), repeated)


def test_a_bootstrap_interval_holds_the_value_and_repeats():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, 400)
    answers = np.where(rng.random(400) < 0.8, truth, 1 - truth)
    low, high = bootstrap_interval(f1, answers, truth)
    assert low < f1(answers, truth) < high < low + 0.15
    assert bootstrap_interval(f1, answers, truth) == (low, high)
    assert bootstrap_interval(f1, answers, truth, seed=1) != (low, high)


def test_the_bootstrap_of_a_mean_is_as_wide_as_theory_says():
    truth = np.zeros(1000, int)
    answers = (np.arange(1000) < 300).astype(int)
    low, high = bootstrap_interval(accuracy, answers, truth, resamples=2000)
    assert high - low == pytest.approx(2 * 1.96 * math.sqrt(0.3 * 0.7 / 1000), rel=0.1)


def test_resamples_in_parts_are_those_in_one_go(monkeypatch):
    whole = bootstrap_interval(mcc, PREDICTIONS, TRUTH)
    monkeypatch.setattr("ziggurat.problems.metrics._CELLS", 30)
    assert bootstrap_interval(mcc, PREDICTIONS, TRUTH) == whole


def test_measures_come_by_name_with_their_intervals():
    found = measures(["f1-micro", "accuracy"], SETS, TRUE_SETS)
    assert list(found) == ["f1_micro", "f1_micro_low", "f1_micro_high", "accuracy", "accuracy_low", "accuracy_high"]
    assert found["accuracy_low"] < found["accuracy"] == 0.5 < found["accuracy_high"]


def test_an_unknown_measure_is_refused_with_those_that_there_are():
    with pytest.raises(UserError, match="metric 'rouge' is not known; choose one of accuracy, f1"):
        measure_by_name("rouge")
    with pytest.raises(ValueError, match="0 predictions of 0 rows"):
        measures(["f1"], np.zeros(0), np.zeros(0))
