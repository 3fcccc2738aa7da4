"""Where a score meets a threshold: which side is in, who is asked, and which way the knob turns."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ziggurat.engine.replay import replay
from ziggurat.errors import UserError
from ziggurat.policies import ExitRule, exit_score
from ziggurat.policies.exits import SCORES
from ziggurat.types import OperatingPoint

repeatable = settings(derandomize=True, deadline=None, max_examples=100)
NAN, INF = float("nan"), float("inf")
NAMES = (*SCORES, "top-entropy@2", "confident-in-a-row@0.5")
KNOB_END = {name: (-INF, INF) if exit_score(name).larger_is_surer else (INF, -INF) for name in NAMES}


def ladder(seed: int, n: int = 30, n_rungs: int = 5, n_classes: int = 3) -> np.ndarray:
    """Logits (n, n_rungs, n_classes) of a made-up model that grows surer with depth."""
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(n, n_rungs, n_classes)) * np.linspace(1, 4, n_rungs)[:, None]).astype(np.float32)


def predicting(*predictions: int) -> np.ndarray:
    """Every rung's logits of one input, (1, n_rungs, 3): the rungs predict these classes and are sure of them."""
    return 9 * np.eye(3)[list(predictions)][None]


def leaves(rule: ExitRule, rung: int, history: np.ndarray) -> list[bool]:
    return rule.exits(rung, history, np.arange(len(history))).tolist()


@pytest.mark.parametrize("name", NAMES)
def test_claim_12_who_is_exactly_as_sure_as_the_threshold_leaves(name):
    history = ladder(0, n=1, n_rungs=3)
    value = exit_score(name).of(history)[0]
    # A hair towards "surer is asked for" and towards "less will do".
    towards_strict = INF if exit_score(name).larger_is_surer else -INF
    stricter, laxer = np.nextafter(value, towards_strict), np.nextafter(value, -towards_strict)
    for threshold, expected in ((value, True), (laxer, True), (stricter, False)):
        assert leaves(ExitRule.uniform(name, threshold, 5), 2, history) == [expected]


def test_entropy_leaves_below_and_the_others_above():
    unsure, sure = np.zeros((1, 1, 2)), np.array([[[9.0, 0.0]]])
    both = np.concatenate([unsure, sure])
    for name in ("entropy", "max-probability", "margin", "top-entropy@2"):
        assert leaves(ExitRule.uniform(name, 0.6, 3), 0, both) == [False, True]


def test_claim_12_entropy_thresholds_one_and_zero():
    even, certain, nearly = [0.0] * 3, [1e4, 0.0, 0.0], [30.0, 0.0, 0.0]
    history = np.array([even, certain, nearly])[:, None]
    assert leaves(ExitRule.uniform("entropy", 1.0, 2), 0, history) == [True, True, True]
    assert leaves(ExitRule.uniform("entropy", 0.0, 2), 0, history) == [False, True, False]
    assert leaves(ExitRule.uniform("top-entropy@2", 1.0, 2), 0, history) == [True, True, True]
    assert leaves(ExitRule.uniform("top-entropy@2", 0.0, 2), 0, history) == [False, True, False]


@pytest.mark.parametrize("name", NAMES)
def test_the_last_rung_answers_whatever_it_says(name):
    history = np.full((3, 1, 2), NAN)
    rule = ExitRule(name, np.full(4, KNOB_END[name][1]))
    assert leaves(rule, 4, history) == [True] * 3
    assert leaves(ExitRule(name, np.full((3, 4), KNOB_END[name][1])), 4, history) == [True] * 3


@pytest.mark.parametrize("name", NAMES)
def test_the_ends_of_the_knob_are_the_first_rung_and_the_last(name):
    every = ladder(1)
    first, last = KNOB_END[name]
    assert replay(every, ExitRule.uniform(name, first, 5)).tolist() == [0] * 30
    assert replay(every, ExitRule.uniform(name, last, 5)).tolist() == [4] * 30


@repeatable
@given(st.sampled_from(NAMES), st.integers(0, 99), st.floats(-1, 5), st.floats(-1, 5))
def test_claim_12_no_input_leaves_later_when_less_is_asked_of_it(name, seed, one, other):
    every = ladder(seed)
    lax, strict = (
        (min(one, other), max(one, other)) if exit_score(name).larger_is_surer else (max(one, other), min(one, other))
    )
    assert (replay(every, ExitRule.uniform(name, lax, 5)) <= replay(every, ExitRule.uniform(name, strict, 5))).all()


@pytest.mark.parametrize(("name", "threshold"), [*zip(NAMES, (0.4, 0.9, 0.8, 1, 1, 2, 0.9, 0.3, 2), strict=True)])
def test_the_knob_moves_something_in_between(name, threshold):
    assert len(set(replay(ladder(3), ExitRule.uniform(name, threshold, 5)).tolist())) >= 3


@pytest.mark.parametrize(
    ("predictions", "patience", "pabee", "s3"),
    [
        ((0, 0, 0, 0, 0, 0), 1, 1, 1),
        ((0, 0, 0, 0, 0, 0), 3, 3, 3),
        ((0, 0, 1, 1, 1, 2), 2, 4, 3),  # the break at the third rung costs PABEE what it had counted
        ((0, 0, 1, 2, 2, 0), 2, 5, 4),
        ((0, 1, 0, 1, 0, 1), 1, 5, 5),  # nobody ever agrees: the last rung answers
        ((2, 0, 1, 1, 0, 0), 0, 0, 0),
    ],
)
def test_claim_17_patience_exits_where_pabee_and_s3_do(predictions, patience, pabee, s3):
    every = predicting(*predictions)
    assert replay(every, ExitRule.uniform("agreement-in-a-row", patience, 6)).tolist() == [pabee]
    assert replay(every, ExitRule.uniform("agreement", patience, 6)).tolist() == [s3]


@pytest.mark.parametrize(("patience", "left"), [(1, 0), (2, 4), (3, 5)])
def test_claim_17_confidence_in_a_row_exits_where_pcee_does(patience, left):
    # Sure, unsure, unsure, sure, sure, and a last rung that answers. That the sure ones disagree plays no part.
    every = predicting(0, 1, 1, 2, 1, 0) * np.array([1, 0, 0, 1, 1, 1])[:, None]
    assert replay(every, ExitRule.uniform("confident-in-a-row@0.1", patience, 6)).tolist() == [left]


def test_claim_18_top_entropy_fires_with_fifty_classes():
    rng = np.random.default_rng(8)
    every = 0.3 * rng.normal(size=(200, 4, 50))
    winners = rng.integers(0, 50, 200)
    every[np.arange(200), :, winners] += np.linspace(2, 4.3, 4)  # the winner's share grows, from 12 % to 59 %
    assert replay(every, ExitRule.uniform("entropy", 0.5, 4)).tolist() == [3] * 200
    left = np.bincount(replay(every, ExitRule.uniform("top-entropy@5", 0.5, 4)), minlength=4)
    assert (left[1:] > 10).all()
    for name, threshold in (("max-probability", 0.5), ("margin", 0.4)):
        assert (replay(every, ExitRule.uniform(name, threshold, 4)) < 3).sum() > 10


def test_nan_means_that_a_rung_is_not_asked():
    rule = ExitRule("entropy", np.array([NAN, 0.5, NAN, 0.0]))
    assert rule.active == (False, True, False, True, True)
    assert ExitRule.full_depth(3).active == (False, False, True)
    assert ExitRule("entropy", np.array([[NAN, 0.5], [NAN, 0.1]])).active == (False, True, True)


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
    assert rule.exits(0, history, np.array([3, 0, 2])).tolist() == [False, True, True]


def test_nobody_leaves_early_under_never():
    assert replay(ladder(4), ExitRule.full_depth(5)).tolist() == [4] * 30


@pytest.mark.parametrize("rung", [0, 2, 4])
def test_fixed_depth_asks_one_rung_and_everyone_leaves_there(rung):
    rule = ExitRule.fixed_depth(rung, 5)
    assert rule.active == tuple(i in (rung, 4) for i in range(5))
    assert replay(ladder(5), rule).tolist() == [rung] * 30


def test_forced_inputs_leave_where_they_are_told_to():
    rungs = np.random.default_rng(6).integers(0, 5, 30)
    assert set(rungs.tolist()) == set(range(5))
    assert replay(ladder(6), ExitRule.forced(rungs, 5)).tolist() == rungs.tolist()


def test_a_shared_threshold_is_one_number_or_one_for_each_input():
    assert ExitRule.uniform("margin", 0.5, 4).thresholds.tolist() == [0.5] * 3
    assert ExitRule.uniform("margin", [0.5, 0.25], 4).thresholds.tolist() == [[0.5] * 3, [0.25] * 3]
    assert ExitRule.uniform("margin", 0.5, 1).thresholds.shape == (0,)
    assert ExitRule.uniform("margin", [], 4).thresholds.shape == (0, 3)
    for wrong in (NAN, [0.5, NAN], [[0.5]]):
        with pytest.raises(UserError, match="one number"):
            ExitRule.uniform("margin", wrong, 4)


def test_an_unknown_score_is_refused_with_the_list_of_known_ones():
    with pytest.raises(UserError) as caught:
        ExitRule("entrophy", np.zeros(2))
    assert all(name in str(caught.value) for name in ("entrophy", *SCORES))


def test_an_operating_points_rule_asks_where_it_has_a_threshold():
    rule = ExitRule.from_point(OperatingPoint("p", "margin", (None, 0.25, 0.5), "f"))
    assert rule.score == "margin"
    assert rule.active == (False, True, True, True)
    assert rule.thresholds[1:].tolist() == [0.25, 0.5]


# --- counts out of reach -------------------------------------------------------------------------------------------

LARGEST = {"agreement": -2, "agreement-in-a-row": -2, "confident-in-a-row@0.5": -1}  # beside the number of active rungs


def refused(rule: ExitRule) -> str:
    """The one line with which a rule is refused."""
    with pytest.raises(UserError) as caught:
        rule.check_reachable()
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("name", LARGEST)
@pytest.mark.parametrize("n_rungs", [2, 3, 6])
def test_a_count_is_refused_just_when_no_input_can_ever_reach_it(name, n_rungs):
    surest = predicting(*[1] * n_rungs)
    most = n_rungs + LARGEST[name]
    for threshold in np.arange(0, most + 0.5, 0.5):
        ExitRule.uniform(name, threshold, n_rungs).check_reachable()
        assert replay(surest, ExitRule.uniform(name, threshold, n_rungs))[0] < n_rungs - 1
    for threshold in (most + 0.5, most + 1, 99):
        message = refused(ExitRule.uniform(name, threshold, n_rungs))
        assert f"never reaches {threshold:g}" in message
        assert f"with {n_rungs} active rungs the largest count possible before the last is {most}" in message
        assert replay(surest, ExitRule.uniform(name, threshold, n_rungs))[0] == n_rungs - 1


@pytest.mark.parametrize("name", LARGEST)
def test_a_rung_that_is_not_asked_cannot_be_counted(name):
    most = 3 + LARGEST[name]  # three of five rungs are asked
    ExitRule(name, np.array([NAN, most, NAN, most])).check_reachable()
    assert "with 3 active rungs" in refused(ExitRule(name, np.array([NAN, 0, NAN, most + 1])))


def test_one_count_out_of_reach_is_enough_to_refuse():
    ExitRule.uniform("agreement", [0, 3], 5).check_reachable()
    assert "never reaches 4" in refused(ExitRule.uniform("agreement", [0, 4], 5))


@pytest.mark.parametrize("name", NAMES)
def test_an_infinite_threshold_is_not_refused(name):
    first, last = KNOB_END[name]
    every = ladder(2, n=5, n_rungs=4)
    for rule, left in (
        (ExitRule.uniform(name, first, 4), 0),
        (ExitRule.uniform(name, last, 4), 3),
        (ExitRule(name, np.full(3, NAN)), 3),
    ):
        rule.check_reachable()
        assert replay(every, rule).tolist() == [left] * 5
    ExitRule.uniform(name, 0.5, 1).check_reachable()


def test_only_counts_are_refused_as_out_of_reach():
    for name in NAMES:  # nine is beyond all that four rungs can reach, and beyond every other score's range
        if name in LARGEST:
            assert "never reaches 9" in refused(ExitRule.uniform(name, 9.0, 4))
        else:
            ExitRule.uniform(name, 9.0, 4).check_reachable()
    for rule in (ExitRule.full_depth(4), ExitRule.fixed_depth(1, 4), ExitRule.forced(np.array([0, 3]), 4)):
        rule.check_reachable()


# --- temperatures --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_temperatures_of_one_change_nothing(name):
    every = ladder(7)
    for threshold in (0.0, 0.3, 0.6, 1.0, 2.0):
        plain = replay(every, ExitRule.uniform(name, threshold, 5))
        assert replay(every, ExitRule.uniform(name, threshold, 5, np.ones(5))).tolist() == plain.tolist()


@repeatable
@given(st.sampled_from(NAMES), st.integers(0, 99), st.floats(0, 3))
def test_temperatures_divide_the_logits_that_the_score_sees(name, seed, threshold):
    every, temperatures = ladder(seed), np.array([4.0, 0.5, 1.0, 2.0, 0.25])
    divided = every / temperatures[:, None]
    expected = replay(divided, ExitRule.uniform(name, threshold, 5))
    assert replay(every, ExitRule.uniform(name, threshold, 5, temperatures)).tolist() == expected.tolist()


def test_a_temperature_belongs_to_its_rung():
    logits = np.array([[2.0, 0.0]])
    entropy = exit_score("entropy").of
    # The first and third rung are not asked: the history holds the second and the fourth.
    temperatures = np.array([100.0, 2.0, 100.0, 4.0, 100.0])
    history = np.stack([logits, logits], axis=1)
    for rung, seen, temperature in ((1, history[:, :1], 2.0), (3, history, 4.0)):
        value = entropy(logits[:, None] / temperature)[0]
        for threshold, expected in ((value, True), (np.nextafter(value, 0), False)):
            thresholds = np.array([NAN, threshold, NAN, threshold])
            assert leaves(ExitRule("entropy", thresholds, temperatures), rung, seen) == [expected]


def test_each_rung_of_a_history_has_its_own_temperature():
    # Two equal rungs; at temperature 1 both are sure. One that is not asked between them has no say.
    history = predicting(1, 1)
    thresholds = np.array([1.0, NAN, 2.0])
    for temperatures, count_reached in (([1, 1, 1, 1], True), ([99, 1, 1, 1], False), ([1, 99, 1, 99], True)):
        rule = ExitRule("confident-in-a-row@0.1", thresholds, np.array(temperatures, dtype=np.float64))
        assert leaves(rule, 2, history) == [count_reached]


@pytest.mark.parametrize(
    ("temperatures", "says"),
    [
        ([1.0, 1.0], "2 temperatures for 3 rungs"),
        ([1.0] * 4, "4 temperatures for 3 rungs"),
        ([1.0, 0.0, 1.0], "above 0"),
        ([1.0, -1.0, 1.0], "above 0"),
        ([1.0, NAN, 1.0], "finite"),
        ([1.0, INF, 1.0], "finite"),
    ],
)
def test_there_is_one_temperature_above_zero_for_each_rung(temperatures, says):
    with pytest.raises(UserError, match=says):
        ExitRule.uniform("entropy", 0.5, 3, np.array(temperatures))


def test_a_points_temperatures_are_its_rules():
    assert ExitRule.from_point(OperatingPoint("p", "margin", (None, 0.25), "f")).temperatures is None
    rule = ExitRule.from_point(OperatingPoint("p", "margin", (None, 0.25), "f", temperatures=(1.0, 2.0, 0.5)))
    assert rule.temperatures.tolist() == [1.0, 2.0, 0.5]
