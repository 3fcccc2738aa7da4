"""A cascade behind the front door: one model to its user, whichever tier answers."""

from __future__ import annotations

import dataclasses
import shutil

import numpy as np
import pytest

from ziggurat.encoder import write_cascade
from ziggurat.engine import OpenedModel
from ziggurat.errors import UserError
from ziggurat.policies import ExitRule
from ziggurat.types import OperatingPoint

INF = float("inf")


@pytest.fixture(scope="module", params=["native", "torch"])
def engine(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def opened(engine):
    return lambda folder: OpenedModel.from_pretrained(folder, "cpu", backend=engine)


@pytest.fixture(scope="module")
def cascade(cascade_folder, opened) -> OpenedModel:
    return opened(cascade_folder)


@pytest.fixture(scope="module")
def alone(pruned_folder, static_folder, opened) -> tuple[OpenedModel, OpenedModel]:
    """The tiers by themselves."""
    return opened(static_folder), opened(pruned_folder)


def test_its_rungs_are_those_of_its_tiers(cascade):
    assert [rung.name for rung in cascade.rungs] == ["static", "layer 1", "layer 2", "layer 3", "layer 4"]
    assert cascade.depths.tolist() == [0, 1, 2, 3, 4]
    assert len({id(tier.tokenizer) for tier in cascade.tiers}) == 1


def test_claim_27_extreme_thresholds_give_one_tier_or_the_other(cascade, alone, texts):
    static, last = alone
    encoded = cascade.encode(texts)
    first = cascade.run(encoded, ExitRule.fixed_depth(0, 5))
    assert np.array_equal(first.readings, static.run(encoded, ExitRule.fixed_depth(0, 1)).readings)
    for rule in ("full", ExitRule("margin", np.array([INF, *[np.nan] * 3]))):
        whole = cascade.run(encoded, cascade.rule_of(rule))
        assert np.array_equal(whole.readings, last.run(encoded, last.rule_of("full")).readings)


def test_what_is_escalated_is_answered_as_by_the_last_tier_alone(cascade, alone, texts):
    static, last = alone
    encoded = cascade.encode(texts)
    rule = cascade.rule("margin", [0.35] * len(texts))
    inner = dataclasses.replace(last.rule("margin", 0.35), tokens=rule.tokens)
    outcomes, theirs = cascade.run(encoded, rule, 3), last.run(encoded, inner, 3)
    went_on = outcomes.rungs > 0
    assert 0 < went_on.sum() < len(texts)
    assert np.array_equal(outcomes.rungs[went_on], theirs.rungs[went_on] + 1)
    assert np.allclose(outcomes.readings[went_on], theirs.readings[went_on], atol=1e-4)
    assert np.array_equal(
        outcomes.readings[~went_on], static.run(encoded, ExitRule.fixed_depth(0, 1)).readings[~went_on]
    )


@pytest.mark.parametrize("score", ["entropy", "margin", "agreement", "agreement-in-a-row"])
def test_claim_27_answers_keep_the_order_of_the_texts(cascade, texts, score):
    rule = cascade.rule(score, 0.4 if score in ("entropy", "margin") else 2)
    order = np.random.default_rng(0).permutation(len(texts))
    straight = cascade.answer(texts, rule, batch_size=1)
    shuffled = cascade.answer([texts[i] for i in order], rule, batch_size=7)
    assert [one.label for one in shuffled] == [straight[i].label for i in order]
    assert [one.trace.rung for one in shuffled] == [straight[i].trace.rung for i in order]
    assert len({one.trace.rung for one in straight}) >= 2


def test_a_trace_charges_every_tier_that_ran(cascade, alone, texts):
    static, last = alone
    rule = cascade.rule("margin", 0.35)
    inner = last.rule("margin", 0.35)
    for text, answer in zip(texts, cascade.answer(texts, rule), strict=True):
        (small,), (large,) = static.answer([text], "full"), last.answer([text], inner)
        assert small.trace.flops > 0 and small.trace.tokens == ()
        if answer.trace.rung == 0:
            assert (answer.trace.flops, answer.trace.tokens) == (small.trace.flops, ())
        else:
            assert answer.trace.flops == small.trace.flops + large.trace.flops
            assert answer.trace.tokens == large.trace.tokens
        assert answer.trace.read == large.trace.read


def test_claim_28_a_tier_may_read_with_a_tokenizer_of_its_own(make_static, pruned_folder, opened, texts, tmp_path):
    short = make_static(max_length=6)
    write_cascade([short, pruned_folder], tmp_path / "both")
    cascade, static, last = opened(tmp_path / "both"), opened(short), opened(pruned_folder)
    encoded = cascade.encode(texts)
    first = cascade.run(encoded, ExitRule.fixed_depth(0, 5))
    assert np.array_equal(first.readings, static.run(static.encode(texts), ExitRule.fixed_depth(0, 1)).readings)
    assert first.token_counts[:, 0].max() == 6 < encoded.lengths.max()
    rule = cascade.rule("margin", 0.35)
    outcomes = cascade.run(encoded, rule)
    theirs = last.run(encoded, last.rule("margin", 0.35))
    went_on = outcomes.rungs > 0
    assert 0 < went_on.sum() < len(texts)
    assert np.array_equal(outcomes.rungs[went_on], theirs.rungs[went_on] + 1)
    with pytest.raises(ValueError, match="needs the texts"):
        cascade.run(dataclasses.replace(encoded, texts=None), rule)


def test_nothing_of_a_tier_may_change(copied, cascade_folder, make_static, opened):
    folder = copied(cascade_folder)
    shutil.rmtree(folder / "tiers" / "1")
    shutil.copytree(make_static(max_length=9), folder / "tiers" / "1")
    with pytest.raises(UserError, match="a tier is not the one"):
        opened(folder)


def test_without_points_it_says_how_to_get_some(cascade, texts):
    with pytest.raises(UserError, match="ziggurat calibrate"):
        cascade.answer(texts)


def test_a_small_model_alone_is_a_model(static_folder, opened, texts):
    static = opened(static_folder)
    answers = static.answer(texts, "full")
    assert {answer.trace.layers for answer in answers} == {0}
    assert len({answer.label for answer in answers}) > 1
    with pytest.raises(UserError, match="has no layers"):
        _ = static.spec


@pytest.mark.parametrize("wrong", [{"backend": "tpu"}, {"device": "tpu"}, {"dtype": "int3"}, {"threads": 0}])
def test_a_small_model_takes_no_option_that_no_model_takes(static_folder, wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        OpenedModel.from_pretrained(static_folder, **wrong)


def test_a_points_batch_sizes_yield_to_those_of_the_call(cascade, texts, monkeypatch):
    point = OperatingPoint("p", "margin", (0.35,) * 4, cascade.manifest.fingerprint, batch_sizes=(1024, 3))
    seen = []
    run = OpenedModel.run
    monkeypatch.setattr(
        OpenedModel, "run", lambda self, *given, **more: seen.append(given[2]) or run(self, *given, **more)
    )
    own = cascade.answer(texts, point)
    given = cascade.answer(texts, point, batch_size=7)
    cascade.answer(texts, "full")
    assert seen == [(1024, 3), 7, (32, 32)]
    assert [answer.label for answer in own] == [answer.label for answer in given]
