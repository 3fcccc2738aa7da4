"""Leftovers of several batches, as the compiled engine joins them, in predicted times."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.measure.test_predicted_time import CONDITIONS, NOISY
from ziggurat.measure import predicted_seconds
from ziggurat.measure import predicted_time as joining
from ziggurat.measure.predicted_time import leaders, moved

repeatable = settings(derandomize=True, deadline=None, max_examples=100)


class Slow:
    """The specification: how many times the compiled engine runs each layer, `runs` (L), going from batch to batch."""

    def __init__(self, tokens):
        self.tokens, self.most = tokens, 0
        self.waiting, self.runs = [[] for _ in tokens[0]], np.zeros(tokens.shape[1], dtype=int)
        for batch in range(len(tokens)):
            self.most = max(self.most, int(tokens[batch, 0]))
            self.go([batch], 0, batch + 1 < len(tokens))
        for layer in range(tokens.shape[1]):
            self.go(self.called(layer), layer, False)

    def size(self, batches, layer):
        return int(self.tokens[batches, layer].sum()) if batches else 0

    def called(self, layer):
        called, self.waiting[layer] = self.waiting[layer], []
        return called

    def go(self, batches, layer, more):
        while layer < len(self.runs) and self.size(batches, layer):
            batches = self.company(batches, layer, more) if layer else batches
            self.runs[layer] += bool(batches)
            layer += 1

    def company(self, batches, layer, more):
        if 2 * self.size(batches, layer) > self.most if more else not self.waiting[layer]:
            return batches
        if self.size(batches + self.waiting[layer], layer) > self.most:
            self.go(self.called(layer), layer, more)
        self.waiting[layer] += batches
        return [] if more else self.called(layer)


@st.composite
def thinning(draw):
    """Tokens of batches, of which each layer may lose any share, (n, L)."""
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    n, n_layers = draw(st.integers(1, 40)), draw(st.integers(1, 6))
    left = rng.uniform(draw(st.sampled_from([0.0, 0.5, 0.9])), 1, (n, n_layers - 1))
    shares = np.cumprod(np.concatenate([np.ones((n, 1)), left], axis=1), axis=1)
    return (rng.integers(200, 400, (n, 1)) * shares).astype(np.int64)


@repeatable
@given(thinning())
def test_joining_loses_no_input_and_mixes_no_layers(tokens):
    leading = leaders(tokens)
    assert np.array_equal(moved(tokens, leading).sum(axis=0), tokens.sum(axis=0))
    assert (leading <= np.arange(len(tokens))[:, None]).all()
    for layer in range(1, tokens.shape[1]):  # who ran together goes on together
        pairs = set(zip(leading[:, layer - 1].tolist(), leading[:, layer].tolist(), strict=True))
        assert len(pairs) == len(set(leading[:, layer - 1].tolist()))


@repeatable
@given(thinning())
def test_no_layer_runs_many_more_tokens_than_a_full_batch(tokens):
    assert moved(tokens, leaders(tokens)).max() <= 1.5 * tokens[:, 0].max()


def test_about_as_many_layers_run_as_going_from_batch_to_batch():
    rng = np.random.default_rng(1)
    found = wanted = 0
    for exits in (0.1, 0.3, 0.5, 0.7):
        shares = np.cumprod(rng.uniform(0.9 - exits, 1 - exits / 2, (60, 6)), axis=1)
        tokens = (rng.integers(200, 300, (60, 1)) * np.concatenate([np.ones((60, 1)), shares], axis=1)).astype(np.int64)
        found += (moved(tokens, leaders(tokens)) > 0).sum()
        wanted += Slow(tokens).runs.sum()
    assert found == pytest.approx(wanted, rel=0.08)


def test_batches_that_keep_half_their_tokens_run_alone():
    tokens = np.array([[100, 100, 51], [90, 60, 51], [80, 80, 80]])
    assert np.array_equal(leaders(tokens), np.repeat(np.arange(3)[:, None], 3, axis=1))


def test_batches_of_different_calls_do_not_join(monkeypatch):
    tokens = np.array([[100, 10]] * 4)
    assert leaders(tokens)[:, 1].tolist() == [0, 0, 0, 0]
    monkeypatch.setattr(joining, "TOGETHER", 200)
    assert leaders(tokens)[:, 1].tolist() == [0, 0, 2, 2]


def test_joined_leftovers_are_charged_once():
    native = replace(NOISY, conditions=replace(CONDITIONS, engine="native"))
    kept, rungs, asked = np.full((16, 5), 6), np.array([0, 0, 0, 2] * 4), (True, False, True)
    batch_of = np.arange(16) // 4
    alone, joined = (predicted_seconds(one, kept, rungs, asked, batch_of) for one in (NOISY, native))
    layers = [NOISY.seconds("layer", np.array([tokens]), np.array([6 * tokens]))[0] for tokens in (6, 24)]
    lasts = [NOISY.seconds("last", np.array([tokens]), np.array([6 * tokens]))[0] for tokens in (6, 24)]
    saved = 2 * (4 * layers[0] - layers[1]) + 4 * lasts[0] - lasts[1]
    assert alone - joined == pytest.approx(saved)
