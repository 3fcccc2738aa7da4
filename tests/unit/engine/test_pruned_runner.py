"""Tokens leave and inputs exit in the same forward: the runner against the specification."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kit.all_rungs import run_every_rung
from ziggurat.data import pack
from ziggurat.engine import TorchBackend, answer_all
from ziggurat.engine import run_batches as run
from ziggurat.engine.replay import replay
from ziggurat.policies import ExitRule, TokenRule, above, one_by_one
from ziggurat.recipe import PruningConfig

N_RUNGS = 4


@pytest.fixture(scope="module")
def backend(make_pruned):
    return TorchBackend(make_pruned(PruningConfig(final=1.1, vocabulary=0.9)), "cpu")


def in_batches(inputs, order, size):
    return [pack([inputs[i] for i in rows], rows=rows) for rows in np.array_split(order, -(-len(order) // size))]


@pytest.mark.slow
@settings(derandomize=True, deadline=None, max_examples=25)
@given(threshold=st.floats(0.05, 0.99), size=st.integers(1, 9), seed=st.integers(0, 99))
def test_batched_equals_one_by_one_with_pruning_and_exits(backend, ragged_tokens, threshold, size, seed):
    n = len(ragged_tokens)
    rule = replace(ExitRule.uniform("entropy", threshold, N_RUNGS), tokens=backend.token_rule)
    order = np.random.default_rng(seed).permutation(n)
    outcomes = run(backend, in_batches(ragged_tokens, order, size), rule, n)
    logits, rungs = answer_all(backend, ragged_tokens, rule)
    assert outcomes.rungs.tolist() == rungs.tolist()
    assert np.abs(outcomes.readings - logits).max() < 1e-5


def test_claim_24_it_reduces_to_exits_alone_and_to_pruning_alone(backend, make_model, ragged_tokens):
    n, batches = len(ragged_tokens), [pack(ragged_tokens)]
    exits_alone = TorchBackend(make_model(), "cpu")
    rule = ExitRule.uniform("entropy", 0.6, N_RUNGS)
    mine, theirs = run(backend, batches, rule, n), run(exits_alone, batches, rule, n)
    assert np.array_equal(mine.readings, theirs.readings) and np.array_equal(mine.rungs, theirs.rungs)
    pruned = run(backend, batches, replace(ExitRule.full_depth(N_RUNGS), tokens=backend.token_rule), n)
    every = run_every_rung(backend, batches, n, backend.token_rule)
    assert np.array_equal(pruned.readings, every.readings[:, -1]) and np.array_equal(
        pruned.token_counts, every.token_counts
    )


def test_claim_24_an_exited_input_has_no_tokens_in_later_layers(backend, ragged_tokens):
    n = len(ragged_tokens)
    rule = replace(ExitRule.uniform("entropy", 0.6, N_RUNGS), tokens=backend.token_rule)
    outcomes = run(backend, [pack(ragged_tokens)], rule, n)
    layers = np.array(backend.rung_layers)[outcomes.rungs]
    assert len(set(layers)) > 1
    for row in range(n):
        assert (outcomes.token_counts[row, : layers[row] + 1] > 0).all()
        assert (outcomes.token_counts[row, layers[row] + 1 :] == 0).all()
    assert (np.diff(outcomes.token_counts, axis=1) <= 0).all()


@pytest.mark.parametrize("scale", [0.5, 1.0, 1.5])
@pytest.mark.parametrize("threshold", [0.2, 0.6, 0.9])
def test_claim_25_replayed_exits_equal_the_run_at_every_scale(backend, ragged_tokens, scale, threshold):
    n, batches = len(ragged_tokens), [pack(ragged_tokens)]
    tokens = replace(backend.token_rule, values=backend.token_rule.values * scale)
    rule = replace(ExitRule.uniform("entropy", threshold, N_RUNGS), tokens=tokens)
    every = run_every_rung(backend, batches, n, tokens)
    outcomes = run(backend, batches, rule, n)
    assert replay(every.readings, rule).tolist() == outcomes.rungs.tolist()
    for row, rung in enumerate(outcomes.rungs):
        depth = backend.rung_layers[rung] + 1
        assert outcomes.token_counts[row, :depth].tolist() == every.token_counts[row, :depth].tolist()


def test_claim_2_eq_10_read_literally_prunes_everything(make_pruned, ragged_tokens):
    backend = TorchBackend(make_pruned(PruningConfig(scale="paper")), "cpu")
    literal = TokenRule(lambda value, scores, batch: scores - value > 0.5, np.full(4, 0.01), scale="paper")
    meant = TokenRule(above, np.full(4, 0.01), scale="paper")
    long = [tokens for tokens in ragged_tokens if len(tokens) > 20]
    assert (run_every_rung(backend, [pack(long)], len(long), literal).token_counts[:, 1] == 1).all()
    assert (run_every_rung(backend, [pack(long)], len(long), meant).token_counts[:, 1] > 10).all()


def test_a_users_own_rule_is_one_function(backend, ragged_tokens):
    def every_other(layer, scores, length):
        return np.arange(len(scores)) % 2 == 0 if layer == 2 else np.ones(len(scores), dtype=bool)

    rule = TokenRule(one_by_one(every_other), np.arange(1.0, 5.0))
    kept = run_every_rung(backend, [pack(ragged_tokens)], len(ragged_tokens), rule).token_counts
    lengths = np.array([len(tokens) for tokens in ragged_tokens])
    assert kept.T.tolist() == [lengths.tolist()] * 2 + [((lengths + 1) // 2).tolist()] * 3
