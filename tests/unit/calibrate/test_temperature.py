"""Temperatures make probabilities honest on the rows that fit them, and change no prediction."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from ziggurat.calibrate import fit_temperatures
from ziggurat.calibrate.choose import likelihood_loss
from ziggurat.policies import softmax

repeatable = settings(derandomize=True, deadline=None, max_examples=60)
shapes = st.tuples(st.integers(1, 12), st.integers(1, 4), st.integers(2, 6))  # inputs, rungs, classes


@st.composite
def answers(draw):
    """What rungs said to inputs, float32 of any size that float16 holds, and any labels at all."""
    shape = draw(shapes)
    every = draw(arrays.arrays("float32", shape, elements=st.floats(-(2.0**14), 2.0**14, width=16)))
    return every, draw(arrays.arrays("int64", shape[0], elements=st.integers(0, shape[2] - 1)))


def drawn(n: int, seed: int, n_classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Logits (n, n_classes) and labels that are drawn from their very probabilities."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, n_classes)) * 2
    return logits, (rng.random(n)[:, None] > softmax(logits).cumsum(axis=1)).sum(axis=1).clip(max=n_classes - 1)


@repeatable
@given(answers())
def test_claim_23_temperatures_never_worsen_the_likelihood(case):
    every, labels = case
    temperatures = fit_temperatures(every, labels)
    assert temperatures.shape == every.shape[1:2]
    assert (np.isfinite(temperatures) & (temperatures > 0)).all()
    for rung, temperature in enumerate(temperatures):
        after, before = likelihood_loss(every[:, rung], labels, temperature), likelihood_loss(every[:, rung], labels)
        assert after <= before
        assert after < before or temperature == 1  # kept only where it helps
    assert np.array_equal((every / temperatures[:, None]).argmax(axis=2), every.argmax(axis=2))


def test_the_loss_equals_its_definition():
    logits = np.log([[0.5, 0.25, 0.25], [0.125, 0.75, 0.125]])
    assert likelihood_loss(logits, np.array([0, 2])) == pytest.approx(-np.log([0.5, 0.125]).mean(), abs=1e-12)
    squared = np.array([[4, 1, 1], [1, 36, 1]]) / np.array([[6], [38]])  # temperature 1/2 squares the shares
    expected = -np.log([squared[0, 0], squared[1, 2]]).mean()
    assert likelihood_loss(logits, np.array([0, 2]), 0.5) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("factor", [0.25, 0.5, 1.0, 3.0, 8.0])
def test_what_made_a_rung_too_sure_or_too_modest_is_found(factor):
    logits, labels = drawn(8000, seed=1)
    (temperature,) = fit_temperatures(logits[:, None] * factor, labels)
    assert temperature == pytest.approx(factor, rel=0.06)


def test_each_rung_gets_its_own():
    logits, labels = drawn(500, seed=2)
    every = np.stack([logits * 4, logits, logits / 4], axis=1)
    alone = [fit_temperatures(every[:, [rung]], labels)[0] for rung in range(3)]
    assert fit_temperatures(every, labels).tolist() == alone
    assert alone[0] > 2 * alone[1] > 4 * alone[2]


def test_where_nothing_helps_the_temperature_is_exactly_one():
    labels = np.arange(30) % 3
    assert fit_temperatures(np.zeros((30, 2, 3)), labels).tolist() == [1.0, 1.0]
    assert fit_temperatures(np.eye(3)[labels][:, None] * 1e4, labels).tolist() == [1.0]


def test_a_rung_always_right_or_always_wrong_stays_finite():
    labels = np.arange(30) % 3
    right, wrong = np.eye(3)[labels], np.eye(3)[(labels + 1) % 3]
    sharpened, softened = fit_temperatures(np.stack([right, wrong], axis=1), labels)
    assert 1 / 20 <= sharpened < 0.06
    assert 19 < softened <= 20
