"""Where a score meets a threshold: which side is in, who is asked, and which way the knob turns."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ziggurat.engine.rules import ExitRule, fixed_depth, forced, never, of_point, shared
from ziggurat.engine.runner import replay
from ziggurat.errors import UserError
from ziggurat.policies.exits import SCORES
from ziggurat.types import OperatingPoint

repeatable = settings(derandomize=True, deadline=None, max_examples=100)
NAN, INF = float("nan"), float("inf")
KNOB_END = {name: (-INF, INF) if score.larger_is_surer else (INF, -INF) for name, score in SCORES.items()}


def ladder(seed: int, n: int = 30, n_rungs: int = 5, n_classes: int = 3) -> np.ndarray:
    """Logits (n, n_rungs, n_classes) of a made-up model that grows surer with depth."""
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(n, n_rungs, n_classes)) * np.linspace(1, 4, n_rungs)[:, None]).astype(np.float32)


def leaves(rule: ExitRule, rung: int, history: np.ndarray) -> list[bool]:
    return rule.leaves(rung, history, np.arange(len(history))).tolist()


@pytest.mark.parametrize("name", SCORES)
def test_who_is_exactly_as_sure_as_the_threshold_leaves(name):
    history = ladder(0, n=1, n_rungs=3)
    value = SCORES[name].of(history)[0]
    # A hair towards "surer is asked for" and towards "less will do".
    towards_strict = INF if SCORES[name].larger_is_surer else -INF
    stricter, laxer = np.nextafter(value, towards_strict), np.nextafter(value, -towards_strict)
    for threshold, expected in ((value, True), (laxer, True), (stricter, False)):
        assert leaves(shared(name, threshold, 5), 2, history) == [expected]


def test_entropy_leaves_below_and_the_others_above():
    unsure, sure = np.zeros((1, 1, 2)), np.array([[[9.0, 0.0]]])
    both = np.concatenate([unsure, sure])
    for name in ("entropy", "max-probability", "margin"):
        assert leaves(shared(name, 0.6, 3), 0, both) == [False, True]


def test_entropy_threshold_one_takes_everyone_and_zero_only_who_is_certain():
    even, certain, nearly = [0.0] * 3, [1e4, 0.0, 0.0], [30.0, 0.0, 0.0]
    history = np.array([even, certain, nearly])[:, None]
    assert leaves(shared("entropy", 1.0, 2), 0, history) == [True, True, True]
    assert leaves(shared("entropy", 0.0, 2), 0, history) == [False, True, False]


@pytest.mark.parametrize("name", SCORES)
def test_the_last_rung_answers_whatever_it_says(name):
    history = np.full((3, 1, 2), NAN)
    rule = ExitRule(name, np.full(4, KNOB_END[name][1]))
    assert leaves(rule, 4, history) == [True] * 3
    assert leaves(ExitRule(name, np.full((3, 4), KNOB_END[name][1])), 4, history) == [True] * 3


@pytest.mark.parametrize("name", SCORES)
def test_the_ends_of_the_knob_are_the_first_rung_and_the_last(name):
    every = ladder(1)
    first, last = KNOB_END[name]
    assert replay(every, shared(name, first, 5)).tolist() == [0] * 30
    assert replay(every, shared(name, last, 5)).tolist() == [4] * 30


@repeatable
@given(st.sampled_from(sorted(SCORES)), st.integers(0, 99), st.floats(-1, 5), st.floats(-1, 5))
def test_no_input_leaves_later_when_less_is_asked_of_it(name, seed, one, other):
    every = ladder(seed)
    lax, strict = (
        (min(one, other), max(one, other)) if SCORES[name].larger_is_surer else (max(one, other), min(one, other))
    )
    assert (replay(every, shared(name, lax, 5)) <= replay(every, shared(name, strict, 5))).all()


@pytest.mark.parametrize(("name", "threshold"), [*zip(SCORES, (0.4, 0.9, 0.8, 1, 1), strict=True)])
def test_the_knob_moves_something_in_between(name, threshold):
    assert len(set(replay(ladder(3), shared(name, threshold, 5)).tolist())) >= 3


def test_nan_means_that_a_rung_is_not_asked():
    rule = ExitRule("entropy", np.array([NAN, 0.5, NAN, 0.0]))
    assert rule.asked == (False, True, False, True, True)
    assert never(3).asked == (False, False, True)
    assert ExitRule("entropy", np.array([[NAN, 0.5], [NAN, 0.1]])).asked == (False, True, True)


def test_a_rung_that_is_not_asked_is_not_in_the_history():
    # Rungs say 0, 1, 0: with the middle one asked nobody agrees with it, without it two in a row do.
    every = np.eye(2)[[0, 1, 0, 1]][None]
    assert replay(every, ExitRule("agreement-in-a-row", np.array([1.0, 1.0, 1.0]))).tolist() == [3]
    assert replay(every, ExitRule("agreement-in-a-row", np.array([1.0, NAN, 1.0]))).tolist() == [2]


def test_nan_for_some_inputs_only_is_refused():
    with pytest.raises(UserError, match="for all inputs"):
        ExitRule("entropy", np.array([[0.5, NAN], [0.5, 0.1]]))


def test_thresholds_of_each_input_are_found_by_its_row():
    history = np.zeros((3, 1, 2))  # entropy 1
    rule = ExitRule("entropy", np.array([[1.0], [0.5], [1.0], [0.5]]))
    assert rule.leaves(0, history, np.array([3, 0, 2])).tolist() == [False, True, True]


def test_nobody_leaves_early_under_never():
    assert replay(ladder(4), never(5)).tolist() == [4] * 30


@pytest.mark.parametrize("rung", [0, 2, 4])
def test_fixed_depth_asks_one_rung_and_everyone_leaves_there(rung):
    rule = fixed_depth(rung, 5)
    assert rule.asked == tuple(i in (rung, 4) for i in range(5))
    assert replay(ladder(5), rule).tolist() == [rung] * 30


def test_forced_inputs_leave_where_they_are_told_to():
    rungs = np.random.default_rng(6).integers(0, 5, 30)
    assert set(rungs.tolist()) == set(range(5))
    assert replay(ladder(6), forced(rungs, 5)).tolist() == rungs.tolist()


def test_a_shared_threshold_is_one_number_or_one_for_each_input():
    assert shared("margin", 0.5, 4).thresholds.tolist() == [0.5] * 3
    assert shared("margin", [0.5, 0.25], 4).thresholds.tolist() == [[0.5] * 3, [0.25] * 3]
    assert shared("margin", 0.5, 1).thresholds.shape == (0,)
    assert shared("margin", [], 4).thresholds.shape == (0, 3)
    for wrong in (NAN, [0.5, NAN], [[0.5]]):
        with pytest.raises(UserError, match="one number"):
            shared("margin", wrong, 4)


def test_an_unknown_score_is_refused_with_the_list_of_known_ones():
    with pytest.raises(UserError) as caught:
        ExitRule("entrophy", np.zeros(2))
    assert all(name in str(caught.value) for name in ("entrophy", *SCORES))


def test_an_operating_points_rule_asks_where_it_has_a_threshold():
    rule = of_point(OperatingPoint("p", "margin", (None, 0.25, 0.5), "f"))
    assert rule.score == "margin"
    assert rule.asked == (False, True, True, True)
    assert rule.thresholds[1:].tolist() == [0.25, 0.5]
