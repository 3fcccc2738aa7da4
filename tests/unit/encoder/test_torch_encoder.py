"""The packed forward and its gradients against transformers' padded ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ziggurat.data import pack
from ziggurat.encoder import EncoderModel, from_hf, read_spec, to_hf
from ziggurat.encoder.torch.layers import first_tokens

repeatable = settings(derandomize=True, deadline=None, max_examples=30)
ragged = st.lists(st.integers(2, 60), min_size=1, max_size=8)


def ours_of(bert) -> EncoderModel:
    """Our model with the weights of a transformers classifier, without exit heads."""
    spec = read_spec(bert.config.to_dict())
    model = EncoderModel(spec, bert.config.num_labels, "linear", ())
    model.load_state_dict(from_hf(bert.state_dict(), spec, torch.cat))
    return model.eval()


@pytest.fixture(scope="module")
def both(make_bert):
    """A transformers classifier and ours with its weights. Shared."""
    bert = make_bert()
    return bert, ours_of(bert)


def padded(sequences, length: int) -> dict[str, torch.Tensor]:
    """What transformers reads: ids 0 and mask 0 up to `length`."""
    grid = np.zeros((len(sequences), length, 3), dtype=np.int64)
    for row, sequence in zip(grid, sequences, strict=True):
        row[: len(sequence), :2], row[: len(sequence), 2] = sequence, 1
    ids, segments, mask = torch.from_numpy(grid).unbind(-1)
    return {"input_ids": ids, "token_type_ids": segments, "attention_mask": mask}


def longest(sequences) -> int:
    return max(map(len, sequences))


def close(one, other) -> bool:
    return torch.allclose(one, other, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def theirs(bert, sequences, extra: int = 0) -> torch.Tensor:
    return bert(**padded(sequences, longest(sequences) + extra)).logits


@torch.no_grad()
def ours(model, sequences) -> torch.Tensor:
    return model.full_logits(pack(sequences))


@pytest.mark.slow
@repeatable
@given(lengths=ragged, seed=st.integers(0, 99), extra=st.integers(0, 4))
def test_claim_1_logits_equal_transformers_in_any_batch(both, random_tokens, lengths, seed, extra):
    bert, model = both
    sequences = random_tokens(lengths, seed)
    logits = ours(model, sequences)
    assert close(logits, theirs(bert, sequences, extra))
    assert close(logits, torch.cat([theirs(bert, [sequence]) for sequence in sequences]))


@repeatable
@given(data=st.data())
def test_batch_mates_and_order_do_not_matter(both, ragged_tokens, data):
    _, model = both
    picked = data.draw(st.lists(st.integers(0, len(ragged_tokens) - 1), min_size=1, max_size=16))
    alone = torch.cat([ours(model, [ragged_tokens[i]]) for i in picked])
    assert close(ours(model, [ragged_tokens[i] for i in picked]), alone)


def test_answers_differ_enough_for_equality_to_mean_something(both, ragged_tokens):
    bert, _ = both
    logits = theirs(bert, ragged_tokens)
    assert logits.std(dim=0).min() > 0.3
    assert len(logits.argmax(dim=1).unique()) > 1


@pytest.mark.parametrize("activation", ["gelu", "gelu_new", "gelu_pytorch_tanh", "gelu_python"])
def test_every_activation_equals_transformers(make_bert, ragged_tokens, activation):
    bert = make_bert(hidden_act=activation)
    assert close(ours(ours_of(bert), ragged_tokens), theirs(bert, ragged_tokens))


def test_the_two_gelus_are_told_apart(make_bert, ragged_tokens):
    exact, tanh = make_bert(), make_bert(hidden_act="gelu_new")
    assert not close(theirs(exact, ragged_tokens), theirs(tanh, ragged_tokens))


def test_the_layer_norms_epsilon_is_the_configurations(make_bert, ragged_tokens):
    bert = make_bert(layer_norm_eps=0.1)
    assert close(ours(ours_of(bert), ragged_tokens), theirs(bert, ragged_tokens))


def test_segment_ids_are_read(both, random_tokens):
    bert, model = both
    (sequence,) = random_tokens([9])
    other = sequence * [1, 0] + [0, 1]
    assert close(ours(model, [other]), theirs(bert, [other]))
    assert not close(ours(model, [sequence * [1, 0]]), ours(model, [other]))


def test_positions_are_those_of_the_packed_batch_and_not_places(both, random_tokens):
    _, model = both
    (sequence,) = random_tokens([6])
    batch = pack([sequence])
    thinned = batch.take_tokens(np.array([1, 0, 1, 1, 0, 1], dtype=bool))
    with torch.no_grad():
        kept = model.encoder.embeddings(batch).states[[0, 2, 3, 5]]
        assert torch.equal(model.encoder.embeddings(thinned).states, kept)


def test_gradients_equal_transformers(make_bert, ragged_tokens):
    bert = make_bert()
    model = ours_of(bert)
    # Transformers gives the embedding of [PAD] no gradient, and no text holds it.
    sequences = [np.maximum(tokens, [1, 0]) for tokens in ragged_tokens]
    labels = torch.arange(len(sequences)) % 3
    bert(**padded(sequences, longest(sequences)), labels=labels).loss.backward()
    torch.nn.functional.cross_entropy(model.full_logits(pack(sequences)), labels).backward()
    mine = to_hf({name: parameter.grad for name, parameter in model.named_parameters()}, model.spec)
    expected = {name: parameter.grad for name, parameter in bert.named_parameters()}
    assert mine.keys() == expected.keys()
    for name, gradient in expected.items():
        assert torch.allclose(mine[name], gradient, atol=1e-4, rtol=1e-4), name
    # The keys' bias moves no softmax, so its gradient is nothing but rounding.
    moved = [name for name in expected if not name.endswith("key.bias")]
    assert all(expected[name].abs().max() > 1e-3 for name in moved)


def test_claim_16_every_rung_answers_and_the_last_is_full_depth(tiny_model, ragged_tokens):
    batch = pack(ragged_tokens)
    with torch.no_grad():
        every, full = tiny_model(batch), tiny_model.full_logits(batch)
    assert [rung.layer for rung in tiny_model.rungs] == [1, 2, 3, 4]
    assert [logits.shape for logits in every] == [(len(ragged_tokens), 3)] * 4
    assert torch.equal(every[-1], full)


def test_dropout_is_for_training_only(tiny_model, ragged_tokens):
    batch = pack(ragged_tokens)
    with torch.no_grad():
        assert torch.equal(tiny_model.full_logits(batch), tiny_model.full_logits(batch))
        tiny_model.train()
        assert not close(tiny_model.full_logits(batch), tiny_model.full_logits(batch))


def test_first_tokens_are_those_at_the_starts():
    batch = pack([np.array([[1.0], [2.0]]), np.array([[3.0]]), np.array([[4.0], [5.0], [6.0]])])
    assert first_tokens(batch.with_states(torch.from_numpy(batch.states))).flatten().tolist() == [1, 3, 4]
