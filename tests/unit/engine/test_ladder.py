"""A ladder of models equals the specification, and a tier is asked only for what the one before was unsure of."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kit.scripted import CLASSES, N, R, inputs, make_tiers
from ziggurat.data.tokenizer import Encoded
from ziggurat.engine import Ladder, answer, answer_ladder
from ziggurat.engine.replay import all_rungs, replay
from ziggurat.policies import ExitRule, exit_score
from ziggurat.policies.exits import SCORES

repeatable = settings(derandomize=True, deadline=None, max_examples=80)
NAMES = (*SCORES, "top-entropy@2", "confident-in-a-row@0.7")


def as_specified(tiers, encoded, rule) -> tuple[np.ndarray, np.ndarray]:
    backends = [tier.backend for tier in tiers]
    answers = [answer_ladder(backends, [[tokens]] * len(tiers), rule, row) for row, tokens in enumerate(encoded.tokens)]
    return np.stack([logits for logits, _ in answers]), np.array([rung for _, rung in answers])


@pytest.mark.slow
@repeatable
@given(st.data())
def test_any_rule_at_any_batch_size_equals_the_specification(data):
    name = data.draw(st.sampled_from(NAMES))
    levels = st.sampled_from([0.0, 0.3, 0.6, 0.9, 1.0, 2.0])
    asked = data.draw(st.lists(st.booleans(), min_size=R - 1, max_size=R - 1))
    per_input = data.draw(st.booleans())
    shape = (N, R - 1) if per_input else (R - 1,)
    thresholds = np.array([data.draw(levels) for _ in range(R - 1)]) * np.ones(shape)
    if per_input:
        thresholds += np.arange(N)[:, None] % 3 * 0.2
    temperatures = np.array([data.draw(st.sampled_from([0.5, 1.0, 3.0])) for _ in range(R)])
    rule = ExitRule(name, np.where(asked, thresholds, np.nan), data.draw(st.sampled_from([None, temperatures])))
    tiers, encoded = make_tiers(), inputs()
    sizes = data.draw(st.tuples(*[st.sampled_from([1, 4, 100])] * 3))
    outcomes = answer(Ladder(tiers), encoded, rule, sizes)
    logits, rungs = as_specified(tiers, encoded, rule)
    assert np.array_equal(outcomes.rungs, rungs)
    assert np.array_equal(outcomes.readings, logits)
    assert np.isfinite(outcomes.seconds).all() and (outcomes.seconds >= 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_a_replayed_ladder_leaves_where_the_run_one_does(name):
    tiers, encoded = make_tiers(3), inputs()
    every = all_rungs(Ladder(tiers), encoded, [7] * 3, None)
    assert every.readings.shape == (N, R, CLASSES)
    rule = ExitRule.uniform(name, 1.0 if exit_score(name).first_count is not None else 0.6, R)
    assert np.array_equal(replay(every.readings, rule), answer(Ladder(tiers), encoded, rule, [5] * 3).rungs)


def test_claim_27_a_tier_runs_only_on_what_was_escalated():
    tiers, encoded = make_tiers(1), inputs()
    rule = ExitRule.uniform("margin", 0.8, R)
    rungs = answer(Ladder(tiers), encoded, rule, [4] * 3).rungs
    came = [N, int((rungs >= 1).sum()), int((rungs >= 3).sum())]
    assert N > came[1] > came[2] > 0
    asked_first = [sum(n for rung, n in tier.backend.heads_run if rung == 0) for tier in tiers]
    assert asked_first == came


def test_claim_27_extreme_thresholds_give_one_tier_alone():
    tiers, encoded = make_tiers(2), inputs()
    everyone = answer(Ladder(tiers), encoded, ExitRule.uniform("max-probability", 0.0, R), [4] * 3)
    assert (everyone.rungs == 0).all()
    assert np.array_equal(everyone.readings, tiers[0].backend.script[:, 0])
    assert not tiers[1].backend.heads_run and not tiers[2].backend.heads_run
    for rule in (ExitRule.uniform("max-probability", np.inf, R), ExitRule.full_depth(R)):
        nobody = answer(Ladder(tiers), encoded, rule, [4] * 3)
        assert (nobody.rungs == R - 1).all()
        assert np.array_equal(nobody.readings, tiers[2].backend.script[:, -1])


def test_claim_27_a_score_that_equals_its_threshold_leaves():
    tiers, encoded = make_tiers(5, ((0,), (1,))), inputs()
    tiers[0].backend.script[:] = np.float32([1.0, 0.0, 0.0])
    (value,) = set(exit_score("margin").of(tiers[0].backend.script).tolist())
    assert (answer(Ladder(tiers), encoded, ExitRule.uniform("margin", value, 2), [8, 8]).rungs == 0).all()
    assert (
        answer(Ladder(tiers), encoded, ExitRule.uniform("margin", np.nextafter(value, 2), 2), [8, 8]).rungs == 1
    ).all()


def test_a_tier_of_which_no_rung_is_asked_does_not_run():
    tiers, encoded = make_tiers(), inputs()
    rule = ExitRule("margin", np.array([0.7, np.nan, np.nan, 0.5, np.nan]))
    outcomes = answer(Ladder(tiers), encoded, rule, [4] * 3)
    assert tiers[0].backend.heads_run and tiers[2].backend.heads_run
    assert not tiers[1].backend.heads_run and not tiers[1].backend.layers_run
    assert not outcomes.token_counts[:, 1:4].any()  # its columns


def test_a_tiers_layers_behind_its_last_active_rung_do_not_run():
    tiers, encoded = make_tiers(), inputs()
    rule = ExitRule("margin", np.array([np.nan, 0.9, np.nan, np.nan, np.nan]))
    answer(Ladder(tiers), encoded, rule, [100] * 3)
    assert {layer for layer, _, _ in tiers[1].backend.layers_run} == {1}


def test_kept_tokens_stand_in_the_columns_of_the_tiers_that_ran():
    tiers, encoded = make_tiers(4), inputs()
    outcomes = answer(Ladder(tiers), encoded, ExitRule.uniform("entropy", 0.5, R), [4] * 3)
    kept, rungs = outcomes.token_counts, outcomes.rungs
    assert kept.shape == (N, 1 + 3 + 5)
    assert np.array_equal(kept[:, 0], encoded.lengths)
    assert np.array_equal(kept[:, 1] > 0, rungs >= 1)
    assert np.array_equal(kept[:, 3] > 0, rungs >= 2)  # layer 2 of the second tier
    assert np.array_equal(kept[:, 4] > 0, rungs >= 3)
    assert np.array_equal(kept[:, 8] > 0, rungs == 5)


def test_no_inputs_have_no_outcomes():
    nothing = Encoded([], np.zeros(0, dtype=bool))
    outcomes = answer(Ladder(make_tiers()), nothing, ExitRule.uniform("margin", 0.5, R), [4] * 3)
    assert outcomes.readings.shape == (0, CLASSES) and outcomes.token_counts.shape == (0, 9)
