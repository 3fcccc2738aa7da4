"""Replay from uncertainties is the engine's replay; families rise in risk; a limit bounds the expected loss."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kit.ladders import RUNGS, ladder
from ziggurat.calibrate import StoredRun, families
from ziggurat.calibrate.candidates import SCORES, exit_sets, full_depth, uncertainty_of
from ziggurat.calibrate.choose import fit_deferral
from ziggurat.engine.replay import replay
from ziggurat.policies import ExitRule, exit_score
from ziggurat.problems import CLASSES

repeatable = settings(derandomize=True, deadline=None, max_examples=40)
NAMES = (*SCORES, "agreement", "agreement-in-a-row", "top-entropy@2", "confident-in-a-row@0.6")
SAVED = np.array([0.75, 0.5, 0.25, 0.0])


def stored(seed: int = 0, n: int = 300, **shape) -> tuple[StoredRun, np.ndarray]:
    """A run, and for each rung whether it is wrong where the last one is right, (n, n_rungs)."""
    every, labels = ladder(seed, n, **shape)
    wrong = every.argmax(axis=2) != labels[:, None]
    return StoredRun(every, np.full((n, every.shape[1] + 1), 9)), (wrong & ~wrong[:, -1:]).astype(float)


@repeatable
@given(
    seed=st.integers(0, 99),
    score=st.sampled_from(NAMES),
    exits=st.sets(st.integers(0, RUNGS - 2), min_size=1).map(sorted).map(tuple),
    data=st.data(),
)
def test_doubts_let_rows_go_where_the_engines_replay_does(seed, score, exits, data):
    run, _ = stored(seed, 60)
    uncertainty = uncertainty_of(run, score, exits)
    limits = np.array([data.draw(st.sampled_from(sorted(uncertainty.values.ravel()))) for _ in exits]) + 1e-9
    rule = ExitRule(score, uncertainty.thresholds(limits))
    assert uncertainty.rungs(limits).tolist() == replay(run.all_readings, rule).tolist()
    assert rule.active == (*(rung in exits for rung in range(RUNGS - 1)), True)


def test_temperatures_divide_what_the_score_sees():
    run, _ = stored()
    temperatures = np.array([4.0, 0.5, 2.0, 1.0])
    uncertainty = uncertainty_of(run, "entropy", (0, 1, 2), temperatures)
    limits = np.full(3, 0.4)
    expected = replay(run.all_readings, ExitRule("entropy", np.full(3, 0.4), temperatures))
    assert uncertainty.rungs(limits).tolist() == expected.tolist()
    assert (uncertainty_of(run, "entropy", (0, 1, 2)).values != uncertainty.values).any()


@pytest.mark.parametrize("score", NAMES)
def test_a_candidates_rungs_follow_its_rule_along_a_family(score):
    run, losses = stored()
    found = [family for family in families(run, losses, SAVED, [score]) if len(family) > 1]
    assert found
    for family in found:
        for one in family:
            rule = ExitRule(one.score, one.thresholds)
            assert one.rungs.tolist() == replay(run.all_readings, rule).tolist()
            assert one.active == rule.active
        for strict, daring in pairwise(family):
            assert (daring.rungs <= strict.rungs).all()


@pytest.mark.parametrize("tiers", [(), (1, 3), (2, 2)])
def test_the_learned_score_is_tried_where_the_model_has_it(tiers):
    run, losses = stored()
    weights = fit_deferral(run.all_readings, run.predictions(), None, CLASSES)
    found = [one for family in families(replace(run, deferral=weights), losses, SAVED, [], tiers) for one in family]
    asked = {one.active for one in found if one.score == "learned"}
    assert {(True, True, True, True), (False, True, True, True)} <= asked  # inside encoders, too
    for one in found[::7]:
        assert (
            one.rungs.tolist()
            == replay(run.all_readings, ExitRule(one.score, one.thresholds, deferral=weights)).tolist()
        )
    assert "learned" not in {one.score for family in families(run, losses, SAVED, tiers=tiers) for one in family}


def test_the_first_family_is_full_depth_alone():
    run, losses = stored()
    first = next(iter(families(run, losses, SAVED)))
    assert [one.rungs.tolist() for one in first] == [[RUNGS - 1] * 300]
    assert np.isnan(full_depth(run, "margin").thresholds).all()


def test_an_exit_at_which_nobody_leaves_is_not_asked():
    run, losses = stored()
    for family in families(run, losses, SAVED, ["entropy"]):
        for one in family:
            used = np.bincount(one.rungs, minlength=RUNGS)[:-1] > 0
            assert one.active == (*used.tolist(), True)


def test_with_two_classes_equivalent_scores_are_tried_once():
    run, losses = stored(classes=2)
    assert {one.score for family in families(run, losses, SAVED) for one in family} == {"entropy"}
    both = {one.score for family in families(run, losses, SAVED, ["margin", "agreement"]) for one in family}
    assert both == {"margin", "agreement"}  # full depth asks nobody, and is written as the first


def test_thresholds_of_their_own_stake_more_where_more_is_saved():
    """All exits alike in skill: the earlier one may be less sure, for it saves more."""
    rng = np.random.default_rng(0)
    doubt = rng.uniform(size=(4000, 3))
    lost = (rng.uniform(size=(4000, 3)) < 0.3 * doubt) * np.array([1.0, 1.0, 0.0])
    logits = np.stack([-np.log(doubt), 0 * doubt], axis=2).astype(np.float32)
    run = StoredRun(logits, np.ones((4000, 4), dtype=np.int64))
    staked = list(families(run, lost, np.array([0.9, 0.3, 0.0]), ["entropy"]))[2]
    limits = np.array([one.thresholds for one in staked if one.active == (True, True, True)])
    assert len(limits) > 5
    middle = limits[(limits > 0.5).all(axis=1) & (limits < 0.95).all(axis=1)]
    assert len(middle) and (middle[:, 0] > middle[:, 1]).all()


@pytest.mark.parametrize("n_exits", range(13))
def test_sets_of_exits_are_different_rising_and_few(n_exits):
    sets = exit_sets(n_exits)
    assert len(set(sets)) == len(sets) <= n_exits + 2
    assert all(list(one) == sorted(set(one)) and one for one in sets)
    assert n_exits == 0 or tuple(range(n_exits)) in sets
    assert exit_score("entropy").larger_is_surer is False
