"""ModernBERT: what its configurations say, what it costs, and that it is a small file."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.kit.families import family
from ziggurat.data import pack
from ziggurat.encoder import full_flops, layer_flops, load_hf, path_flops, read_spec, rung_flops
from ziggurat.encoder.architectures import modernbert
from ziggurat.encoder.flops import pairs_seen
from ziggurat.encoder.spec import with_sizes
from ziggurat.errors import UserError
from ziggurat.recipe import StudentConfig
from ziggurat.training import student_spec

# ModernBERT-base as it was published, in the keys of its time.
BASE = {
    "model_type": "modernbert", "hidden_size": 768, "num_hidden_layers": 22, "num_attention_heads": 12,
    "intermediate_size": 1152, "vocab_size": 50368, "max_position_embeddings": 8192, "local_attention": 128,
    "global_attn_every_n_layers": 3, "global_rope_theta": 160000.0, "local_rope_theta": 10000.0, "norm_eps": 1e-05,
    "hidden_activation": "gelu", "classifier_activation": "gelu", "classifier_pooling": "mean",
}  # fmt: skip


def test_a_new_architecture_is_one_small_file():
    assert len(Path(modernbert.__file__).read_text().splitlines()) < 150


def test_old_and_new_configurations_say_the_same():
    from transformers import ModernBertConfig

    old, new = read_spec(BASE), read_spec(ModernBertConfig(**BASE).to_dict())
    assert old == new
    assert old.windows == (0, 64, 64) * 7 + (0,)
    assert old.rotary == (160_000.0, 10_000.0, 10_000.0) * 7 + (160_000.0,)
    assert (old.pooling, old.norm_first, old.gated, old.segments, old.norm_bias) == ("mean", True, True, 0, False)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"rope_scaling": {"type": "linear", "factor": 2}}, "scaled rotary positions"),
        ({"rope_parameters": {"full_attention": {"rope_type": "yarn"}}}, "scaled rotary positions"),
        ({"layer_types": ["full_attention"]}, "layer_types must name 22 layers"),
        ({"layer_types": ["chunked_attention"] * 22}, "layer_types must name 22 layers"),
        ({"classifier_pooling": "max"}, "known: cls, mean"),
        ({"classifier_activation": "silu"}, "known: gelu, relu, tanh"),
        ({"hidden_activation": "silu"}, "hidden_activation 'silu'"),
        ({"num_attention_heads": 256}, "an even width"),
    ],
)
def test_what_the_engines_do_not_compute_is_refused(change, complaint):
    with pytest.raises(UserError, match=complaint):
        read_spec(BASE | change)


@pytest.mark.parametrize("n", [1, 3, 4, 5, 6, 30])
@pytest.mark.parametrize("window", [0, 1, 4, 40])
def test_pairs_in_sight_are_counted_one_by_one(n, window):
    counted = sum(not window or abs(i - j) <= window for i in range(n) for j in range(n))
    assert pairs_seen(n, window) == counted
    assert pairs_seen(np.array([n, n]), window).tolist() == [counted] * 2


def test_base_costs_what_a_hand_adds_up():
    """200 tokens: a window of 64 holds 200 · 129 - 64 · 65 = 21,640 pairs of 40,000."""
    spec, linear = read_spec(BASE), 8 * 768**2 * 200 + 3 * 2 * 768 * 1152 * 200
    assert layer_flops(spec, 200, layer=1) == 4 * 768 * 40_000 + linear == 2_128_281_600
    assert layer_flops(spec, 200, layer=2) == 4 * 768 * 21_640 + linear == 2_071_879_680
    whole = 8 * 2_128_281_600 + 14 * 2_071_879_680 + 2 * 768 * (768 + 4)
    assert full_flops(spec, 4, np.array([200])).tolist() == [whole] == [46_033_754_112]
    assert path_flops(spec, "linear", 4, [200] * 22, [], final=True) == whole
    assert rung_flops(spec, "linear", 4, np.array([200]), (3, 22), (False, False))[0, -1] == whole


def test_a_local_layers_cost_is_linear_a_global_ones_quadratic():
    spec = read_spec(BASE)
    shorter, longer = ([layer_flops(spec, n, layer=layer) for layer in (1, 2)] for n in (4096, 8192))
    assert longer[1] / shorter[1] == pytest.approx(2, rel=0.01)
    assert longer[0] / shorter[0] > 2.8


def test_far_positions_turn_by_the_angles_of_transformers(tmp_path):
    """At position 8,191 an angle that is rounded otherwise is another one."""
    model = family("modernbert", max_position_embeddings=8192)
    model.save_pretrained(tmp_path)
    spec = read_spec(model.config.to_dict())
    places = torch.arange(8192 - 300, 8192)
    tokens = np.stack(
        [np.random.default_rng(0).integers(4, spec.vocabulary, 300), np.zeros(300, dtype=np.int64)], axis=1
    )
    with torch.no_grad():
        expected = model(torch.from_numpy(tokens[:, 0])[None], position_ids=places[None]).logits
        batch = dataclasses.replace(pack([tokens]), positions=places.numpy())
        logits = load_hf(tmp_path, 3, "linear", ()).eval().full_logits(batch)
    assert torch.allclose(logits, expected, atol=1e-5)


def test_a_student_keeps_the_first_layers_and_configures_them():
    spec = read_spec(BASE)
    small = student_spec(StudentConfig(layers=4), spec)
    assert small.windows == (0, 64, 64, 0)
    config = with_sizes(BASE | {"layer_types": ["full_attention"] + ["sliding_attention"] * 21}, small)
    assert len(config["layer_types"]) == config["num_hidden_layers"] == 4
    for config in (StudentConfig(layers=4, start="skip"), StudentConfig(layers=4, hidden=384)):
        with pytest.raises(UserError, match="only the first layers"):
            student_spec(config, spec)
