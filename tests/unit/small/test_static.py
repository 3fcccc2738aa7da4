from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from ziggurat.data import CONTINUES, SPECIAL, STARTS, cumulate
from ziggurat.errors import UserError
from ziggurat.small import LARGEST, StaticTier, features, load_static_tier
from ziggurat.small.static import static_flops

KINDS = np.array([SPECIAL] * 2 + [STARTS] * 12 + [CONTINUES] * 6, dtype=np.uint8)


@pytest.fixture
def tier() -> StaticTier:
    rng = np.random.default_rng(0)
    weights = rng.integers(-LARGEST, LARGEST + 1, (256, 3)).astype(np.int16)
    scales, bias = rng.uniform(1e-5, 1e-4, 3), rng.normal(size=3)
    return StaticTier(weights, scales.astype(np.float32), bias.astype(np.float32), KINDS)


@pytest.fixture
def texts() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    lengths = np.array([3, 0, 40, 1, 7, 7, 120])
    tokens = np.stack([rng.integers(0, len(KINDS), lengths.sum()), rng.integers(0, 2, lengths.sum())], axis=1)
    return tokens, cumulate(lengths)


def test_logits_are_the_sum_over_the_root_of_the_count(tier, texts):
    said = tier.logits(*texts)
    assert said.dtype == np.float32 and said.shape == (7, 3)
    buckets, counts = features(*texts, tier.kinds, 256)
    edges = cumulate(counts)
    for i in range(7):
        rows = tier.weights[buckets[edges[i] : edges[i + 1]]] * tier.scales.astype(np.float64)
        expected = rows.sum(axis=0) / max(counts[i], 1) ** 0.5 + tier.bias
        np.testing.assert_allclose(said[i], expected, rtol=1e-6, atol=1e-6)
    assert np.array_equal(said[1], tier.bias)  # a text without tokens


def test_an_answer_does_not_depend_on_the_batch(tier, texts):
    tokens, edges = texts
    together = tier.logits(tokens, edges)
    for i in range(len(edges) - 1):
        mine = tokens[edges[i] : edges[i + 1]]
        assert np.array_equal(tier.logits(mine, np.array([0, len(mine)]))[0], together[i])
    assert tier.logits(tokens[:0], edges[:1]).shape == (0, 3)


def test_a_file_gives_the_same_tier_which_no_longer_needs_it(tier, texts, tmp_path):
    path = tmp_path / "tier.safetensors"
    tier.save(path)
    again = load_static_tier(path)
    assert np.array_equal(again.logits(*texts), tier.logits(*texts))
    for field in dataclasses.fields(tier):
        assert np.array_equal(getattr(again, field.name), getattr(tier, field.name))
    path.write_bytes(bytes(path.stat().st_size))
    assert np.array_equal(again.weights, tier.weights)


def test_a_file_that_is_none_is_refused(tier, tmp_path):
    path = tmp_path / "tier.safetensors"
    with pytest.raises(UserError, match="not found"):
        load_static_tier(path)
    tier.save(path)
    content = path.read_bytes()
    path.write_bytes(content[:-10])
    with pytest.raises(UserError, match="broken or truncated"):
        load_static_tier(path)
    path.write_bytes(content)
    tensors = load_file(path)
    save_file(tensors, path, {"format_version": "2"})
    with pytest.raises(UserError, match="newer"):
        load_static_tier(path)
    for change in ({"bias": tensors["bias"][:2]}, {"more": tensors["bias"]}, {"weights": tensors["weights"][:255]}):
        save_file(tensors | change, path, {"format_version": "1"})
        with pytest.raises(UserError, match="not a static tier"):
            load_static_tier(path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("weights", np.zeros((256, 0), dtype=np.int16)),
        ("weights", np.zeros((100, 3), dtype=np.int16)),
        ("weights", np.zeros((256, 3), dtype=np.int8)),
        ("weights", np.zeros(256, dtype=np.int16)),
        ("scales", np.zeros(3, dtype=np.float32)),
        ("scales", np.ones(2, dtype=np.float32)),
        ("bias", np.full(3, np.nan, dtype=np.float32)),
        ("bias", np.zeros(3)),
        ("kinds", np.full(4, 3, dtype=np.uint8)),
        ("kinds", np.zeros(0, dtype=np.uint8)),
    ],
)
def test_parts_that_do_not_fit_are_refused(tier, name, value):
    with pytest.raises(ValueError, match=name):
        dataclasses.replace(tier, **{name: value})


def test_flops_are_two_for_each_feature_and_class(tier, texts):
    counts = features(*texts, tier.kinds, 256)[1]
    assert static_flops(110, 4) == 880
    assert static_flops(counts, tier.n_classes).tolist() == (6 * counts).tolist()
