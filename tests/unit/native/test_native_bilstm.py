"""The compiled BiLSTM tier against its specification, and against whatever Python may hand to it."""

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
from ziggurat.engine.backends.small import BilstmBackend
from ziggurat.small import BilstmTier, load_bilstm_tier

REFUSED = (ValueError, TypeError)
IDS, ROWS = 30, 12
NAMES = ("vocabulary", "embedding", "segments", "first", "second", "hidden", "output")
repeatable = settings(derandomize=True, deadline=None, max_examples=100)


def make_tier(width: int = 5, state: int = 6, hidden: int = 7, n_classes: int = 3, scale: float = 0.7) -> BilstmTier:
    rng = np.random.default_rng(width + 10 * state + 100 * hidden)

    def normal(*shape: int) -> np.ndarray:
        return rng.normal(scale=scale, size=shape).astype(np.float32)

    vocabulary = rng.integers(0, ROWS, IDS).astype(np.int16)
    layers = normal(2, 4 * state, width + state + 1), normal(2, 4 * state, 3 * state + 1)
    dense = normal(hidden, 2 * state + 1), normal(n_classes, hidden + 1)
    return BilstmTier(vocabulary, normal(ROWS, width), normal(2, width), *layers, *dense)


def make_texts(lengths, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    n = int(np.sum(lengths))
    tokens = np.stack([rng.integers(0, IDS, n), rng.integers(0, 2, n)], axis=1)
    return tokens, cumulate(np.array(lengths, dtype=np.int64))


@repeatable
@given(
    st.lists(st.integers(0, 25), max_size=110),
    st.integers(1, 20),
    st.integers(1, 20),
    st.integers(1, 20),
    st.integers(2, 9),
)
def test_the_compiled_tier_says_what_the_specification_says(lengths, width, state, hidden, n_classes):
    tier, texts = make_tier(width, state, hidden, n_classes, scale=0.5), make_texts(lengths)
    said = BilstmBackend(tier).logits(*texts)
    assert said.dtype == np.float32 and said.shape == (len(lengths), n_classes)
    np.testing.assert_allclose(said, tier.logits(*texts), rtol=1e-5, atol=2e-5)


def test_at_its_full_size_too():
    tier = make_tier(50, 64, 200, 4, scale=0.15)
    texts = make_texts(np.random.default_rng(1).integers(0, 200, 120))
    np.testing.assert_allclose(BilstmBackend(tier).logits(*texts), tier.logits(*texts), rtol=1e-5, atol=1e-5)


def test_an_answer_is_the_same_to_the_bit_in_any_batch():
    backend, (tokens, edges) = BilstmBackend(make_tier(9, 11)), make_texts([3, 0, 90, 1, 1, 33] * 20)
    together = backend.logits(tokens, edges)
    for start, end in ((0, 1), (2, 3), (5, 6), (1, 60), (40, 120)):
        part = edges[start : end + 1]
        assert np.array_equal(backend.logits(tokens[part[0] : part[-1]], part - part[0]), together[start:end])


def test_several_threads_use_one_backend():
    backend, texts = BilstmBackend(make_tier()), make_texts([30, 4, 60] * 40)
    expected, said = backend.logits(*texts), [None] * 4

    def work(place: int) -> None:
        said[place] = backend.logits(*texts)

    threads = [threading.Thread(target=work, args=(place,)) for place in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(one, expected) for one in said)


def test_a_mapped_tier_outlives_its_python_object(tmp_path):
    tier, texts = make_tier(), make_texts([5, 9])
    tier.save(tmp_path / "tier.safetensors")
    backend = BilstmBackend(load_bilstm_tier(tmp_path / "tier.safetensors"))
    assert backend.n_classes == 3
    assert np.array_equal(backend.logits(*texts), BilstmBackend(tier).logits(*texts))


def test_numpy_answers_where_nothing_is_compiled(monkeypatch):
    tier = make_tier()
    assert isinstance(fastest(tier), BilstmBackend)
    monkeypatch.setattr(native, "why_missing", lambda: "no compiler")
    assert fastest(tier) is tier


@pytest.mark.parametrize(
    ("tokens", "edges"),
    [
        ([[IDS, 0]], [0, 1]),
        ([[-1, 0]], [0, 1]),
        ([[2, -1]], [0, 1]),
        ([[2, 2]], [0, 1]),
        ([[2, 0]], [0, 2]),
        ([[2, 0]], [0, 0]),
        ([[2, 0]], [1, 1]),
        ([[2, 0]], [0, 2, 1]),
        ([[2, 0]], []),
        ([[2, 0, 0]], [0, 1]),
        ([2, 0], [0, 1]),
        ([[2, 0]], [[0, 1]]),
        ([[2.0, 0.0]], [0, 1]),
    ],
)
def test_texts_that_do_not_fit_are_refused(tokens, edges):
    with pytest.raises(REFUSED):
        BilstmBackend(make_tier()).logits(np.array(tokens), np.array(edges, dtype=np.int64))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("vocabulary", np.full(IDS, ROWS, dtype=np.int16)),
        ("vocabulary", np.full(IDS, -1, dtype=np.int16)),
        ("vocabulary", np.zeros(0, dtype=np.int16)),
        ("vocabulary", np.zeros(IDS, dtype=np.int64)),
        ("embedding", np.zeros((ROWS, 4), dtype=np.float32)),
        ("embedding", np.zeros((0, 5), dtype=np.float32)),
        ("embedding", np.zeros((ROWS, 5))),
        ("segments", np.zeros((1, 5), dtype=np.float32)),
        ("segments", np.zeros(5, dtype=np.float32)),
        ("first", np.zeros((2, 24, 11), dtype=np.float32)),
        ("first", np.zeros((2, 3, 12), dtype=np.float32)),
        ("first", np.zeros((2, 24, 24), dtype=np.float32)[:, :, ::2]),
        ("second", np.zeros((1, 24, 19), dtype=np.float32)),
        ("second", np.zeros((24, 19), dtype=np.float32)),
        ("hidden", np.zeros((7, 12), dtype=np.float32)),
        ("output", np.zeros((0, 8), dtype=np.float32)),
        ("output", np.zeros((3, 9), dtype=np.float32)),
        ("output", None),
    ],
)
def test_parts_that_do_not_fit_are_refused(name, value):
    parts = {part: getattr(make_tier(), part) for part in NAMES} | {name: value}
    with pytest.raises(REFUSED):
        native.core().BilstmTier(**parts)


@repeatable
@given(
    st.lists(st.tuples(st.integers(-3, IDS + 2), st.integers(-1, 2)), max_size=9),
    st.lists(st.integers(-2, 11), max_size=5),
)
def test_whatever_comes_is_answered_or_refused(tokens, edges):
    tier = make_tier()
    tokens = np.array(tokens, dtype=np.int64).reshape(-1, 2)
    edges = np.array(edges, dtype=np.int64)
    try:
        expected = tier.logits(tokens, edges)
    except ValueError:
        with pytest.raises(REFUSED):
            BilstmBackend(tier).logits(tokens, edges)
    else:
        np.testing.assert_allclose(BilstmBackend(tier).logits(tokens, edges), expected, rtol=1e-5, atol=1e-5)
