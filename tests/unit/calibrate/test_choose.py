"""Operating points keep their target on the rows that chose them, and nothing cheaper would have."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kit.ladders import CLASSES, RUNGS, ladder
from ziggurat.calibrate import TARGETS, Ladder, choose_points
from ziggurat.calibrate.choose import candidate_thresholds
from ziggurat.engine.replay import replay
from ziggurat.policies import ExitRule, exit_score
from ziggurat.policies.exits import SCORES

repeatable = settings(derandomize=True, deadline=None, max_examples=40)
N = 200
NAMES = (*SCORES, "top-entropy@2", "confident-in-a-row@0.6")
COUNTS = [name for name in NAMES if exit_score(name).largest_count(RUNGS) is not None]
TEMPERATURES = np.array([4.0, 0.5, 2.0, 1.0])


def cost_of(n: int, layer: int = 100, head: int = 10):
    """A cost like a real model's: layers and exit heads that were asked, more of both for longer inputs."""
    lengths = np.random.default_rng(9).integers(2, 30, n)

    def cost(rule):
        heads = np.cumsum((*rule.active[:-1], False))
        return lengths[:, None] * (layer * np.arange(1, len(heads) + 1) + head * heads)

    return cost


def measured(point, every, labels, cost) -> tuple[float, float]:
    """Accuracy and mean cost of a point, run as the engine would run it."""
    rule = ExitRule.from_point(point)
    rungs = replay(every, rule)
    everyone = np.arange(len(every))
    right = every[everyone, rungs].argmax(axis=1) == labels
    return float(right.mean()), float(cost(rule)[everyone, rungs].mean())


def chosen(every, labels, cost, **options):
    return choose_points([Ladder(every, cost)], labels, "print", "hash", **options)


def depth_of(point) -> str:
    """ "full" for a point that asks no exit."""
    return "full" if set(point.thresholds) <= {None} else "early"


@pytest.mark.slow
@repeatable
@given(st.integers(0, 999), st.sampled_from(NAMES))
def test_a_point_keeps_its_target_on_the_rows_that_chose_it(seed, score):
    every, labels = ladder(seed)
    full = float((every[:, -1].argmax(axis=1) == labels).mean())
    points = chosen(every, labels, cost_of(N), score=score)
    assert [(point.name, point.target) for point in points] == list(TARGETS.items())
    for point in points:
        accuracy, cost = measured(point, every, labels, cost_of(N))
        assert accuracy >= full - point.target - 1e-12
        assert cost <= cost_of(N)(ExitRule.full_depth(RUNGS))[:, -1].mean()


@pytest.mark.slow
@repeatable
@given(st.integers(0, 999), st.sampled_from(NAMES), st.floats(0, 0.2))
def test_a_point_is_the_cheapest_that_keeps_its_target(seed, score, target):
    every, labels = ladder(seed)
    cost, everyone = cost_of(N), np.arange(N)
    full = (every[:, -1].argmax(axis=1) == labels).mean()
    best = cost(ExitRule.full_depth(RUNGS))[:, -1].mean()
    thresholds = candidate_thresholds(every, score)
    for threshold in thresholds[::-1] if exit_score(score).larger_is_surer else thresholds:  # from dear to cheap
        rule = ExitRule.uniform(score, threshold, RUNGS)
        rungs = replay(every, rule)
        if (every[everyone, rungs].argmax(axis=1) == labels).mean() < full - target - 1e-12:
            break
        best = min(best, cost(rule)[everyone, rungs].mean())
    (point,) = chosen(every, labels, cost, score=score, targets={"mine": target})
    assert measured(point, every, labels, cost)[1] == pytest.approx(best, rel=1e-12)


@pytest.mark.slow
@repeatable
@given(st.integers(0, 999), st.sampled_from(NAMES))
def test_a_looser_target_is_never_dearer(seed, score):
    every, labels = ladder(seed)
    targets = {str(target): target for target in (0.0, 0.005, 0.01, 0.03, 0.1, 0.5, 1.0)}
    points = chosen(every, labels, cost_of(N), score=score, targets=targets)
    costs = [measured(point, every, labels, cost_of(N))[1] for point in points]
    assert all(looser <= stricter for stricter, looser in pairwise(costs))
    assert costs[-1] < costs[0]


def test_looser_targets_save_more_when_depth_helps():
    every, labels = ladder(3, n=600)
    full = cost_of(600)(ExitRule.full_depth(RUNGS))[:, -1].mean()
    costs = [measured(point, every, labels, cost_of(600))[1] for point in chosen(every, labels, cost_of(600))]
    assert full > costs[0] > costs[1] > costs[2]


@pytest.mark.parametrize("score", NAMES)
def test_exits_that_are_always_wrong_leave_full_depth(score):
    every, labels = ladder(1)
    every[:, -1] = np.eye(CLASSES)[labels] * 9
    every[:, :-1] = np.eye(CLASSES)[(labels + 1) % CLASSES][:, None] * np.linspace(1, 5, N)[:, None, None]
    for point in chosen(every, labels, cost_of(N), score=score, targets={"exact": 0.0, "fast": 1 / N - 1e-9}):
        assert point.thresholds == (None,) * (RUNGS - 1)


def test_exits_that_cost_more_than_they_save_leave_full_depth():
    every, labels = ladder(2)
    points = chosen(every, labels, cost_of(N, layer=1, head=1000), targets={"exact": 0.0, "any": 1.0})
    assert [depth_of(point) for point in points] == ["full", "full"]


@pytest.mark.parametrize("score", NAMES)
def test_exits_that_are_as_good_as_the_model_answer_at_once(score):
    every = np.repeat(ladder(4)[0][:, -1:], RUNGS, axis=1)
    (point,) = chosen(every, None, cost_of(N), score=score, targets={"exact": 0.0})
    at_once = int(exit_score(score).compares)  # with the rung before, which the first has not
    assert replay(every, ExitRule.from_point(point)).tolist() == [at_once] * N


def test_a_threshold_beyond_one_that_fails_is_not_taken():
    # Two rungs, eight inputs from sure to unsure. The third is wrong at the first rung, the rest are right there, and
    # the last three right only there: leaving all of them early loses nothing on balance, leaving the third loses one.
    confidence = np.linspace(4, 1, 8)
    first_right = np.array([1, 1, 0, 1, 1, 1, 1, 1], dtype=bool)
    last_right = np.array([1, 1, 1, 1, 1, 0, 0, 0], dtype=bool)
    labels = np.zeros(8, dtype=np.int64)
    every = np.stack([np.where(right, 1, -1) * confidence for right in (first_right, last_right)], axis=1)
    every = np.stack([every, -every], axis=2)
    (point,) = chosen(every, labels, cost_of(8), targets={"exact": 0.0})
    assert replay(every, ExitRule.from_point(point)).tolist() == [0, 0, 1, 1, 1, 1, 1, 1]


def test_without_labels_agreement_with_the_full_model_is_kept():
    every, _ = ladder(5)
    full = every[:, -1].argmax(axis=1)
    unlabelled = chosen(every, None, cost_of(N))
    assert [depth_of(point) for point in unlabelled] == ["early"] * 3
    assert unlabelled == chosen(every, full, cost_of(N))
    for point in unlabelled:
        assert measured(point, every, full, cost_of(N))[0] >= 1 - point.target - 1e-12


def test_labels_decide_where_they_disagree_with_the_full_model():
    every, labels = ladder(6, skill=1.5)
    assert chosen(every, labels, cost_of(N)) != chosen(every, None, cost_of(N))


def test_a_point_names_its_purpose_and_claims_no_certificate():
    every, labels = ladder(7)
    for point in chosen(every, labels, cost_of(N), score="margin", targets={"mine": 0.02}):
        assert (point.name, point.score, point.target) == ("mine", "margin", 0.02)
        assert (point.fingerprint, point.data, point.confidence) == ("print", "hash", None)
        assert len(point.thresholds) == RUNGS - 1
        assert all(type(threshold) is float for threshold in point.thresholds)


def test_a_model_without_exits_gets_points_at_full_depth():
    every, labels = ladder(8)
    points = chosen(every[:, -1:], labels, cost_of(N))
    assert [point.thresholds for point in points] == [()] * len(TARGETS)
    assert candidate_thresholds(every[:, -1:], "entropy").shape == (0,)


@pytest.mark.parametrize("score", sorted(set(NAMES) - set(COUNTS)))
def test_candidates_span_all_scores(score):
    every, _ = ladder(9, n=400)
    candidates = candidate_thresholds(every, score)
    values = np.concatenate([exit_score(score).of(every[:, : rung + 1]) for rung in range(RUNGS - 1)])
    values = values[np.isfinite(values)]
    assert values.min() - 1e-3 < candidates[0] < values.min()
    assert values.max() < candidates[-1] < values.max() + 1e-3
    assert (np.diff(candidates) > 0).all()
    assert len(candidates) <= 257


# --- counts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("score", COUNTS)
@pytest.mark.parametrize("n_rungs", [2, 3, 7])
def test_candidates_of_a_count_are_its_reachable_whole_numbers(score, n_rungs):
    every = np.zeros((5, n_rungs, CLASSES))
    most = n_rungs - 1 if score.startswith("confident") else n_rungs - 2
    assert candidate_thresholds(every, score).tolist() == list(range(most + 1))


@repeatable
@given(st.integers(0, 999), st.sampled_from(COUNTS), st.floats(0, 0.3))
def test_a_points_count_is_one_that_the_engine_accepts(seed, score, target):
    every, labels = ladder(seed)
    (point,) = chosen(every, labels, cost_of(N), score=score, targets={"mine": target})
    ExitRule.from_point(point).check_reachable()
    assert all(threshold is None or threshold.is_integer() for threshold in point.thresholds)


@pytest.mark.parametrize("score", COUNTS)
def test_looser_targets_save_more_with_counts(score):
    every, labels = ladder(3, n=600)
    full = cost_of(600)(ExitRule.full_depth(RUNGS))[:, -1].mean()
    points = chosen(every, labels, cost_of(600), score=score, targets={"a": 0.02, "b": 1.0})
    costs = [measured(point, every, labels, cost_of(600))[1] for point in points]
    assert full > costs[0] > costs[1]
    assert points[0].thresholds[0] >= 1  # patience, and not everyone at once


# --- temperatures --------------------------------------------------------------------------------------------------


@pytest.mark.slow
@repeatable
@given(st.integers(0, 999), st.sampled_from(NAMES))
def test_temperatures_that_choose_are_written_into_the_points(seed, score):
    every, labels = ladder(seed)
    points = chosen(every, labels, cost_of(N), score=score, temperatures=TEMPERATURES)
    divided = chosen(every / TEMPERATURES[:, None], labels, cost_of(N), score=score)
    for point, same in zip(points, divided, strict=True):
        assert point.temperatures == tuple(TEMPERATURES.tolist())
        assert point.thresholds == same.thresholds
        assert measured(point, every, labels, cost_of(N))[1] <= cost_of(N)(ExitRule.full_depth(RUNGS))[:, -1].mean()
    assert candidate_thresholds(every, score, TEMPERATURES).tolist() == (
        candidate_thresholds(every / TEMPERATURES[:, None], score).tolist()
    )


def test_temperatures_of_one_choose_as_none_do():
    every, labels = ladder(4)
    plain = chosen(every, labels, cost_of(N))
    ones = chosen(every, labels, cost_of(N), temperatures=np.ones(RUNGS))
    assert [point.temperatures for point in plain] == [None] * len(TARGETS)
    assert [point.thresholds for point in ones] == [point.thresholds for point in plain]
    assert chosen(every, labels, cost_of(N), temperatures=TEMPERATURES)[2].thresholds != plain[2].thresholds


def test_the_cheapest_strength_that_keeps_the_target_is_chosen():
    every, labels = ladder(3)
    cost = cost_of(N)
    wrong = every.copy()
    wrong[: N // 4] = np.roll(wrong[: N // 4], 1, axis=2)  # pruned hard, a quarter of the rows change their answer
    ladders = [
        Ladder(every, cost, pruning=0.0),
        Ladder(every, lambda rule: cost(rule) // 2, pruning=0.5),
        Ladder(wrong, lambda rule: cost(rule) // 10, pruning=1.0),
    ]
    points = choose_points(ladders, labels, "print", "hash")
    assert {point.pruning for point in points} == {0.5}
    alone = choose_points(ladders[:1], labels, "print", "hash")
    assert [point.thresholds for point in points] == [point.thresholds for point in alone]


def test_what_is_lost_counts_from_the_first_ladder():
    every, labels = ladder(3)
    worse = np.roll(every, 1, axis=2)
    points = choose_points(
        [Ladder(every, cost_of(N), 0.0), Ladder(worse, lambda rule: cost_of(N)(rule) // 9)], labels, "p", "d"
    )
    assert {point.pruning for point in points} == {0.0}


def test_losses_count_from_the_unpruned_model():
    every, labels = ladder(3)
    mine = choose_points([Ladder(every, cost_of(N))], labels, "p", "d")
    own = float((every[:, -1].argmax(axis=1) == labels).mean())
    assert choose_points([Ladder(every, cost_of(N))], labels, "p", "d", reference=own - 0.1) == mine
    assert {depth_of(point) for point in mine} == {"early"}
    strict = choose_points([Ladder(every, cost_of(N))], labels, "p", "d", reference=own + 0.1)
    assert {depth_of(point) for point in strict} == {"full"}
