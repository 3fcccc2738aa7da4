"""Grouped attention against one softmax per sequence and head."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ziggurat.data import cumulate
from ziggurat.encoder import attend, attend_and_score
from ziggurat.encoder.torch.attention import group_by_length

repeatable = settings(derandomize=True, deadline=None, max_examples=60)
ragged = st.lists(st.integers(1, 70), min_size=1, max_size=12)
HEADS, WIDTH = 4, 32


def naive(qkv: torch.Tensor, lengths: list[int], n_heads: int) -> torch.Tensor:
    """Attention as the textbook says it, one sequence and one head after the other."""
    pieces = []
    for sequence in qkv.split(lengths):
        heads = []
        for query, key, value in zip(*(part.chunk(n_heads, dim=1) for part in sequence.chunk(3, dim=1)), strict=True):
            weights = torch.softmax(query @ key.T / key.shape[1] ** 0.5, dim=1)
            heads.append(weights @ value)
        pieces.append(torch.cat(heads, dim=1))
    return torch.cat(pieces)


def random_qkv(lengths, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(sum(lengths), 3 * WIDTH, generator=generator)


def close(one, other) -> bool:
    return torch.allclose(one, other, atol=1e-5, rtol=1e-5)


@repeatable
@given(ragged, st.integers(0, 9), st.sampled_from([1, 2, 4]))
def test_attention_equals_one_softmax_per_sequence(lengths, seed, n_heads):
    qkv = random_qkv(lengths, seed)
    assert close(attend(qkv, np.array(lengths), n_heads), naive(qkv, lengths, n_heads))


@pytest.mark.parametrize(
    "lengths",
    [[1], [40], [7, 7, 7], [5, 9, 6], [1, 200, 1, 1, 2], [9, 60, 9, 60, 9], [1, 30, 70, 150], [150, 70, 30, 1]],
)
def test_attention_equals_the_loop_for_every_way_of_grouping(lengths):
    qkv = random_qkv(lengths)
    assert close(attend(qkv, np.array(lengths), HEADS), naive(qkv, lengths, HEADS))


def test_neighbours_do_not_matter_even_if_they_are_not_numbers():
    lengths = [4, 9, 60, 9, 5]
    qkv = random_qkv(lengths)
    alone = attend(qkv[-5:], np.array([5]), HEADS)
    poisoned = qkv.clone()
    poisoned[:-5] = float("nan")
    assert close(attend(poisoned, np.array(lengths), HEADS)[-5:], alone)


@pytest.mark.parametrize("lengths", [[6], [3, 9, 5], [2, 60, 2, 31]])
def test_gradients_equal_the_loops(lengths):
    one, other = random_qkv(lengths).requires_grad_(), random_qkv(lengths).requires_grad_()
    upstream = torch.randn(sum(lengths), WIDTH, generator=torch.Generator().manual_seed(5))
    attend(one, np.array(lengths), HEADS).backward(upstream)
    naive(other, lengths, HEADS).backward(upstream)
    assert close(one.grad, other.grad)


def test_dropout_drops_only_when_it_is_asked_for():
    lengths = np.array([6, 20, 7])
    qkv = random_qkv(lengths)
    torch.manual_seed(0)
    plain = attend(qkv, lengths, HEADS)
    assert torch.equal(attend(qkv, lengths, HEADS), plain)
    assert not close(attend(qkv, lengths, HEADS, dropout=0.5), plain)


@pytest.mark.parametrize("from_others", [False, True])
def test_claim_1_scores_are_taken_before_dropout(from_others):
    lengths = np.array([6, 20, 7])
    qkv = random_qkv(lengths)
    plain, scores = attend_and_score(qkv, lengths, HEADS, from_others=from_others)
    dropped, again = attend_and_score(qkv, lengths, HEADS, 0.5, from_others)
    assert torch.equal(again, scores)
    assert not close(dropped, plain)


@repeatable
@given(st.lists(st.integers(1, 512), min_size=1, max_size=60))
def test_groups_hold_every_sequence_once_and_little_padding(lengths):
    groups = group_by_length(np.array(lengths))
    assert sorted(np.concatenate(groups).tolist()) == list(range(len(lengths)))
    spans = []
    for group in groups:
        assert (np.diff(group) > 0).all()  # the batch's own order
        shortest, longest = np.array(lengths)[group].min(), np.array(lengths)[group].max()
        assert longest <= max(1.2 * shortest, shortest + 8)
        spans.append((shortest, longest))
    # No group reaches into the next, so none is cut in two for nothing.
    assert all(before[1] < after[0] for before, after in pairwise(spans))


def test_tokens_of_one_sequence_stay_together():
    lengths = [2, 40, 3]
    qkv = torch.zeros(sum(lengths), 3 * WIDTH)
    starts = cumulate(np.array(lengths))
    for i in range(3):
        qkv[starts[i] : starts[i + 1], 2 * WIDTH :] = i + 1  # only the values differ
    context = attend(qkv, np.array(lengths), HEADS)
    assert close(
        context, torch.repeat_interleave(torch.arange(1.0, 4.0), torch.tensor(lengths))[:, None].expand(-1, WIDTH)
    )


def test_attention_stays_float32_under_autocast_on_a_cpu():
    qkv, lengths = random_qkv([5, 9, 40]), np.array([5, 9, 40])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = attend(qkv, lengths, HEADS)
    assert mixed.dtype == torch.float32
    assert torch.equal(mixed, attend(qkv, lengths, HEADS))
