"""The compiled static tier against its specification, and against whatever Python may hand to it."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ziggurat import native

if native.why_missing():
    pytest.skip(native.why_missing(), allow_module_level=True)


from ziggurat.data import cumulate
from ziggurat.engine import fastest
from ziggurat.engine.backends.small import StaticBackend
from ziggurat.small import LARGEST, StaticTier, load_static_tier

REFUSED = (ValueError, TypeError)
VOCABULARY = 30
repeatable = settings(derandomize=True, deadline=None, max_examples=200)
pieces = st.tuples(st.integers(0, VOCABULARY - 1), st.sampled_from([0, 0, 0, 1, 5, 2**31 - 1]))
ragged = st.lists(st.lists(pieces, max_size=15), max_size=7)


def make_tier(n_classes: int = 3, bits: int = 8, seed: int = 0) -> StaticTier:
    rng = np.random.default_rng(seed)
    weights = rng.integers(-LARGEST, LARGEST + 1, (2**bits, n_classes)).astype(np.int16)
    scales = rng.uniform(1e-5, 1e-3, n_classes).astype(np.float32)
    kinds = rng.choice(3, VOCABULARY, p=[0.5, 0.4, 0.1]).astype(np.uint8)
    return StaticTier(weights, scales, rng.normal(size=n_classes).astype(np.float32), kinds)


def texts_of(lists) -> tuple[np.ndarray, np.ndarray]:
    tokens = np.array([piece for text in lists for piece in text], dtype=np.int64).reshape(-1, 2)
    return tokens, cumulate(np.array([len(text) for text in lists], dtype=np.int64))


def random_texts(lengths, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    n = int(np.sum(lengths))
    return np.stack([rng.integers(0, VOCABULARY, n), rng.integers(0, 2, n)], axis=1), cumulate(np.array(lengths))


@repeatable
@given(ragged, st.integers(2, 9), st.integers(1, 12), st.integers(0, 3))
def test_the_compiled_tier_equals_the_specification_bit_for_bit(lists, n_classes, bits, seed):
    tier, texts = make_tier(n_classes, bits, seed), texts_of(lists)
    said = StaticBackend(tier).logits(*texts)
    assert said.dtype == np.float32 and said.shape == (len(lists), n_classes)
    assert np.array_equal(said, tier.logits(*texts))


def test_an_answer_does_not_depend_on_the_batch():
    backend, (tokens, edges) = StaticBackend(make_tier()), random_texts([3, 0, 90, 1, 1, 33])
    together = backend.logits(tokens, edges)
    for i in range(6):
        mine = np.ascontiguousarray(tokens[edges[i] : edges[i + 1]])
        assert np.array_equal(backend.logits(mine, np.array([0, len(mine)]))[0], together[i])


@pytest.mark.parametrize("n_classes", [2, 4, 9])
def test_the_longest_sums_do_not_overflow(n_classes):
    # Every weight the largest there is: 70,000 features of one text exceed 32 bits.
    tier = make_tier(n_classes)
    tier.weights[:] = -LARGEST
    texts = random_texts([40_000, 2])
    assert np.array_equal(StaticBackend(tier).logits(*texts), tier.logits(*texts))


def test_several_threads_may_ask_at_once():
    tier = make_tier()
    backend, texts = StaticBackend(tier), random_texts([50] * 2000)
    expected, said = tier.logits(*texts), {}
    threads = [threading.Thread(target=lambda i=i: said.update({i: backend.logits(*texts)})) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(said[i], expected) for i in range(4))


def test_a_mapped_tier_outlives_its_python_object(tmp_path):
    tier, texts = make_tier(), random_texts([5, 9])
    tier.save(tmp_path / "tier.safetensors")
    backend = StaticBackend(load_static_tier(tmp_path / "tier.safetensors"))
    assert backend.n_classes == 3
    assert np.array_equal(backend.logits(*texts), tier.logits(*texts))


def test_numpy_answers_where_nothing_is_compiled(monkeypatch):
    tier = make_tier()
    assert isinstance(fastest(tier), StaticBackend)
    monkeypatch.setattr(native, "why_missing", lambda: "no compiler")
    assert fastest(tier) is tier


@pytest.mark.parametrize(
    ("tokens", "edges"),
    [
        ([[VOCABULARY, 0]], [0, 1]),
        ([[-1, 0]], [0, 1]),
        ([[-(2**63), 0]], [0, 1]),
        ([[2, -1]], [0, 1]),
        ([[2, 2**31]], [0, 1]),
        ([[2, 0]], [0, 2]),
        ([[2, 0]], [0, 0]),
        ([[2, 0]], [1, 1]),
        ([[2, 0]], [0, 2, 1]),
        ([[2, 0]], [0, -1, 1]),
        ([[2, 0]], []),
        ([[2, 0, 0]], [0, 1]),
        ([2, 0], [0, 1]),
        ([[2, 0]], [[0, 1]]),
        ([[2.0, 0.0]], [0, 1]),
        ([[True, False]], [0, 1]),
    ],
)
def test_texts_that_do_not_fit_are_refused(tokens, edges):
    backend = StaticBackend(make_tier())
    with pytest.raises(REFUSED):
        backend.logits(np.array(tokens), np.array(edges, dtype=np.int64))


def test_other_types_and_layouts_are_refused():
    backend, (tokens, edges) = StaticBackend(make_tier()), random_texts([4])
    wide = np.zeros((4, 4), dtype=np.int64)[:, ::2]
    for wrong in (tokens.astype(np.int32), wide, tokens.T, None, "text", [[2, 0]]):
        with pytest.raises(REFUSED):
            backend.logits(wrong, edges)
    for wrong in (edges.astype(np.int32), edges.astype(np.float64), None, np.zeros(4, dtype=np.int64)[::2]):
        with pytest.raises(REFUSED):
            backend.logits(tokens, wrong)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (0, np.zeros((100, 3), dtype=np.int16)),
        (0, np.zeros((1, 3), dtype=np.int16)),
        (0, np.zeros((0, 3), dtype=np.int16)),
        (0, np.zeros((256, 1), dtype=np.int16)),
        (0, np.zeros((256, 3), dtype=np.int8)),
        (0, np.zeros((256, 3, 1), dtype=np.int16)),
        (0, np.zeros(256, dtype=np.int16)),
        (0, np.zeros((256, 6), dtype=np.int16)[:, ::2]),
        (1, np.zeros(2, dtype=np.float32)),
        (1, np.zeros(3)),
        (2, np.zeros((3, 1), dtype=np.float32)),
        (3, np.zeros(0, dtype=np.uint8)),
        (3, np.zeros(4, dtype=np.int64)),
        (3, None),
    ],
)
def test_parts_that_do_not_fit_are_refused(place, value):
    tier = make_tier()
    parts = [tier.weights, tier.scales, tier.bias, tier.kinds]
    parts[place] = value
    with pytest.raises(REFUSED):
        native.core().StaticTier(*parts)


@repeatable
@given(
    st.lists(st.tuples(st.integers(-3, VOCABULARY + 2), st.integers(-1, 2)), max_size=9),
    st.lists(st.integers(-2, 11), max_size=5),
)
def test_whatever_comes_is_answered_or_refused(tokens, edges):
    tier = make_tier()
    tokens = np.array(tokens, dtype=np.int64).reshape(-1, 2)
    edges = np.array(edges, dtype=np.int64)
    try:
        expected = tier.logits(tokens, edges)
    except ValueError:
        with pytest.raises(ValueError):
            StaticBackend(tier).logits(tokens, edges)
    else:
        assert np.array_equal(StaticBackend(tier).logits(tokens, edges), expected)


def test_a_kind_that_is_none_is_no_crash():
    tier = make_tier()
    backend = StaticBackend(tier)
    tier.kinds[:] = 255
    assert np.isfinite(backend.logits(*random_texts([20]))).all()
