"""What is read of a `config.json`, and what is refused in it."""

from __future__ import annotations

import pytest

from ziggurat.encoder import read_spec
from ziggurat.encoder.architectures.base import ACTIVATIONS
from ziggurat.encoder.spec import EncoderSpec
from ziggurat.errors import UserError

REQUIRED = {
    "hidden_size": 384,
    "num_hidden_layers": 6,
    "num_attention_heads": 12,
    "intermediate_size": 1536,
    "vocab_size": 30522,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
}
CONFIG = {"model_type": "bert"} | REQUIRED


def test_missing_options_are_berts_defaults():
    assert read_spec(CONFIG) == EncoderSpec(
        model_type="bert",
        hidden=384,
        layers=6,
        heads=12,
        intermediate=1536,
        vocabulary=30522,
        positions=512,
        segments=2,
        activation="gelu",
        layer_norm_eps=1e-12,
        dropout=0.1,
        attention_dropout=0.1,
        initializer_range=0.02,
    )
    assert read_spec(CONFIG).head_width == 32


def test_fields_added_later_are_no_part_of_berts_fingerprint():
    settings = read_spec(CONFIG).settings()
    names = list(settings)
    assert len(names) == 13 and names[0] == "model_type" and names[-1] == "initializer_range"
    assert read_spec(CONFIG | {"model_type": "electra", "embedding_size": 128}).settings() == settings | {
        "model_type": "electra",
        "embedding_width": 128,
        "head_activation": "gelu",
    }


def test_options_are_read():
    options = {
        "layer_norm_eps": 1e-5,
        "hidden_dropout_prob": 0.2,
        "attention_probs_dropout_prob": 0.3,
        "initializer_range": 0.4,
    }
    spec = read_spec(CONFIG | options)
    assert [spec.layer_norm_eps, spec.dropout, spec.attention_dropout, spec.initializer_range] == [1e-5, 0.2, 0.3, 0.4]


def test_a_configuration_of_transformers_is_read():
    from transformers import BertConfig

    spec = read_spec(BertConfig(hidden_dropout_prob=0.25).to_dict())
    assert (spec.hidden, spec.layers, spec.heads, spec.intermediate) == (768, 12, 12, 3072)
    assert (spec.vocabulary, spec.positions, spec.segments, spec.dropout) == (30522, 512, 2, 0.25)


@pytest.mark.parametrize("model_type", ["mpnet", "", ["bert"], 3])
def test_an_unknown_architecture_is_refused_with_the_known_ones(model_type):
    with pytest.raises(UserError, match=r"config\.json: model_type .* is not supported; supported: bert") as caught:
        read_spec(CONFIG | {"model_type": model_type})
    assert repr(model_type) in str(caught.value)


def test_a_configuration_without_a_model_type_is_refused():
    with pytest.raises(UserError, match="no model_type; add the encoder's, one of bert, "):
        read_spec(REQUIRED)


@pytest.mark.parametrize("key", REQUIRED)
def test_a_missing_key_is_named(key):
    with pytest.raises(UserError, match=f"config.json: key '{key}' is missing"):
        read_spec({name: value for name, value in CONFIG.items() if name != key})


@pytest.mark.parametrize(("name", "ours"), ACTIVATIONS.items())
def test_every_known_activation_is_one_of_three(name, ours):
    assert ours in ("gelu", "gelu_tanh", "relu")
    assert read_spec(CONFIG | {"hidden_act": name}).activation == ours


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"hidden_act": "silu"}, "hidden_act 'silu' is not supported; known: gelu"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type must be 'absolute'"),
        ({"is_decoder": True}, "is_decoder is true"),
    ],
)
def test_what_the_engine_would_compute_wrongly_is_refused(options, says):
    with pytest.raises(UserError, match=says):
        read_spec(CONFIG | options)


@pytest.mark.parametrize(
    "changes",
    [
        {"model_type": ["bert"]},
        {"model_type": {"bert": 1}},
        {"hidden_size": "384"},
        {"hidden_size": 384.0},
        {"hidden_size": True},
        {"hidden_size": None},
        {"hidden_size": 10**30},
        {"vocab_size": 2**31},
        {"num_hidden_layers": 10**9},
        {"num_hidden_layers": [6]},
        {"num_attention_heads": 0},
        {"type_vocab_size": -1},
        {"layer_norm_eps": "small"},
        {"layer_norm_eps": float("nan")},
        {"hidden_dropout_prob": float("inf")},
        {"hidden_dropout_prob": True},
        {"hidden_act": ["gelu"]},
    ],
)
def test_a_value_of_another_type_or_beyond_all_sizes_is_one_line(changes):
    with pytest.raises(UserError, match=r"^config\.json: ") as caught:
        read_spec(CONFIG | changes)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


MODERN = {key: value for key, value in CONFIG.items() if key != "type_vocab_size"} | {"model_type": "modernbert"}


@pytest.mark.parametrize(
    "changes",
    [
        {"max_position_embeddings": 60_000_000},  # no tensor has that shape, and angles are worked out for each
        {"num_hidden_layers": 10**9},
        {"global_attn_every_n_layers": 0},
        {"layer_types": 3},
        {"layer_types": [[], [], [], [], [], []]},
        {"local_attention": "many"},
        {"rope_parameters": [1]},
        {"rope_parameters": {"full_attention": {"rope_theta": "x"}}},
        {"norm_bias": "yes"},
        {"classifier_pooling": ["cls"]},
    ],
)
def test_so_it_is_for_the_other_family(changes):
    assert read_spec(MODERN).rotary
    with pytest.raises(UserError, match=r"^config\.json: ") as caught:
        read_spec(MODERN | changes)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400
