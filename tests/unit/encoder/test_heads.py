"""Exit heads: what the references compute, for each sequence by itself, with weights of their own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ziggurat.data import PackedBatch, pack
from ziggurat.encoder.torch.heads import HEADS, FastBertHead, attend_first

repeatable = settings(derandomize=True, deadline=None, max_examples=40)
ragged = st.lists(st.integers(1, 60), min_size=1, max_size=8)
N_CLASSES, D = 3, 32


@pytest.fixture(scope="module")
def heads(tiny_spec):
    """One head of each kind with random weights and biases, in evaluation mode. Shared."""
    torch.manual_seed(0)
    made = {kind: maker(tiny_spec, N_CLASSES).eval() for kind, maker in HEADS.items()}
    for head in made.values():
        for parameter in head.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
    return made


def packed_states(lengths, seed: int = 0) -> PackedBatch:
    generator = torch.Generator().manual_seed(seed)
    batch = pack([np.zeros((n, 1)) for n in lengths])
    return batch.with_states(torch.randn(sum(lengths), D, generator=generator))


def close(one, other) -> bool:
    return torch.allclose(one, other, atol=1e-5, rtol=1e-5)


def literal_fastbert(head: FastBertHead, states: torch.Tensor) -> torch.Tensor:
    """FastBERT's classifier for one sequence (n, d): every token attends to every other, then position 0 is read."""
    narrow = torch.tanh(states @ head.narrow.weight.T + head.narrow.bias)
    query = narrow @ head.query.weight.T + head.query.bias
    both = narrow @ head.key_value.weight.T + head.key_value.bias
    key, value = both[:, :128], both[:, 128:]
    contexts = []
    for part in (slice(0, 64), slice(64, 128)):
        weights = torch.softmax(query[:, part] @ key[:, part].T / 8, dim=1)
        contexts.append(weights @ value[:, part])
    context = torch.cat(contexts, dim=1) @ head.out.weight.T + head.out.bias
    pooled = torch.tanh(context[0] @ head.dense.weight.T + head.dense.bias)
    return pooled @ head.classes.weight.T + head.classes.bias


@repeatable
@given(lengths=ragged, seed=st.integers(0, 99))
def test_claim_19_fastbert_head_is_full_attention_at_position_0(heads, lengths, seed):
    batch = packed_states(lengths, seed)
    with torch.no_grad():
        expected = [literal_fastbert(heads["fastbert"], part) for part in batch.states.split(lengths)]
        assert close(heads["fastbert"](batch), torch.stack(expected))


def test_claim_19_pooler_and_linear_heads_equal_their_formulas(heads):
    batch = packed_states([3, 1, 7])
    first = batch.states[[0, 3, 4]]
    pooler, linear = heads["pooler"], heads["linear"]
    with torch.no_grad():
        pooled = torch.tanh(first @ pooler.dense.weight.T + pooler.dense.bias)
        assert close(pooler(batch), pooled @ pooler.classes.weight.T + pooler.classes.bias)
        assert close(linear(batch), first @ linear.classes.weight.T + linear.classes.bias)


@pytest.mark.parametrize("kind", HEADS)
@repeatable
@given(lengths=ragged)
def test_neighbours_do_not_matter_to_a_head(heads, kind, lengths):
    batch = packed_states(lengths)
    with torch.no_grad():
        alone = [
            heads[kind](pack([np.zeros((len(part), 1))]).with_states(part)) for part in batch.states.split(lengths)
        ]
        assert close(heads[kind](batch), torch.cat(alone))


@pytest.mark.parametrize("kind", HEADS)
def test_claim_15_neighbours_that_are_nan_do_not_matter(heads, kind):
    batch = packed_states([4, 60, 5])
    poisoned = batch.states.clone()
    poisoned[4:64] = float("nan")
    with torch.no_grad():
        before, after = heads[kind](batch), heads[kind](batch.with_states(poisoned))
    assert close(after[[0, 2]], before[[0, 2]])
    assert after[1].isnan().all()


def test_claim_15_every_rung_of_a_model_answers_as_if_alone(make_model, ragged_tokens):
    for kind in HEADS:
        model = make_model(kind)
        with torch.no_grad():
            together = torch.stack(model(pack(ragged_tokens)))
            alone = torch.stack([torch.cat(model(pack([tokens]))) for tokens in ragged_tokens], dim=1)
        assert close(together, alone)
        assert (together.std(dim=1) > 0.1).all()  # else equality would say nothing


def test_one_query_per_sequence_equals_softmax():
    query, key, value = (torch.randn(n, 4, generator=torch.Generator().manual_seed(n)) for n in (2, 5, 6))
    lengths, value = np.array([2, 3]), value[:5]
    expected = []
    for i, part in enumerate((slice(0, 2), slice(2, 5))):
        shares = torch.softmax(key[part] @ query[i] / 2, dim=0)
        expected.append(shares @ value[part])
    assert close(attend_first(query, key, value, lengths, 1), torch.stack(expected))


def test_claim_19_parameters_are_as_many_as_the_references_have(heads):
    w, d, n = 128, D, N_CLASSES
    counts = {kind: sum(parameter.numel() for parameter in head.parameters()) for kind, head in heads.items()}
    assert counts == {
        "fastbert": (d * w + w) + 3 * (w * w + w) + (w * w + w) + (w * w + w) + (w * n + n),
        "pooler": (d * d + d) + (d * n + n),
        "linear": d * n + n,
    }


def test_claim_19_a_models_fastbert_head_has_its_presets_shapes(tiny_model):
    head = tiny_model.head_at(1)
    assert {name: tuple(tensor.shape) for name, tensor in head.state_dict().items() if name.endswith("weight")} == {
        "narrow.weight": (128, 32),
        "query.weight": (128, 128),
        "key_value.weight": (256, 128),
        "out.weight": (128, 128),
        "dense.weight": (128, 128),
        "classes.weight": (3, 128),
    }


@pytest.mark.parametrize("kind", HEADS)
def test_claim_22_no_two_layers_or_heads_share_a_weight(make_model, kind):
    model = make_model(kind)
    parameters = [parameter for _, parameter in model.named_parameters(remove_duplicate=False)]
    assert len({parameter.untyped_storage().data_ptr() for parameter in parameters}) == len(parameters) > 60
    assert len({id(model.head_at(layer)) for layer in (1, 2, 3)}) == 3
    before = [tensor.clone() for tensor in model.head_at(2).state_dict().values()]
    with torch.no_grad():
        for parameter in model.head_at(1).parameters():
            parameter.zero_()
        for parameter in model.classifier.parameters():
            parameter.zero_()
    after = list(model.head_at(2).state_dict().values())
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


def test_pooler_heads_start_as_copies_of_the_last_rungs_pooler(tiny_checkpoint):
    from ziggurat.encoder import load_hf

    model = load_hf(tiny_checkpoint, N_CLASSES, "pooler", None)
    for layer in (1, 2, 3):
        head = model.head_at(layer)
        assert torch.equal(head.dense.weight, model.classifier.dense.weight)
        assert torch.equal(head.dense.bias, model.classifier.dense.bias)
        assert not torch.equal(head.classes.weight, model.classifier.classes.weight)


def test_other_heads_start_different_from_one_another(tiny_checkpoint):
    from ziggurat.encoder import load_hf

    for kind in ("fastbert", "linear"):
        model = load_hf(tiny_checkpoint, N_CLASSES, kind, None)
        assert not torch.equal(model.head_at(1).classes.weight, model.head_at(2).classes.weight)


def test_heads_stand_where_they_were_asked_for(make_model):
    model = make_model("linear", (1, 3))
    assert [rung.layer for rung in model.rungs] == [1, 3, 4]
    assert model.head_at(2) is None
    assert model.head_at(4) is model.classifier
    assert model.head_at(3) is model.exits["3"]


@pytest.mark.parametrize("kind", HEADS)
def test_gradients_reach_all_of_a_heads_weights_and_states(heads, kind):
    batch = packed_states([4, 9, 2])
    states = batch.states.requires_grad_()
    head = heads[kind]
    gradients = torch.autograd.grad(head(batch.with_states(states)).square().sum(), [states, *head.parameters()])
    assert all(torch.isfinite(gradient).all() for gradient in gradients)
    assert all(gradient.abs().max() > 0 for gradient in gradients)
