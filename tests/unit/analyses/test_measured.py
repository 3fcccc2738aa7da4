"""Groups, trajectories and distributions: cases small enough to count by hand, and statistics against brute force."""

from functools import partial

import numpy as np
import pytest

from ziggurat.analyses.measured import (
    Measured,
    bucket_names,
    buckets,
    histogram,
    lengths_kept,
    quantile_names,
    right_beside_wrong,
    span,
    summary,
    trajectory,
)
from ziggurat.problems import CLASSES, accuracy_interval

# Two layers. The first text is pruned to half and leaves at layer 1, the second keeps all, the third one token.
KEPT = np.array([[4, 2, 0], [6, 6, 6], [8, 4, 1]])
LAYERS = np.array([1, 2, 2])


def of_classes(predictions, layers, flops):
    """Of classes 0, 0 and 1."""
    predictions, truth = np.array(predictions), np.array([0, 0, 1])
    figures = partial(CLASSES.figures, predictions, truth)
    return Measured(predictions, predictions == truth, layers, KEPT, np.array(flops), figures)


MEASURED = of_classes([0, 1, 1], LAYERS, [10, 40, 30])
FULL = of_classes([0, 0, 1], np.full(3, 2), [20, 60, 80])


def test_claim_26_a_length_on_the_edge_is_in_the_bucket_below():
    assert buckets(np.array([1, 35, 36, 70, 71]), [35, 70]).tolist() == [0, 0, 1, 1, 2]
    assert bucket_names([35, 70]) == ["1-35", "36-70", "> 70"]


def test_quantile_groups_are_named_by_their_ends():
    assert quantile_names([0.5, 0.75]) == ["0-50 %", "50-75 %", "75-100 %"]
    assert span(np.array([5, 3, 9])) == "3-9"
    assert span(np.array([], dtype=np.int64)) is None


def test_costs_are_ratios_of_sums_over_the_chosen_rows():
    found = summary(MEASURED, FULL, np.array([True, True, False]))
    low, high = accuracy_interval(1, 2)
    assert found == {
        "n": 2,
        "tokens_mean": 5.0,
        "accuracy": 0.5,
        "accuracy_low": low,
        "accuracy_high": high,
        "full_accuracy": 1.0,
        "accuracy_change": -0.5,
        "flops_ratio": 80 / 50,
        "relative_flops": 50 / 80,
        "gflops_mean": 25 / 1e9,
        "mean_layers": 1.5,
    }
    assert summary(MEASURED, FULL)["flops_ratio"] == 160 / 80


def test_of_an_empty_group_nothing_is_said_but_that_it_is_empty():
    assert summary(MEASURED, FULL, np.zeros(3, dtype=bool)) == {"n": 0}


def test_a_text_that_left_counts_with_no_tokens_from_then_on():
    first, second, third = trajectory(KEPT, KEPT)
    assert [step["layer"] for step in (first, second, third)] == [0, 1, 2]
    assert (first["tokens_mean"], second["tokens_mean"], third["tokens_mean"]) == (6.0, 4.0, pytest.approx(7 / 3))
    assert (third["tokens_q25"], third["tokens_median"], third["tokens_q75"]) == (0.5, 1.0, 3.5)
    assert third["share_mean"] == pytest.approx((0 + 1 + 1 / 8) / 3)


def test_length_kept_ends_at_the_layer_that_answered():
    found = lengths_kept(MEASURED, FULL)
    assert found["tokens read"].tolist() == [4, 6, 8]
    assert found["share left at the end"].tolist() == [0.5, 1.0, 0.125]
    assert found["mean share over layers"].tolist() == [0.5, 1.0, (0.5 + 0.125) / 2]


@pytest.mark.parametrize("seed", range(5))
def test_wrong_above_right_is_what_counting_all_pairs_gives(seed):
    rng = np.random.default_rng(seed)
    values, right = rng.integers(0, 6, 60) / 5, rng.random(60) < 0.7  # few values: many ties
    pairs = [np.sign(no - yes) for no in values[~right] for yes in values[right]]
    found = right_beside_wrong(values, right)
    assert found["wrong_above_right"] == pytest.approx(np.mean([(sign + 1) / 2 for sign in pairs]))
    assert (found["n_right"], found["n_wrong"]) == (right.sum(), (~right).sum())
    assert found["wrong_median"] == np.median(values[~right])


def test_chance_leaves_its_range_five_times_of_a_hundred():
    rng = np.random.default_rng(0)
    outside = 0
    for _ in range(2000):
        found = right_beside_wrong(rng.random(80), np.arange(80) < 55)
        outside += not found["chance_low"] <= found["wrong_above_right"] <= found["chance_high"]
    assert 0.035 < outside / 2000 < 0.065


def test_without_a_wrong_answer_there_is_nothing_to_compare():
    found = right_beside_wrong(np.array([0.5, 1.0]), np.array([True, True]))
    assert found["n_wrong"] == 0 and found["wrong_median"] is None
    assert "wrong_above_right" not in found


def test_every_value_is_in_a_bin():
    shares = histogram(np.array([0.0, 0.1, 0.5, 1.0]), np.linspace(0, 1, 3))
    assert shares.tolist() == [0.5, 0.5]
