"""Exit scores against numbers worked out by hand, and at the ends of what floats can hold."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from ziggurat.policies.exits import (
    SCORES,
    agreement,
    agreement_in_a_row,
    entropy,
    log_softmax,
    margin,
    max_probability,
    softmax,
)

repeatable = settings(derandomize=True, deadline=None, max_examples=100)
OF_ONE_RUNG = ("entropy", "max-probability", "margin")
shapes = st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(2, 60))  # sequences, rungs, classes


def histories(width: int = 64, largest: float = 2.0**14):
    """Logits (n_seqs, rungs, n_classes) of any float type, of any size up to what float16 holds with room to spare."""
    numbers = st.floats(-largest, largest, width=16)
    return shapes.flatmap(lambda shape: arrays.arrays(f"float{width}", shape, elements=numbers))


def one_rung(*rows: list[float], dtype: str = "float64") -> np.ndarray:
    """A history of one rung: one row of logits per sequence."""
    return np.array(rows, dtype=dtype)[:, None]


def probabilities(*shares: float) -> np.ndarray:
    """A history of one sequence and one rung with these probabilities."""
    return one_rung(np.log(shares).tolist())


def said(*predictions: int, n_classes: int = 3) -> np.ndarray:
    """A history of one sequence whose rungs predicted these classes."""
    return np.eye(n_classes)[list(predictions)][None]


def along(score, *predictions: int) -> list[float]:
    """The score of one sequence at each of its rungs in turn."""
    history = said(*predictions)
    return [float(score(history[:, : rung + 1])[0]) for rung in range(history.shape[1])]


# --- entropy, max-probability, margin ------------------------------------------------------------------------------


def test_entropy_equals_its_definition():
    shares = [0.5, 0.25, 0.125, 0.125]
    expected = -sum(p * np.log2(p) for p in shares) / 2  # 1.75 bits of 2
    assert entropy(probabilities(*shares))[0] == pytest.approx(expected, abs=1e-12)
    assert entropy(probabilities(0.9, 0.1))[0] == pytest.approx(0.4689955935892812, abs=1e-12)


def test_margin_and_max_probability_equal_their_definitions():
    history = np.concatenate([probabilities(0.5, 0.2, 0.3), probabilities(0.1, 0.1, 0.8), probabilities(0.4, 0.4, 0.2)])
    assert max_probability(history) == pytest.approx([0.5, 0.8, 0.4], abs=1e-12)
    assert margin(history) == pytest.approx([0.2, 0.7, 0.0], abs=1e-12)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("n", [2, 3, 77])
def test_huge_logits_are_sure_and_equal_ones_are_not(dtype, n):
    sure, even = [-1e4] * n, [1e4] * n
    sure[n // 2] = 1e4
    history = one_rung(sure, even, [0.0] * n, dtype=dtype)
    assert entropy(history).tolist()[0] == 0
    assert entropy(history)[1:] == pytest.approx([1, 1], abs=1e-12)
    assert max_probability(history) == pytest.approx([1, 1 / n, 1 / n], abs=1e-12)
    assert margin(history) == pytest.approx([1, 0, 0], abs=1e-12)


@repeatable
@given(st.sampled_from([16, 32, 64]).flatmap(histories))
def test_scores_are_finite_and_within_their_bounds_for_any_logits(history):
    n_classes = history.shape[-1]
    bounds = {"entropy": (0, 1), "max-probability": (1 / n_classes - 1e-12, 1 + 1e-12), "margin": (0, 1 + 1e-12)}
    for name in OF_ONE_RUNG:
        values = SCORES[name].of(history)
        assert (values.shape, values.dtype) == (history.shape[:1], np.float64)
        assert (values >= bounds[name][0]).all() and (values <= bounds[name][1]).all()
    assert np.isfinite(log_softmax(history)).all()
    assert softmax(history).sum(axis=-1) == pytest.approx(np.ones(history.shape[:2]), abs=1e-12)


@repeatable
@given(histories(largest=32), st.floats(-1e4, 1e4))
def test_a_number_added_to_all_logits_changes_nothing(history, shift):
    for name in OF_ONE_RUNG:
        assert SCORES[name].of(history + shift) == pytest.approx(SCORES[name].of(history), abs=1e-9)


@repeatable
@given(histories(largest=32), st.randoms(use_true_random=False))
def test_the_order_of_the_classes_changes_nothing(history, random):
    order = list(range(history.shape[-1]))
    random.shuffle(order)
    for name in OF_ONE_RUNG:
        assert SCORES[name].of(history[..., order]) == pytest.approx(SCORES[name].of(history), abs=1e-12)


@repeatable
@given(histories(largest=32), st.floats(1, 8))
def test_sharper_logits_never_look_less_sure(history, factor):
    for name in OF_ONE_RUNG:
        score = SCORES[name]
        gain = score.of(history * factor) - score.of(history)
        assert (gain >= -1e-12).all() if score.larger_is_surer else (gain <= 1e-12).all()


@repeatable
@given(histories())
def test_only_the_last_rung_counts_and_only_the_sequence_itself(history):
    for name in OF_ONE_RUNG:
        assert SCORES[name].of(history).tolist() == SCORES[name].of(history[:, -1:]).tolist()
    for score in SCORES.values():
        alone = [score.of(history[i : i + 1])[0] for i in range(len(history))]
        assert score.of(history).tolist() == alone


@pytest.mark.parametrize("name", SCORES)
def test_a_score_says_which_way_it_points(name):
    unsure, sure = said(0, 1, 2) * 0.1, said(2, 2, 2) * 9
    values = SCORES[name].of(np.concatenate([unsure, sure]))
    assert (values[1] > values[0]) == SCORES[name].larger_is_surer
    assert values[0] != values[1]


def test_with_many_classes_a_clear_winner_is_seen_by_margin_but_not_by_entropy():
    # 64 classes, the best has 60 %, the others share the rest: entropy is still above one half.
    history = probabilities(0.6, *[0.4 / 63] * 63)
    assert entropy(history)[0] > 0.5
    assert max_probability(history)[0] == pytest.approx(0.6)
    assert margin(history)[0] == pytest.approx(0.6 - 0.4 / 63)


# --- agreement -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("predictions", "kept", "reset"),
    [
        ((0, 0, 1, 1, 0, 0), [0, 1, 1, 2, 2, 3], [0, 1, 0, 1, 0, 1]),
        ((2, 2, 2, 2), [0, 1, 2, 3], [0, 1, 2, 3]),
        ((0, 1, 0, 1), [0, 0, 0, 0], [0, 0, 0, 0]),
        ((1, 1, 1, 0, 0, 0, 0), [0, 1, 2, 2, 3, 4, 5], [0, 1, 2, 0, 1, 2, 3]),
        ((2,), [0], [0]),
    ],
)
def test_agreement_counts_as_printed_with_and_without_reset(predictions, kept, reset):
    assert along(agreement, *predictions) == kept
    assert along(agreement_in_a_row, *predictions) == reset


predicted = st.lists(st.integers(0, 2), min_size=1, max_size=12)


@repeatable
@given(predicted)
def test_agreement_equals_a_literal_count(predictions):
    kept = reset = 0
    expected_kept, expected_reset = [0], [0]
    for before, now in pairwise(predictions):
        kept = kept + 1 if now == before else kept
        reset = reset + 1 if now == before else 0
        expected_kept.append(kept)
        expected_reset.append(reset)
    assert along(agreement, *predictions) == expected_kept
    assert along(agreement_in_a_row, *predictions) == expected_reset


@pytest.mark.parametrize("patience", [1, 2, 3, 5])
def test_patience_p_needs_at_least_p_plus_one_rungs(patience):
    for score in (agreement, agreement_in_a_row):
        unanimous = along(score, *[1] * 8)
        reached = [rung for rung, count in enumerate(unanimous, start=1) if count >= patience]
        assert reached[0] == patience + 1


@repeatable
@given(predicted)
def test_the_reset_count_is_never_the_larger_one(predictions):
    kept, reset = along(agreement, *predictions), along(agreement_in_a_row, *predictions)
    assert all(one <= other <= rung for rung, (one, other) in enumerate(zip(reset, kept, strict=True)))
