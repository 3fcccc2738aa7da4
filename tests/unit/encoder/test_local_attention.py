"""Local attention and rotary positions, of texts that pruning has left gaps in, against loops that say it literally."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ziggurat.encoder import attend, attend_and_score
from ziggurat.encoder.torch import attention as grid
from ziggurat.encoder.torch.attention import Window, rotate

repeatable = settings(derandomize=True, deadline=None, max_examples=40)
ragged = st.lists(st.integers(1, 60), min_size=1, max_size=6)
HEADS, WIDTH, REACH = 2, 16, 5


def inputs(lengths, seed: int) -> tuple[torch.Tensor, np.ndarray]:
    """Queries, keys and values (n_tokens, 3 WIDTH), and positions that rise with gaps in each sequence."""
    rng = np.random.default_rng(seed)
    positions = [np.cumsum(rng.choice([1, 1, 1, 2, 9], n)) - 1 for n in lengths]
    qkv = torch.from_numpy(3 * rng.normal(size=(sum(lengths), 3 * WIDTH)).astype(np.float32))
    return qkv, np.concatenate(positions)


def sequences(qkv: torch.Tensor, positions: np.ndarray, lengths) -> list[tuple[torch.Tensor, np.ndarray]]:
    return list(zip(qkv.split(list(lengths)), np.split(positions, np.cumsum(lengths)[:-1]), strict=True))


def probabilities(qkv: torch.Tensor, positions: np.ndarray, weights: np.ndarray) -> torch.Tensor:
    """(heads, n, n) of one sequence: every pair of tokens in sight, one after the other."""
    n = len(qkv)
    query, key, _ = qkv.double().view(n, 3, HEADS, -1).unbind(1)
    shares = torch.zeros(HEADS, n, n, dtype=torch.float64)
    for head in range(HEADS):
        for i in range(n):
            seen = [j for j in range(n) if abs(positions[i] - positions[j]) <= REACH]
            scores = torch.stack([query[i, head] @ key[j, head] for j in seen]) / query.shape[2] ** 0.5
            shares[head, i, seen] = (scores + torch.from_numpy(weights)[seen].log()).softmax(0)
    return shares


def importance(shares: torch.Tensor, positions: np.ndarray, weights: np.ndarray, from_others: bool) -> torch.Tensor:
    """What the docstring of `attend_and_score` says, token by token."""
    n, mean, scores = len(positions), shares.mean(0), torch.zeros(len(positions), dtype=torch.float64)
    near = np.abs(positions[:, None] - positions) <= REACH
    sees = near @ weights
    for j in range(n):
        for i in range(n):
            if near[i, j] and not (from_others and i == j):
                scores[j] += weights[i] * mean[i, j] * sees[i] / sees[j]
    total = float(scores @ torch.from_numpy(weights))
    return scores * weights.sum() / total if total else scores


@pytest.mark.slow
@repeatable
@given(ragged, st.integers(0, 9), st.booleans())
def test_attention_in_a_window_equals_the_loop(lengths, seed, from_others):
    qkv, positions = inputs(lengths, seed)
    window = Window(positions, REACH)
    plain = attend(qkv, np.array(lengths), HEADS, window=window)
    context, scores = attend_and_score(qkv, np.array(lengths), HEADS, 0.0, from_others, window=window)
    expected, received = [], []
    for mine, places in sequences(qkv, positions, lengths):
        ones = np.ones(len(mine))
        shares = probabilities(mine, places, ones)
        value = mine.double().view(len(mine), 3, HEADS, -1)[:, 2]
        expected.append(torch.einsum("hij,jhd->ihd", shares, value).flatten(1))
        received.append(importance(shares, places, ones, from_others))
    assert torch.allclose(plain.double(), torch.cat(expected), atol=1e-5)
    assert torch.allclose(context.double(), torch.cat(expected), atol=1e-5)
    assert torch.allclose(scores.double(), torch.cat(received), atol=1e-4)


@repeatable
@given(st.integers(1, 50), st.integers(0, 9))
def test_even_attention_makes_all_tokens_equally_important(n, seed):
    qkv, positions = inputs([n], seed)
    qkv[:, :WIDTH] = 0  # queries that tell no key from another
    _, scores = attend_and_score(qkv, np.array([n]), HEADS, window=Window(positions, REACH))
    assert torch.allclose(scores, torch.ones(n), atol=1e-5)


def test_a_window_that_shows_everything_changes_nothing():
    lengths = np.array([9, 30, 4])
    qkv, _ = inputs(lengths, 0)
    window = Window(np.concatenate([np.arange(n) for n in lengths]), 30)
    for mine, theirs in zip(
        attend_and_score(qkv, lengths, HEADS), attend_and_score(qkv, lengths, HEADS, window=window), strict=True
    ):
        assert torch.allclose(mine, theirs, atol=1e-5)


def test_who_fades_away_is_as_good_as_gone():
    qkv, positions = inputs([40], 3)
    keep = np.random.default_rng(0).random(40) < 0.6
    active = torch.from_numpy(np.where(keep, 1.0, 1e-30)).float()
    context, scores = attend_and_score(qkv, np.array([40]), HEADS, active=active, window=Window(positions, REACH))
    fewer, hard = attend_and_score(qkv[keep], np.array([keep.sum()]), HEADS, window=Window(positions[keep], REACH))
    assert torch.allclose(context[keep], fewer, atol=1e-5)
    assert torch.allclose(scores[keep], hard, atol=1e-5)


def test_a_nearly_faded_text_gives_finite_gradients():
    qkv, positions = inputs([40], 4)
    active = torch.tensor([1.0, *[1e-40] * 39]).requires_grad_()
    window = Window(positions, REACH)
    context, scores = attend_and_score(qkv.requires_grad_(), np.array([40]), HEADS, active=active, window=window)
    (context.sum() + scores.square().sum()).backward()
    assert all(torch.isfinite(one).all() for one in (context, scores, qkv.grad, active.grad))


@pytest.mark.parametrize("local", [False, True])
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("held", [0, 1 << 20])
def test_some_queries_at_a_time_answer_and_learn_as_all_at_once(monkeypatch, local, soft, held):
    lengths = np.array([70, 66, 60, 2])
    upstream = torch.randn(198, WIDTH + 1, generator=torch.Generator().manual_seed(0))

    def once() -> list[torch.Tensor]:
        qkv, positions = inputs(lengths, 1)
        active = torch.rand(198, generator=torch.Generator().manual_seed(1)) if soft else None
        window = Window(positions, REACH) if local else None
        context, scores = attend_and_score(qkv.requires_grad_(), lengths, HEADS, 0.0, False, active, window)
        (torch.cat([context, scores[:, None]], dim=1) * upstream).sum().backward()
        return [context, scores, attend(qkv, lengths, HEADS, window=window), qkv.grad]

    whole = once()
    monkeypatch.setattr(grid, "_PROBABILITIES", 3 * HEADS * 70 * 11)
    monkeypatch.setattr(grid, "_CHECKPOINT", held)
    monkeypatch.setattr(grid, "_LOCAL_ROWS", 7)
    for mine, expected in zip(once(), whole, strict=True):
        assert torch.allclose(mine, expected, atol=1e-5)


@repeatable
@given(st.integers(0, 8000), st.integers(0, 9))
def test_turned_products_depend_on_the_distance_alone(start, seed):
    qkv, positions = inputs([12], seed)
    one, other = (rotate(qkv, positions + shift, HEADS, 10_000.0) for shift in (0, start))

    def products(turned: torch.Tensor) -> torch.Tensor:
        query, key, _ = turned.view(12, 3, HEADS, -1).unbind(1)
        return torch.einsum("ihd,jhd->hij", query, key)

    assert torch.allclose(products(one), products(other), atol=0.05, rtol=1e-3)
    assert torch.equal(one[:, 2 * WIDTH :], qkv[:, 2 * WIDTH :])
    assert torch.equal(rotate(qkv, np.zeros(12, dtype=np.int64), HEADS, 10_000.0), qkv)
