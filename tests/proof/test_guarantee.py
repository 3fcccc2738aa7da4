"""The promise is kept in all but 5 of 100 worlds, and the same trial catches a bound that is wrong."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tests.proof import guarantee
from tests.proof.alarms import Alarms
from tests.proof.guarantee import empirical_mean, groups_unseen, in_groups, make_pool, proven, table, trial
from ziggurat.calibrate import RISKS, p_values

pytestmark = pytest.mark.proof


@pytest.fixture(scope="module")
def pool():
    return make_pool(n=20_000)


@pytest.fixture(scope="module")
def outcomes(pool):
    """1,000 resplits where the test is quick, and 300 of the others; `make guarantee` takes 1,000 of each."""
    cases = [("accuracy", 500, 300), ("agreement", 1500, 1000), ("harm", 1500, 300)]
    tests = (p_values, empirical_mean)
    return [trial(pool, RISKS[name], n, runs, test) for name, n, runs in cases for test in tests]


@pytest.fixture(scope="module")
def grouped(pool):
    """200 resplits each of 5,000 rows that come about five at a time, much alike."""
    draws = (in_groups, groups_unseen)
    return [trial(pool, RISKS[name], 5000, 200, p_values, draw=draw) for name in RISKS for draw in draws]


def test_grouped_rows_keep_the_promise_only_when_grouped(grouped):
    for counted, alone in zip(grouped[::2], grouped[1::2], strict=True):
        assert (counted.drawn, alone.drawn) == ("in_groups", "groups_unseen")
        assert counted.broken <= counted.allowed and counted.none < 0.1 and counted.speed > 0.6, counted
        assert alone.broken > 1.5 * alone.allowed, alone


def test_a_point_breaks_its_promise_in_at_most_5_of_100_runs(outcomes):
    right = [one for one in outcomes if one.test == "p_values"]
    assert {one.risk for one in right} == set(RISKS)
    for one in right:
        assert one.runs >= 300 and 0.05 < one.allowed < 0.1
        assert one.broken <= one.allowed, one
        assert one.none < 0.1 and one.speed > 0.6, one  # it does not keep its promise by promising nothing


def test_a_wrong_bound_fails_the_same_trial(outcomes):
    wrong = [one for one in outcomes if one.test == "empirical_mean"]
    assert {one.risk for one in wrong} == set(RISKS)
    for one in wrong:
        assert one.broken > 2 * one.allowed, one


def test_the_verdict_needs_all_of_them(outcomes, grouped):
    every = [*outcomes, *grouped]
    assert proven(every)
    assert not proven(outcomes)
    assert not proven([one for one in every if one.test == "p_values"])
    assert not proven([replace(one, broken=0.1) if one.test == "p_values" else one for one in every])
    assert not proven([replace(one, broken=0.15) if one.drawn == "in_groups" else one for one in every])
    assert not proven([replace(one, broken=0.05) if one.risk == "harm" else one for one in every])
    assert not proven([])
    assert table(every).count("promise broken") == 6


def test_the_pool_is_a_world_worth_certifying_in(pool):
    """Some settings keep the target and some do not; what differs is neither all harm nor all to the good."""
    for name, risks in pool.risks.items():
        assert (risks <= 0.01).sum() > 10 and (risks > 0.01).sum() > 5, name
    accuracy, agreement, harm = (pool.risks[name].max() for name in ("accuracy", "agreement", "harm"))
    assert accuracy < 0.95 * harm < 0.9 * agreement
    assert pool.cost.max() < 1.2 and pool.cost.min() < 0.3


def test_the_commands_exit_code_is_the_verdict(pool, monkeypatch, capsys):
    monkeypatch.setattr(guarantee, "make_pool", lambda: pool)
    kinds = [Alarms("risk", 10, 0.0, 0.1, 0.0, 100.0, 200.0), Alarms("peeking", 10, 0.3, 0.1, None, None, None)]
    monkeypatch.setattr(guarantee.alarms, "all_streams", lambda streams, seed: kinds)
    arguments = ["--runs", "60", "--rows", "1500"]
    assert guarantee.main([*arguments, "--json"]) == 0
    outcomes = json.loads(capsys.readouterr().out)
    assert [one["risk"] for one in outcomes if "risk" in one] == 4 * list(RISKS)
    assert [one["stream"] for one in outcomes if "stream" in one] == ["risk", "peeking"]
    kinds.reverse()
    assert guarantee.main([*arguments, "--json"]) == 1
    kinds.reverse()
    monkeypatch.setattr(guarantee, "p_values", empirical_mean)
    assert guarantee.main(arguments) == 1
    assert "promise broken" in capsys.readouterr().out
