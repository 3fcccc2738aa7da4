"""The kernels keep their promises: right, alike on every instruction set, and for every row as if it were alone."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

_core = pytest.importorskip("ziggurat.native._core", reason="the compiled part is missing")
kernels = _core.kernels

SETS = kernels.names()
DTYPES = ("f32", "bf16", "i8")
FINISHES = ("none", "gelu", "gelu_tanh", "tanh", "relu")
LENGTHS = (1, 2, 3, 5, 6, 7, 8, 13, 16, 17, 33, 54, 64, 65, 130)
repeatable = settings(derandomize=True, deadline=None, max_examples=25)
every_set = pytest.mark.parametrize("name", SETS)
every_dtype = pytest.mark.parametrize("dtype", DTYPES)


def noise(*shape: int, seed: int = 0, scale: float = 1.0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32)


def to_bf16(values: np.ndarray) -> np.ndarray:
    """Rounded to the nearest bf16, halves to even."""
    bits = values.astype(np.float32).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16 << 16).astype(np.uint32).view(np.float32)


def codes_of(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Codes (n, d) and scales (n) as `ziggurat.encoder.torch.int8` defines them."""
    scales = np.abs(values).max(axis=1) / np.float32(127)
    scales = np.where(scales < np.finfo(np.float32).tiny, np.float32(1), scales)
    return np.rint(values / scales[:, None]).astype(np.int64), scales


def expected_linear(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, dtype: str) -> np.ndarray:
    if dtype == "i8":
        (codes, row_scales), (weights, channel_scales) = codes_of(x), codes_of(weight)
        sums = (codes @ weights.T).astype(np.float32)
        return sums * row_scales[:, None] * channel_scales + bias  # in float32, in this order
    if dtype == "bf16":
        x, weight = to_bf16(x), to_bf16(weight)
    return x.astype(np.float64) @ weight.T.astype(np.float64) + bias


def finished(y: np.ndarray, finish: str) -> np.ndarray:
    y = y.astype(np.float64)
    if finish == "gelu":
        return y * 0.5 * (1 + np.vectorize(math.erf)(y / math.sqrt(2)))
    if finish == "gelu_tanh":
        return y * 0.5 * (1 + np.tanh(math.sqrt(2 / math.pi) * (y + 0.044715 * y**3)))
    if finish == "relu":
        return np.maximum(y, 0)
    return np.tanh(y) if finish == "tanh" else y


def softmax(scores: np.ndarray) -> np.ndarray:
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def expected_attention(qkv: np.ndarray, heads: int, from_others: bool) -> tuple[np.ndarray, np.ndarray]:
    """Context (n, heads width) and what was received, by heads (heads, n)."""
    n = len(qkv)
    query, key, value = qkv.astype(np.float64).reshape(n, 3, heads, -1).transpose(1, 2, 0, 3)
    shares = softmax(query @ key.transpose(0, 2, 1) / math.sqrt(query.shape[-1]))
    context = (shares @ value).transpose(1, 0, 2).reshape(n, -1)
    received = shares.sum(axis=1)
    return context, received - np.einsum("hii->hi", shares) if from_others else received


def expected_norm(x: np.ndarray, gain: np.ndarray, shift: np.ndarray, epsilon: float) -> np.ndarray:
    x = x.astype(np.float64)
    return (x - x.mean(axis=1, keepdims=True)) / np.sqrt(x.var(axis=1, keepdims=True) + epsilon) * gain + shift


def assert_close(actual: np.ndarray, expected: np.ndarray, tolerance: float = 2e-6) -> None:
    """To `tolerance` of the largest expected value."""
    assert np.abs(actual - expected).max(initial=0) <= tolerance * max(1.0, np.abs(expected).max(initial=0))


def linear(name: str, x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, dtype: str, **options) -> np.ndarray:
    return kernels.Linear(name, weight, bias, dtype)(x, **options)


def test_every_offered_set_agrees_with_the_scalar_kernels():
    assert "scalar" in SETS
    assert all(kernels.agrees_with_scalar(name) for name in SETS)


@every_set
@every_dtype
@repeatable
@given(rows=st.integers(1, 20), d_in=st.integers(1, 200), d_out=st.integers(1, 140), seed=st.integers(0, 99))
def test_linear_map_of_any_shape_is_right(name, dtype, rows, d_in, d_out, seed):
    x, weight, bias = noise(rows, d_in, seed=seed), noise(d_out, d_in, seed=seed + 1), noise(d_out, seed=seed + 2)
    expected = expected_linear(x, weight, bias, dtype)
    actual = linear(name, x, weight, bias, dtype)
    if dtype == "i8":
        assert np.array_equal(actual, expected)
    else:
        assert_close(actual, expected)


@every_set
@every_dtype
@pytest.mark.parametrize("d_in", [384, 1536, 4096])
def test_long_sums_are_right(name, dtype, d_in):
    # The largest codes everywhere, for they make the largest sums.
    x, weight = noise(7, d_in), noise(33, d_in, seed=1)
    x[0], weight[0], x[1] = 3.0, 5.0, -3.0
    assert_close(linear(name, x, weight, None, dtype), expected_linear(x, weight, np.zeros(33, np.float32), dtype))


@every_set
@pytest.mark.parametrize("finish", FINISHES)
def test_finish_is_right_everywhere(name, finish):
    x = np.concatenate([np.linspace(-12, 12, 4801), [-1e30, -1e4, -90, 0, 90, 1e4, 1e30]]).astype(np.float32)[:, None]
    one = np.ones((1, 1), np.float32)
    with np.errstate(over="ignore"):
        expected = finished(x, finish)
    error = np.abs(linear(name, x, one, None, "f32", finish=finish) - expected)
    assert (error / np.maximum(1, np.abs(expected))).max() <= 5e-7


@every_set
@every_dtype
@pytest.mark.parametrize("finish", FINISHES)
def test_rows_answer_alone_as_among_others_and_gathered(name, dtype, finish):
    x, weight, bias = noise(26, 70), noise(150, 70, seed=1, scale=0.2), noise(150, seed=2)
    layer = kernels.Linear(name, weight, bias, dtype)
    together = layer(x, finish=finish)
    for first in range(0, 26, 5):
        for count in (1, 2, 3, 4, 5, 6, 7, 11):
            some = np.ascontiguousarray(x[first : first + count])
            assert np.array_equal(layer(some, finish=finish), together[first : first + count])
    order = np.array([25, 3, 3, 0, 17, 8, 9], np.int32)
    assert np.array_equal(layer(x, finish=finish, index=order), together[order])


@every_set
@every_dtype
@pytest.mark.parametrize("finish", ["none", "gelu"])
def test_ranges_of_columns_agree_and_write_nothing_else(name, dtype, finish):
    x, weight, bias = noise(8, 50), noise(203, 50, seed=1), noise(203, seed=2)
    layer = kernels.Linear(name, weight, bias, dtype)
    whole = layer(x, finish=finish)
    edges = [*range(0, 203, layer.panel), 203]
    for start in edges[:-1]:
        for stop in (edge for edge in edges if edge >= start):
            y = np.full((8, 210), 7, np.float32)
            layer.into(y, x, finish, start, stop)
            assert np.array_equal(y[:, start:stop], whole[:, start:stop])
            assert (y[:, :start] == 7).all()
            assert (y[:, stop:] == 7).all()


@every_set
@every_dtype
def test_rows_that_are_not_finite_spoil_themselves_only(name, dtype):
    x, weight, bias = noise(9, 64), noise(20, 64, seed=1), noise(20, seed=2)
    clean = linear(name, x, weight, bias, dtype)
    x[2, 63], x[5, 0], x[7] = np.nan, np.inf, np.nan
    spoilt = linear(name, x, weight, bias, dtype)
    good = [0, 1, 3, 4, 6, 8]
    assert np.array_equal(spoilt[good], clean[good])
    assert np.isnan(spoilt[[2, 7]]).all()
    assert not np.isfinite(spoilt[5]).any()


@every_set
@every_dtype
@pytest.mark.parametrize("scale", [0.0, 1e-44, 1e-38, 1e-30, 1e30])
def test_rows_of_zeros_and_of_extreme_size_are_right(name, dtype, scale):
    x = noise(5, 40)
    x[1:3] *= np.float32(scale)
    weight, bias = noise(18, 40, seed=1), noise(18, seed=2)
    actual, expected = linear(name, x, weight, bias, dtype), expected_linear(x, weight, bias, dtype)
    for one, other in zip(actual, expected, strict=True):
        assert_close(one, other)


@every_set
@every_dtype
def test_channels_of_zeros_and_without_bias_are_right(name, dtype):
    x, weight = noise(4, 30), noise(9, 30, seed=1)
    weight[[0, 8]] = 0
    actual = linear(name, x, weight, None, dtype)
    assert_close(actual, expected_linear(x, weight, np.zeros(9, np.float32), dtype))
    assert (actual[:, [0, 8]] == 0).all()


@every_set
def test_halves_are_rounded_to_even_codes(name):
    # 127 sets the scale to 1; the identity shows the codes.
    x = np.array([[127, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 126.5, -126.5, 0.49999997]], np.float32)
    actual = linear(name, x, np.eye(10, dtype=np.float32) * 127, None, "i8") / 127
    assert np.array_equal(actual[0], [127, 0, 2, 2, 0, -2, -2, 126, -126, 0])


@every_set
@repeatable
@given(seed=st.integers(0, 10_000))
def test_codes_are_those_of_a_true_division(name, seed):
    # Quotients that lie at halves, or a digit beside them.
    generator = np.random.default_rng(seed)
    largest = np.float32(generator.uniform(0.5, 2) * 2.0 ** generator.integers(-90, 90))
    halves = (generator.integers(-126, 126, 63) + 0.5).astype(np.float32) * (largest / np.float32(127))
    near = np.nextafter(halves, np.float32(generator.choice([-np.inf, np.inf])))
    x = np.concatenate([[largest], halves, near]).astype(np.float32)[None]
    codes, scales = codes_of(x)
    actual = linear(name, x, np.eye(127, dtype=np.float32) * 127, None, "i8")
    assert np.array_equal(actual, (codes * 127).astype(np.float32) * scales[:, None])


@every_set
@pytest.mark.parametrize("width", [1, 4, 8, 16, 32, 64])
@pytest.mark.parametrize("from_others", [False, True])
def test_attention_of_any_length_is_right(name, width, from_others):
    for n in LENGTHS:
        qkv = noise(n, 3 * 2 * width, seed=n, scale=2)
        context, received = kernels.attend(name, qkv, 2, from_others)
        expected_context, expected_received = expected_attention(qkv, 2, from_others)
        assert_close(context, expected_context, 4e-6)
        assert_close(received, expected_received, 4e-6)


@every_set
@repeatable
@given(width=st.integers(1, 70), n=st.integers(1, 40), heads=st.integers(1, 3), seed=st.integers(0, 99))
def test_attention_of_any_width_is_right(name, width, n, heads, seed):
    qkv = noise(n, 3 * heads * width, seed=seed)
    context, received = kernels.attend(name, qkv, heads)
    expected_context, expected_received = expected_attention(qkv, heads, False)
    assert_close(context, expected_context, 4e-6)
    assert_close(received, expected_received, 4e-6)


@every_set
def test_long_attention_is_right(name):
    qkv = noise(512, 96)
    context, received = kernels.attend(name, qkv, 1)
    expected_context, expected_received = expected_attention(qkv, 1, False)
    assert_close(context, expected_context, 4e-6)
    assert_close(received, expected_received, 4e-6)


@every_set
@pytest.mark.parametrize("shift", [-300.0, 300.0])
def test_scores_of_any_size_keep_their_softmax(name, shift):
    # All scores far below or above 0, where powers without the largest score taken off would vanish or overflow.
    qkv = noise(21, 3 * 8, scale=0.1)
    qkv[:, 0], qkv[:, 8] = 30.0, shift
    context, received = kernels.attend(name, qkv, 1)
    expected_context, expected_received = expected_attention(qkv, 1, False)
    assert_close(context, expected_context, 2e-4)  # a score of 3,000 has float32's digits
    assert_close(received, expected_received, 2e-4)


@every_set
@pytest.mark.parametrize("width", [5, 32, 64])
def test_one_query_attends_rightly(name, width):
    for n in LENGTHS:
        query, key_value = noise(1, 2 * width, seed=n, scale=2), noise(n, 4 * width, seed=n + 1)
        key, value = key_value.astype(np.float64).reshape(n, 2, 2, width).transpose(1, 2, 0, 3)
        scores = np.einsum("hw,hnw->hn", query.astype(np.float64).reshape(2, width), key) / math.sqrt(width)
        expected = np.einsum("hn,hnw->hw", softmax(scores), value).reshape(1, -1)
        assert_close(kernels.attend_first(name, query, key_value, 2), expected, 4e-6)


@every_set
@repeatable
@given(rows=st.integers(1, 5), d=st.integers(1, 400), seed=st.integers(0, 99), alone=st.booleans())
def test_layer_norm_of_any_width_is_right(name, rows, d, seed, alone):
    y, residual = noise(rows, d, seed=seed, scale=3), noise(rows + 2, d, seed=seed + 1)
    gain, shift = noise(d, seed=seed + 2), noise(d, seed=seed + 3)
    index = np.random.default_rng(seed).integers(0, rows + 2, rows).astype(np.int32)
    total = y if alone else y + residual[index]
    actual = kernels.add_norm(name, y, None if alone else residual, gain, shift, 1e-5, None if alone else index)
    assert_close(actual, expected_norm(total, gain, shift, 1e-5), 2e-5 if d < 4 else 4e-6)


@every_set
def test_layer_norm_of_a_large_mean_keeps_its_digits(name):
    y = noise(3, 384) + np.float32(100)
    one, zero = np.ones(384, np.float32), np.zeros(384, np.float32)
    assert_close(kernels.add_norm(name, y, None, one, zero, 1e-12), expected_norm(y, one, zero, 1e-12), 2e-5)


@every_set
def test_norms_of_rows_do_not_depend_on_other_rows(name):
    y, residual, gain, shift = noise(9, 77), noise(9, 77, seed=1), noise(77, seed=2), noise(77, seed=3)
    together = kernels.add_norm(name, y, residual, gain, shift, 1e-12)
    y[4] = np.nan
    spoilt = kernels.add_norm(name, y, residual, gain, shift, 1e-12)
    assert np.isnan(spoilt[4]).all()
    others = np.arange(9) != 4
    assert np.array_equal(spoilt[others], together[others])
    assert np.array_equal(
        kernels.add_norm(name, y[:1].copy(), residual, gain, shift, 1e-12, np.array([0], np.int32)), together[:1]
    )


@every_set
@pytest.mark.parametrize("d", [1, 8, 37, 384])
def test_embedding_is_right(name, d):
    tables = [noise(30, d, seed=1), noise(12, d, seed=2), noise(2, d, seed=3)]
    ids = [np.random.default_rng(4).integers(0, len(table), 11).astype(np.int32) for table in tables]
    gain, shift = noise(d, seed=5), noise(d, seed=6)
    total = sum(table.astype(np.float64)[rows] for table, rows in zip(tables, ids, strict=True))
    actual = kernels.embed(name, tables, ids, gain, shift, 1e-6)
    assert_close(actual, expected_norm(total, gain, shift, 1e-6), 4e-6)


@every_set
def test_arguments_that_do_not_fit_are_errors(name):
    layer = kernels.Linear(name, noise(20, 6), None, "f32")
    with pytest.raises(ValueError, match="x: one column for each input"):
        layer(noise(3, 5))
    with pytest.raises(ValueError, match="index: no row"):
        layer(noise(3, 6), index=np.array([3], np.int32))
    with pytest.raises(ValueError, match="range: whole panels"):
        layer.into(noise(3, 20), noise(3, 6), "none", 1, 20)
    with pytest.raises(ValueError, match="no instruction set"):
        kernels.attend("mmx", noise(3, 6), 1)
