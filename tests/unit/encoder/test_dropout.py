"""Dropout drops what it should, as often as it should, and again the same after the same seed."""

import numpy as np
import pytest
import torch
from torch.utils.checkpoint import checkpoint

from ziggurat.encoder import Dropout, attend
from ziggurat.encoder.torch.parts import drop


@pytest.mark.parametrize("share", [0.05, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_share_is_dropped_and_the_mean_stays(share, dtype):
    torch.manual_seed(0)
    dropped = drop(torch.ones(999, 1001, dtype=dtype), share)
    assert dropped.dtype == dtype
    assert (dropped == 0).float().mean().item() == pytest.approx(share, abs=2e-3)
    assert dropped[dropped != 0].unique().tolist() == pytest.approx([1 / (1 - share)], rel=1e-2)
    # No row, no column and no neighbour knows of another.
    gone = (dropped == 0).double() - share
    assert gone.mean(dim=0).abs().max() < 0.1 and gone.mean(dim=1).abs().max() < 0.1
    for step in (1, 2, 3, 4, 1001):
        assert (gone.flatten()[:-step] * gone.flatten()[step:]).mean().abs() < 2e-3


@pytest.mark.parametrize("count", [0, 1, 2, 3, 5, 8])
def test_any_number_of_states_is_possible(count):
    assert drop(torch.ones(count, 1), 0.5).shape == (count, 1)


def test_the_same_seed_drops_the_same_and_the_next_call_not():
    states = torch.randn(300)
    torch.manual_seed(3)
    first, second = drop(states, 0.3), drop(states, 0.3)
    torch.manual_seed(3)
    assert torch.equal(drop(states, 0.3), first) and not torch.equal(first, second)


def test_the_gradient_is_that_of_what_stays():
    states = torch.randn(64, 8, requires_grad=True)
    kept = drop(states, 0.25)
    kept.sum().backward()
    assert torch.allclose(states.grad, torch.where(kept == 0, 0.0, 1 / 0.75))
    states.grad = None
    again = checkpoint(lambda inner: drop(inner, 0.25), states, use_reentrant=False)
    again.sum().backward()
    assert torch.equal(states.grad == 0, again == 0)


def test_nothing_is_dropped_outside_training_or_at_rate_zero():
    states = torch.randn(50)
    assert Dropout(0.5).eval()(states) is states and Dropout(0.0).train()(states) is states
    assert not torch.equal(Dropout(0.5).train()(states), states)
    assert drop(states, 1.0).count_nonzero() == 0 and torch.equal(drop(states, 0.0), states)


def test_attention_with_next_to_no_dropout_is_attention():
    generator = torch.Generator().manual_seed(0)
    lengths = np.array([5, 3, 9, 1])
    qkv = torch.randn(lengths.sum(), 24, generator=generator)
    torch.manual_seed(0)
    assert torch.allclose(attend(qkv, lengths, 2, dropout=1e-9), attend(qkv, lengths, 2), atol=1e-6)
    assert not torch.allclose(attend(qkv, lengths, 2, dropout=0.5), attend(qkv, lengths, 2), atol=1e-2)
