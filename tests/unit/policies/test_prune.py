"""Pruning rules against what they say of one text."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ziggurat.data import pack
from ziggurat.policies import (
    SCALES,
    TokenRule,
    above,
    linear_schedule,
    one_by_one,
    rescale,
    scaled,
    top_count,
    top_share,
)
from ziggurat.policies.prune import KINDS, SCORES, rank_in_sequence, spatten_schedule
from ziggurat.recipe import PRUNING_KINDS, PRUNING_SCALES, PRUNING_SCORES

lengths = st.lists(st.integers(1, 30), min_size=1, max_size=8)
repeatable = settings(derandomize=True, deadline=None, max_examples=60)


def batch_of(sizes):
    return pack([np.zeros((n, 2), dtype=np.int64) for n in sizes])


def scores_of(batch, seed, ties=False):
    draws = np.random.default_rng(seed)
    return draws.integers(0, 4, len(batch.positions)).astype(float) if ties else draws.random(len(batch.positions))


def test_the_names_in_recipes_are_the_rules_that_exist():
    assert tuple(KINDS) == PRUNING_KINDS
    assert PRUNING_SCORES == SCORES
    assert tuple(SCALES) == PRUNING_SCALES


@repeatable
@given(lengths, st.integers(0, 99), st.booleans())
def test_ranks_are_those_of_each_sequence_alone(sizes, seed, ties):
    batch = batch_of(sizes)
    scores = scores_of(batch, seed, ties)
    ranks = rank_in_sequence(scores, batch)
    for start, stop in zip(batch.cu_seqlens, batch.cu_seqlens[1:], strict=False):
        rest = sorted(range(start + 1, stop), key=lambda i: (-scores[i], i))
        assert [int(np.flatnonzero(ranks[start:stop] == k)[0]) + start for k in range(stop - start)] == [start, *rest]


@repeatable
@given(lengths, st.integers(0, 99), st.floats(0, 1))
def test_top_share_keeps_a_share_of_the_original_length(sizes, seed, share):
    batch = batch_of(sizes)
    kept = top_share(share, scores_of(batch, seed), batch)
    assert (
        np.add.reduceat(kept.astype(int), batch.cu_seqlens[:-1]).tolist() == np.rint(share * np.array(sizes)).tolist()
    )


@repeatable
@given(lengths, st.integers(0, 99), st.integers(1, 12))
def test_top_count_keeps_that_many_where_there_are_so_many(sizes, seed, count):
    batch = batch_of(sizes)
    kept = top_count(count, scores_of(batch, seed), batch)
    assert np.add.reduceat(kept.astype(int), batch.cu_seqlens[:-1]).tolist() == np.minimum(count, sizes).tolist()


@repeatable
@given(lengths, st.integers(0, 99), st.floats(0, 1))
def test_a_rule_of_one_text_prunes_like_the_packed_one(sizes, seed, threshold):
    batch = batch_of(sizes)
    scores = scores_of(batch, seed)
    literal = one_by_one(lambda layer, scores, length: scores > threshold * layer / 2)
    packed = TokenRule(above, np.array([threshold / 2, threshold]))
    mine = TokenRule(literal, np.array([1.0, 2.0]))
    for layer in (1, 2):
        assert np.array_equal(mine.keep_mask(layer, scores, batch), packed.keep_mask(layer, scores, batch))


def test_claim_2_thresholds_convert_between_the_papers_scales():
    # LTP's released threshold 0.01 is 1.28 times the mean received attention; of 20 tokens "paper" makes that 0.064.
    assert rescale(0.01, "ltp-code", "relative", 20) == pytest.approx(1.28)
    assert rescale(0.01, "ltp-code", "paper", 20) == pytest.approx(0.064)
    assert rescale(1.28, "relative", "ltp-code", 999) == pytest.approx(0.01)


@repeatable
@given(st.integers(1, 400), st.floats(0.01, 3), st.integers(0, 99))
def test_claim_2_a_converted_threshold_keeps_the_same_tokens(n, threshold, seed):
    batch = batch_of([n])
    scores = scores_of(batch, seed) * 2
    kept = TokenRule(above, np.array([threshold])).keep_mask(1, scores, batch)
    for scale in ("paper", "ltp-code"):
        values = rescale(np.array([threshold]), "relative", scale, n)
        far = np.abs(scores - threshold) > 1e-9
        assert np.array_equal(TokenRule(above, values, scale=scale).keep_mask(1, scores, batch)[far], kept[far])


def test_the_papers_scale_prunes_long_texts_harder_and_ours_not():
    batch = batch_of([20, 100])
    scores = np.concatenate([np.linspace(0, 2, 20), np.linspace(0, 2, 100)])
    share = {}
    for scale, value in (("relative", 0.5), ("paper", 0.01)):
        kept = TokenRule(above, np.array([value]), scale=scale).keep_mask(1, scores, batch)
        share[scale] = np.add.reduceat(kept.astype(int), [0, 20]) / [20, 100]
    assert share["relative"][0] == pytest.approx(share["relative"][1], abs=0.02)
    assert share["paper"][1] < share["paper"][0] - 0.3


def test_spattens_schedule_starts_after_layer_3():
    shares = spatten_schedule(0.4, 12)
    assert np.isnan(shares[:3]).all() and shares[-1] == pytest.approx(0.4)
    assert np.allclose(np.diff(shares[3:]), -0.6 / 9)
    assert np.isnan(spatten_schedule(0.4, 30)[:5]).all() and not np.isnan(spatten_schedule(0.4, 30)[5])
    assert np.isnan(spatten_schedule(0.4, 3)).all()


def test_claim_10_the_line_counts_layers_from_one():
    assert linear_schedule(0.06, 12)[[0, -1]].tolist() == pytest.approx([0.005, 0.06])


def test_scaling_moves_thresholds_and_zero_stops_pruning():
    rule = TokenRule(above, np.array([0.5, np.nan]))
    assert scaled(rule, 0) is None and scaled(rule, 1) is rule and scaled(None, 0.5) is None
    assert scaled(rule, 0.5).values.tolist() == pytest.approx([0.25, np.nan], nan_ok=True)
    with pytest.raises(ValueError, match="only thresholds"):
        scaled(TokenRule(top_share, np.array([0.5])), 0.5)
