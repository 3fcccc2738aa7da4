"""The table of tensor names, read in both directions: nothing lost, nothing changed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ziggurat.encoder import from_hf, to_hf
from ziggurat.encoder.weights import CLASSES, POOLER
from ziggurat.errors import UserError

OPTIONAL = ("bert.pooler.", "classifier.")  # start fresh where a checkpoint lacks them


@pytest.fixture(scope="module")
def hf_tensors(make_bert):
    """Every tensor of a classifier checkpoint under today's names. Shared."""
    return dict(make_bert().state_dict())


def same(one, other) -> bool:
    """The same names with bit-equal tensors of the same type."""
    return one.keys() == other.keys() and all(
        one[name].dtype == other[name].dtype and torch.equal(one[name], other[name]) for name in one
    )


def test_a_classifier_comes_back_bit_equal_and_whole(hf_tensors, tiny_spec):
    ours = from_hf(hf_tensors, tiny_spec, torch.cat)
    assert same(to_hf(ours, tiny_spec), hf_tensors)
    # Embeddings 3 + LayerNorm 2; per layer 8 modules of weight and bias; pooler 2, classifier 2.
    assert len(hf_tensors) == 5 + 16 * tiny_spec.layers + 4
    # Ours are fewer, for queries, keys and values are one.
    assert len(ours) == 5 + 12 * tiny_spec.layers + 4


def test_our_tensors_are_those_of_our_model(hf_tensors, tiny_spec, make_model):
    model = make_model(head_layers=())
    ours = from_hf(hf_tensors, tiny_spec, torch.cat)
    assert {name: tensor.shape for name, tensor in ours.items()} == {
        name: tensor.shape for name, tensor in model.state_dict().items()
    }


def test_queries_keys_and_values_are_joined_in_this_order(hf_tensors, tiny_spec):
    joined = from_hf(hf_tensors, tiny_spec, torch.cat)["encoder.layers.2.qkv.weight"]
    for part, name in zip(joined.chunk(3), ("query", "key", "value"), strict=True):
        assert torch.equal(part, hf_tensors[f"bert.encoder.layer.2.attention.self.{name}.weight"])


def test_a_bare_encoder_gives_all_but_the_classifier(make_bert, hf_tensors, tiny_spec):
    bare = make_bert().bert.state_dict()
    assert not any(name.startswith("bert.") for name in bare)
    ours = from_hf(bare, tiny_spec, torch.cat)
    whole = from_hf(hf_tensors, tiny_spec, torch.cat)
    assert same(ours, {name: tensor for name, tensor in whole.items() if not name.startswith(CLASSES)})


def test_old_names_of_layer_norms_are_read(hf_tensors, tiny_spec):
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
        for name, tensor in hf_tensors.items()
    }
    assert sum(name.endswith((".gamma", ".beta")) for name in old) == 2 + 4 * tiny_spec.layers
    assert same(from_hf(old, tiny_spec, torch.cat), from_hf(hf_tensors, tiny_spec, torch.cat))


def test_a_language_model_gives_its_encoder_without_its_head(hf_tensors, tiny_spec):
    encoder = {name: tensor for name, tensor in hf_tensors.items() if not name.startswith(OPTIONAL)}
    head = {"cls.predictions.bias": torch.zeros(3), "bert.embeddings.position_ids": torch.arange(64)[None]}
    ours = from_hf(encoder | head, tiny_spec, torch.cat)
    assert not any(name.startswith((POOLER, CLASSES)) for name in ours)
    assert len(ours) == 5 + 12 * tiny_spec.layers


def test_every_missing_tensor_of_the_encoder_is_named(hf_tensors, tiny_spec):
    required = [name for name in hf_tensors if not name.startswith(OPTIONAL)]
    assert len(required) == 5 + 16 * tiny_spec.layers
    for name in required:
        rest = {other: tensor for other, tensor in hf_tensors.items() if other != name}
        with pytest.raises(UserError, match=f"no tensor '{name}'"):
            from_hf(rest, tiny_spec, torch.cat)


@pytest.mark.parametrize("shape", [(), (32, 16), (32, 32, 1)])
def test_parts_that_do_not_fit_together_are_named(hf_tensors, tiny_spec, shape):
    name = "bert.encoder.layer.1.attention.self.key.weight"
    with pytest.raises(UserError, match=f"'{name}' does not fit") as caught:
        from_hf(hf_tensors | {name: torch.zeros(shape)}, tiny_spec, torch.cat)
    assert "\n" not in str(caught.value)


def test_the_table_works_on_numpy_arrays_as_well(hf_tensors, tiny_spec):
    arrays = {name: tensor.numpy() for name, tensor in hf_tensors.items()}
    back = to_hf(from_hf(arrays, tiny_spec, np.concatenate), tiny_spec)
    assert back.keys() == arrays.keys()
    assert all(np.array_equal(back[name], arrays[name]) for name in arrays)
