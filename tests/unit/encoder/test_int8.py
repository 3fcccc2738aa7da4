"""Simulated INT8: integer arithmetic, token by token, in exactly the parts asked for, and nothing left behind."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from ziggurat.data import pack
from ziggurat.encoder import EncoderModel, Int8Linear, RowLinear, load_model, save_model, simulate_int8
from ziggurat.encoder.torch.int8 import int8_weights, quantise_rows, without_int8
from ziggurat.errors import UserError

repeatable = settings(derandomize=True, deadline=None, max_examples=40)
LAYER_MAPS = [f"encoder.layers.{layer}.{part}" for layer in range(4) for part in ("qkv", "out", "up", "down")]
HEAD_MAPS = [f"exits.{layer}.{part}" for layer in (1, 2, 3) for part in ("narrow", "key_value")]


def uneven(n: int, d: int, seed: int = 0) -> torch.Tensor:
    """Rows (n, d) of very different size, some with one value that dwarfs the others."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(n, d, generator=generator) * torch.logspace(-3, 2, n)[:, None]
    values[::3, 0] *= 30
    return values


def int8_linear(d_in: int, d_out: int, bias: bool = True) -> Int8Linear:
    """A simulated map whose channels are as uneven as tokens are."""
    linear = RowLinear(d_in, d_out, bias=bias)
    with torch.no_grad():
        linear.weight.copy_(uneven(d_out, d_in, seed=1))
        if bias:
            linear.bias.copy_(torch.linspace(-1, 1, d_out))
    return Int8Linear(linear)


def by_integers(linear: nn.Linear, states: np.ndarray) -> np.ndarray:
    """What an int8 engine does: codes, a product of integers with 32-bit sums, one rescaling (here in float64)."""
    weight_codes, weight_scales = (part.numpy() for part in int8_weights(linear))
    scales = np.abs(states).max(axis=1, keepdims=True) / np.float32(127)
    codes = np.rint(states / np.where(scales == 0, 1, scales)).astype(np.int8)
    sums = codes.astype(np.int32) @ weight_codes.astype(np.int32).T
    bias = 0.0 if linear.bias is None else linear.bias.detach().numpy().astype(np.float64)
    return sums * scales.astype(np.float64) * weight_scales.astype(np.float64) + bias


def simulated_names(model) -> list[str]:
    return [name for name, part in model.named_modules() if isinstance(part, Int8Linear)]


@repeatable
@given(st.integers(1, 40), st.integers(1, 300), st.integers(1, 40), st.booleans(), st.integers(0, 99))
def test_simulation_equals_integer_arithmetic(n, d_in, d_out, bias, seed):
    linear, states = int8_linear(d_in, d_out, bias), uneven(n, d_in, seed)
    with torch.no_grad():
        answers = linear(states).double().numpy()
    assert np.allclose(answers, by_integers(linear, states.numpy()), rtol=1e-6, atol=1e-6)


def test_codes_are_int8_and_at_most_half_a_scale_away():
    values = uneven(50, 70)
    codes, scales = quantise_rows(values)
    assert torch.equal(codes, codes.to(torch.int8).float())
    assert (codes.abs().amax(dim=1) == 127).all()
    assert ((codes * scales - values).abs() <= 0.5001 * scales).all()
    assert scales.shape == (50, 1) and len(scales.unique()) > 40  # each row has its own


def test_an_engine_gets_one_scale_for_each_output_channel():
    linear = int8_linear(24, 10)
    codes, scales = int8_weights(linear)
    assert (codes.dtype, codes.shape) == (torch.int8, (10, 24))
    assert (scales.dtype, scales.shape) == (torch.float32, (10,))
    assert torch.allclose(scales * 127, linear.weight.abs().amax(dim=1), rtol=1e-6)
    assert ((codes * scales[:, None] - linear.weight).abs() <= 0.5001 * scales[:, None]).all()


def test_a_tokens_answer_does_not_depend_on_batch_mates():
    linear, states = int8_linear(300, 40), uneven(64, 300)
    with torch.no_grad():
        together = linear(states)
        assert torch.equal(together, torch.cat([linear(row[None]) for row in states]))


def test_packed_together_equals_alone(make_model, ragged_tokens):
    # float64, for in float32 attention's own rounding (1e-7) now and then moves a value over to the next code.
    model = make_model().double()
    simulate_int8(model)
    with torch.no_grad():
        together = torch.stack(model(pack(ragged_tokens)))
        alone = torch.cat([torch.stack(model(pack([tokens]))) for tokens in ragged_tokens], dim=1)
    assert (together - alone).abs().max() < 1e-6


@pytest.mark.parametrize("size", [0.0, 1e-45, 1e-37])
def test_rows_of_nothing_answer_with_the_bias_and_pass_gradients(size):
    linear, states = int8_linear(16, 8), uneven(5, 16)
    states[2] = size
    states.requires_grad_()
    answers = linear(states)
    assert torch.allclose(answers[2], linear.bias)
    answers.sum().backward()
    codes, scales = int8_weights(linear)
    assert torch.allclose(states.grad[2], (codes * scales[:, None]).sum(dim=0), rtol=1e-4)
    assert torch.isfinite(linear.weight.grad).all()


def test_a_channel_of_zeros_answers_with_its_bias():
    linear = int8_linear(16, 8)
    with torch.no_grad():
        linear.weight[3] = 0.0
        answers = linear(uneven(5, 16))
    assert (answers[:, 3] == linear.bias[3]).all()
    assert torch.isfinite(answers).all()


def test_gradients_are_those_of_the_rounded_linear_map():
    linear, states = int8_linear(30, 20), uneven(9, 30).requires_grad_()
    upstream = torch.randn(9, 20, generator=torch.Generator().manual_seed(2))
    got = torch.autograd.grad(linear(states), [states, *linear.parameters()], upstream)
    rounded = [
        (codes * scales).detach().requires_grad_() for codes, scales in map(quantise_rows, (states, linear.weight))
    ]
    bias = linear.bias.detach().clone().requires_grad_()
    expected = torch.autograd.grad(functional.linear(*rounded, bias), [*rounded, bias], upstream)
    for one, other in zip(got, expected, strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-4 * other.abs().max().item())


@pytest.mark.parametrize("way", ["autocast", "weights"])
def test_bfloat16_adds_its_own_rounding_and_no_other(way):
    linear, states = int8_linear(64, 32), uneven(13, 64)
    if way == "weights":
        linear, states = linear.bfloat16(), states.bfloat16()
    expected = by_integers(copy.deepcopy(linear).float(), states.float().numpy())
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=way == "autocast"):
        answers = linear(states)
    assert answers.dtype == torch.bfloat16
    # Twice 2⁻⁸: of the sum, and of the answer.
    size = np.abs(expected - linear.bias.detach().double().numpy()) + np.abs(expected)
    assert (np.abs(answers.double().numpy() - expected) <= 2**-8 * size + 1e-6).all()


def test_exactly_the_maps_that_see_every_token_are_simulated(tiny_model):
    assert list(simulate_int8(tiny_model)) == simulated_names(tiny_model)
    assert sorted(simulated_names(tiny_model)) == sorted(LAYER_MAPS + HEAD_MAPS)
    # And each does what its class says: only those answer otherwise than floats do.
    for name, part in tiny_model.named_modules():
        if isinstance(part, nn.Linear):
            states = uneven(6, part.in_features)
            with torch.no_grad():
                floats = torch.equal(part(states), functional.linear(states, part.weight, part.bias))
            assert floats == (name not in LAYER_MAPS + HEAD_MAPS), name


def test_exclusions_are_named_parts_and_all_below_them(tiny_spec):
    model = EncoderModel(dataclasses.replace(tiny_spec, layers=11), 3, "pooler", (2,))
    names = simulate_int8(model, ("encoder.layers.1", "encoder.layers.3.down", "exits"))
    assert {"encoder.layers.10.down", "encoder.layers.3.up", "classifier.dense", "classifier.classes"} <= set(names)
    assert len(names) == 11 * 4 - 4 - 1 + 2
    assert not [name for name in names if name.startswith(("encoder.layers.1.", "exits"))]
    assert "encoder.layers.3.down" not in names


def test_ltps_choice_is_everything_but_the_embeddings(tiny_model):
    linears = [name for name, part in tiny_model.named_modules() if isinstance(part, nn.Linear)]
    assert list(simulate_int8(tiny_model, ("encoder.embeddings",))) == linears
    assert len(linears) == 4 * 4 + 2 + 3 * 6


def test_an_unknown_exclusion_is_refused_and_changes_nothing(tiny_model):
    with pytest.raises(UserError, match=r"no part 'encoder.layers\.4' to exclude"):
        simulate_int8(tiny_model, ("exits", "encoder.layers.4"))
    assert simulated_names(tiny_model) == []


def test_parameters_are_the_same_objects_under_the_same_names(tiny_model):
    before, names = dict(tiny_model.named_parameters()), list(tiny_model.state_dict())
    for switch in (simulate_int8, simulate_int8, without_int8):
        switch(tiny_model)
        after = dict(tiny_model.named_parameters())
        assert list(tiny_model.state_dict()) == names
        assert list(after) == list(before)
        assert all(after[name] is parameter for name, parameter in before.items())


def test_without_int8_everything_is_as_it_was(tiny_model, ragged_tokens):
    batch, kinds = pack(ragged_tokens), [type(part) for part in tiny_model.modules()]
    tiny_model.encoder.layers[0].train()
    modes = [part.training for part in tiny_model.modules()]
    with torch.no_grad():
        plain = tiny_model.eval().full_logits(batch)
        tiny_model.encoder.layers[0].train()
        simulate_int8(tiny_model, ("encoder.embeddings",))
        assert [part.training for part in tiny_model.modules()] == modes
        without_int8(tiny_model)
        assert [part.training for part in tiny_model.modules()] == modes
        assert [type(part) for part in tiny_model.modules()] == kinds
        assert torch.equal(tiny_model.eval().full_logits(batch), plain)


def test_answers_are_near_those_of_floats_and_not_the_same(tiny_model, ragged_tokens):
    batch = pack(ragged_tokens)
    with torch.no_grad():
        plain = tiny_model.full_logits(batch)
        simulate_int8(tiny_model)
        difference = (tiny_model.full_logits(batch) - plain).abs()
    assert 1e-4 < difference.max() < 0.1 * plain.std()


def test_a_simulated_model_is_saved_as_such_and_answers_the_same(model_folder, tmp_path, ragged_tokens):
    model, manifest = load_model(model_folder)
    simulate_int8(model)
    rows = np.array([2**63 + 5, 7, 3], dtype=np.uint64)
    saved = save_model(model, manifest, rows, model_folder, tmp_path / "again")
    assert saved.fingerprint == manifest.fingerprint
    loaded, _ = load_model(tmp_path / "again")
    assert simulated_names(loaded) == []
    simulate_int8(loaded)
    with torch.no_grad():
        assert torch.equal(loaded.full_logits(pack(ragged_tokens)), model.full_logits(pack(ragged_tokens)))


def test_training_through_int8_moves_every_encoder_weight(tiny_model, ragged_tokens):
    batch, labels = pack(ragged_tokens), torch.arange(len(ragged_tokens)) % 3
    labels[10] = labels[4]  # the same text
    simulate_int8(tiny_model)
    before = {name: parameter.detach().clone() for name, parameter in tiny_model.encoder.named_parameters()}
    optimiser, losses = torch.optim.Adam(tiny_model.parameters(), lr=3e-3), []
    for _ in range(15):
        loss = functional.cross_entropy(tiny_model.full_logits(batch), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]
    assert not [name for name, start in before.items() if torch.equal(tiny_model.encoder.get_parameter(name), start)]
