"""Accuracy against cost: a case small enough to count by hand, and the order that the controls must keep."""

import numpy as np
import pytest

from ziggurat.analyses import Point
from ziggurat.analyses.curves import fixed_depth, oracle, random_exit, right_answers, sweep

# Four inputs, three rungs; leaving costs 1, 2 or 4, the full model 4.
RIGHT = np.array([[1, 1, 1], [0, 1, 1], [0, 0, 1], [0, 0, 0]], dtype=bool)
FLOPS = np.tile([1, 2, 4], (4, 1))
FULL = np.full(4, 4)


def made_up_ladder(seed, n=400, n_rungs=5):
    rng = np.random.default_rng(seed)
    skill = np.linspace(0.4, 0.9, n_rungs)
    right = rng.random((n, n_rungs)) < skill
    flops = np.cumsum(rng.integers(10, 100, size=(n, 1)) * np.ones((1, n_rungs), dtype=np.int64), axis=1)
    return right, flops, flops[:, -1]


def test_right_answers_compare_the_largest_logit_with_the_label():
    logits = np.array([[[1.0, 2.0], [3.0, 0.0]], [[0.0, 0.5], [0.0, 9.0]]])
    assert right_answers(logits, np.array([1, 1])).tolist() == [[True, False], [True, True]]


def test_sweep_replays_each_threshold():
    rungs = {0.2: np.array([2, 2, 2, 2]), 0.8: np.array([0, 0, 1, 2])}
    points = sweep(RIGHT, FLOPS, FULL, rungs.__getitem__, [0.2, 0.8])
    assert points == [Point("adaptive", 0.75, 1.0, 0.2), Point("adaptive", 0.25, 16 / 8, 0.8)]


def test_fixed_depth_has_a_point_per_rung():
    points = fixed_depth(RIGHT, FLOPS, FULL, ["layer 1", "layer 2", "layer 4"])
    assert points == [Point("layer 1", 0.25, 4.0), Point("layer 2", 0.5, 2.0), Point("layer 4", 0.75, 1.0)]


def test_random_exit_spans_from_the_last_rung_to_the_first():
    curve, depths = random_exit(RIGHT, FLOPS, FULL, points=3), fixed_depth(RIGHT, FLOPS, FULL)
    for point, depth in zip(curve[::2], depths[::-2], strict=True):
        assert (point.accuracy, point.cost_ratio) == (depth.accuracy, depth.cost_ratio)
    # The fair coin: half leave at rung 0, a quarter each at rungs 1 and 2.
    assert curve[1].accuracy == pytest.approx(0.5 * 0.25 + 0.25 * 0.5 + 0.25 * 0.75)
    assert curve[1].cost_ratio == pytest.approx(4 / (0.5 * 1 + 0.25 * 2 + 0.25 * 4))


def test_random_exit_is_the_mean_of_tossing_coins():
    right, flops, full = made_up_ladder(3)
    rng, p, last = np.random.default_rng(4), 0.3, right.shape[1] - 1
    everyone, accuracy, cost = np.arange(len(right)), [], []
    for _ in range(300):
        rungs = np.minimum(rng.geometric(p, len(right)) - 1, last)
        accuracy.append(right[everyone, rungs].mean())
        cost.append(flops[everyone, rungs].sum())
    point = random_exit(right, flops, full, points=11)[3]
    assert point.accuracy == pytest.approx(np.mean(accuracy), abs=0.01)
    assert point.cost_ratio == pytest.approx(full.sum() / np.mean(cost), rel=0.01)


def test_oracle_buys_the_cheapest_right_answer_first():
    assert oracle(RIGHT, FLOPS, FULL) == [
        Point("oracle", 0.25, 16 / 4),
        Point("oracle", 0.5, 16 / 5),  # input 1 to rung 1
        Point("oracle", 0.75, 16 / 8),  # input 2 to rung 2; input 3 is never right and never moves
    ]


@pytest.mark.parametrize("seed", range(20))
def test_no_exit_rule_beats_the_oracle(seed):
    right, flops, full = made_up_ladder(seed, n=40, n_rungs=4)
    frontier = oracle(right, flops, full, points=1000)
    rng = np.random.default_rng(seed)
    rules = [right.argmax(axis=1), *rng.integers(0, 4, size=(50, 40))]
    rules += [np.where(right[:, k], k, 0) for k in range(4)]
    for rungs in rules:
        (rule,) = sweep(right, flops, full, lambda _, rungs=rungs: rungs, [0.0])
        reachable = [p.accuracy for p in frontier if p.cost_ratio >= rule.cost_ratio - 1e-9]
        assert rule.accuracy <= max(reachable) + 1e-9


def test_oracle_ends_with_everything_that_any_rung_gets_right():
    right, flops, full = made_up_ladder(1)
    curve = oracle(right, flops, full, points=7)
    assert len(curve) == 7
    assert curve[-1].accuracy == right.any(axis=1).mean()
    assert [p.accuracy for p in curve] == sorted(p.accuracy for p in curve)


def test_costs_are_ratios_of_sums_not_means_of_ratios():
    flops, full = np.array([[1, 10], [100, 1000]]), np.array([10, 1000])
    mixed = sweep(np.ones((2, 2), dtype=bool), flops, full, lambda _: np.array([1, 0]), [0.0])
    assert mixed[0].cost_ratio == pytest.approx(1010 / 110)
