import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ziggurat.encoder import RowLinear
from ziggurat.encoder.torch.parts import pad_rows


@settings(derandomize=True, deadline=None, max_examples=60)
@given(st.integers(1, 5000))
def test_rows_are_padded_by_little_and_with_zeros(n):
    padded = pad_rows(torch.ones(n, 1))
    assert n <= len(padded) <= n + max(7, 0.07 * n)
    assert padded[:n].all()
    assert not padded[n:].any()


def test_few_row_counts_are_left():
    assert len({len(pad_rows(torch.empty(n, 1))) for n in range(1, 4097)}) <= 100


@pytest.mark.parametrize("n", [1, 7, 8, 9, 100, 129])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_padding_changes_no_answer(n, dtype):
    torch.manual_seed(0)
    ours, states = RowLinear(16, 24).to(dtype), torch.randn(n, 16, dtype=dtype)
    theirs = torch.nn.functional.linear(states.double(), ours.weight.double(), ours.bias.double())
    tolerance = 1e-5 if dtype is torch.float32 else 2e-2
    assert ours(states).shape == (n, 24)
    assert torch.allclose(ours(states).double(), theirs, atol=tolerance)


def test_gradients_pass_through_padding():
    torch.manual_seed(0)
    linear, states = RowLinear(8, 8), torch.randn(13, 8, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        linear(states).float().sum().backward()
    expected = linear.weight.detach().sum(0).expand(13, 8)
    assert torch.allclose(states.grad, expected, atol=2e-2)
