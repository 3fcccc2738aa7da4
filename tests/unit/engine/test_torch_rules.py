"""Decisions on the device are those of the numpy policies, and little but flags and answers comes back to the host."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ziggurat.data import pack
from ziggurat.engine import TorchBackend
from ziggurat.engine.backends import torch_rules
from ziggurat.policies import SPAN_ENTROPY, ExitRule, TokenRule, prune
from ziggurat.policies.exits import SCORES
from ziggurat.recipe import PruningConfig

repeatable = settings(derandomize=True, deadline=None, max_examples=60)
NAMES = (*SCORES, "top-entropy@2", "top-entropy@9", "confident-in-a-row@0.7", "learned")
N_RUNGS, HAIR = 5, 1e-12
ROUNDED = {"entropy", "max-probability", "margin", "label-entropy", "learned", "top-entropy"}  # the others are exact


def logits(rng, n, n_classes) -> np.ndarray:
    """Histories of all rungs: sharp, flat and equal ones, (n, N_RUNGS - 1, n_classes) float32."""
    scale = rng.choice([0.01, 1.0, 30.0, 1000.0], (n, 1, 1))
    found = (rng.normal(size=(n, N_RUNGS - 1, n_classes)) * scale).astype(np.float32)
    found[rng.random(n) < 0.1] = 0
    return found


@repeatable
@given(name=st.sampled_from(NAMES), n_classes=st.integers(1, 5), seed=st.integers(0, 9999), data=st.data())
def test_scores_and_exits_are_those_of_numpy(name, n_classes, seed, data):
    rng = np.random.default_rng(seed)
    n_classes = max(n_classes, 1 if name in ("change", "learned", "label-entropy") else 2)
    history, rung = logits(rng, 40, n_classes), data.draw(st.integers(0, N_RUNGS - 2))
    per_input = data.draw(st.booleans())
    thresholds = rng.choice([-np.inf, 0.0, 0.3, 0.5, 1.0, 2.0, np.inf], (40, N_RUNGS - 1) if per_input else N_RUNGS - 1)
    asked = rng.random(N_RUNGS - 1) < 0.7
    asked[rung] = True
    thresholds = np.where(asked, thresholds, np.nan)
    weights = rng.normal(size=(N_RUNGS - 1, 4 + n_classes))
    temperatures = data.draw(st.sampled_from([None, rng.uniform(0.5, 2, N_RUNGS)]))
    rule = ExitRule(name, thresholds, temperatures, deferral=weights)
    seen = history[:, np.flatnonzero(asked[: rung + 1])]
    rows = np.arange(40)
    expected = rule.values(rung, seen)
    found = torch_rules.score_of(rule, rung, torch.from_numpy(seen)).numpy()
    assert found.dtype == np.float64
    if name.partition("@")[0] in ROUNDED:
        assert np.allclose(found, expected, rtol=0, atol=HAIR)
    elif not name.startswith("confident"):
        assert np.array_equal(found, expected)
    limits = thresholds[:, rung] if per_input else np.full(40, thresholds[rung])
    with np.errstate(invalid="ignore"):  # infinity less infinity
        clear = ~(np.abs(expected - limits) < HAIR) | (expected == found)
    decided = torch_rules.exits(rule, rung, torch.from_numpy(seen), rows).numpy()
    assert np.array_equal(decided[clear], rule.exits(rung, seen, rows)[clear]) and clear.mean() > 0.8


def test_the_last_rung_answers_all_and_others_are_numpys():
    history = torch.zeros(3, 2, 2)
    rule = ExitRule.uniform("entropy", 0.5, 2)
    assert torch_rules.exits(rule, 1, history, np.arange(3)).all()
    assert torch_rules.exits(replace(rule, score=SPAN_ENTROPY), 0, history, np.arange(3)) is None


@repeatable
@given(
    kind=st.sampled_from(sorted(prune.KINDS)),
    scale=st.sampled_from(sorted(prune.SCALES)),
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    seed=st.integers(0, 9999),
)
def test_the_tokens_that_stay_are_those_of_numpy_bit_for_bit(kind, scale, lengths, seed):
    rng = np.random.default_rng(seed)
    batch = replace(
        pack([np.zeros((length, 2), dtype=np.int64) for length in lengths]),
        original=np.array(lengths) + rng.integers(0, 4, len(lengths)),
    )
    scores = rng.choice(np.float32([0.1, 0.5, 1.0, 1.5]), sum(lengths))  # ties, and hits of the threshold
    if rng.random() < 0.5:
        scores = rng.random(sum(lengths)).astype(np.float32)
    value = {"threshold": 0.5 if scale == "relative" else 0.1, "share": 0.6, "count": 3.0}[kind]
    rule = TokenRule(prune.KINDS[kind], np.array([value]), scale=scale)
    found = torch_rules.keep_mask(rule, 1, torch.from_numpy(scores), batch)
    assert np.array_equal(found.numpy(), rule.keep_mask(1, scores, batch))


def test_a_rule_of_the_users_own_is_left_to_numpy():
    own = TokenRule(lambda value, scores, batch: scores > value, np.array([0.5]))
    assert torch_rules.keep_mask(own, 1, torch.ones(2), pack([np.zeros((2, 2), dtype=np.int64)])) is None


@pytest.mark.parametrize("kind", ["threshold", "share"])
def test_what_comes_back_to_the_host_is_flags_and_the_answers(make_pruned, ragged_tokens, monkeypatch, kind):
    values = (0.8, 0.9, 0.95, 1.0) if kind == "threshold" else (0.9, 0.7, 0.5, 0.3)
    backend = TorchBackend(make_pruned(PruningConfig(kind=kind, per_layer=values)), "cpu")
    rule = replace(ExitRule.uniform("agreement", 1, len(backend.rung_layers)), tokens=backend.token_rule)
    n, copied, real = len(ragged_tokens), [], torch.Tensor.cpu

    def cpu(tensor):
        copied.append((tensor.dtype, tuple(tensor.shape)))
        return real(tensor)

    monkeypatch.setattr(torch.Tensor, "cpu", cpu)
    work, done = backend.advance(backend.start(pack(ragged_tokens)), rule, backend.n_layers)
    assert len(done.rows) == n and not len(work.rows) and len(set(done.rungs)) > 1
    others = [shape for dtype, shape in copied if dtype is not torch.bool]
    assert sum(shape[0] for shape in others) == n and {shape[1:] for shape in others} == {(backend.n_classes,)}
    assert len(copied) > len(others)
