"""Exit scores against numbers worked out by hand, and at the ends of what floats can hold."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from ziggurat.errors import UserError
from ziggurat.policies import entropy, exit_score, softmax
from ziggurat.policies.exits import (
    FAMILIES,
    SCORES,
    agreement,
    agreement_in_a_row,
    confident_in_a_row,
    log_softmax,
    margin,
    max_probability,
    top_entropy,
)

repeatable = settings(derandomize=True, deadline=None, max_examples=100)
OF_ONE_RUNG = ("entropy", "max-probability", "margin", "top-entropy@2", "top-entropy@10")
NAMES = (*SCORES, "top-entropy@2", "confident-in-a-row@0.5")
OF_OTHERS = ("change", "label-entropy")  # scores of a regression, and of labels that are yes or no each
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


def at_each_rung(score, history: np.ndarray) -> list[float]:
    """The score of one sequence at each of its rungs in turn."""
    return [float(score(history[:, : rung + 1])[0]) for rung in range(history.shape[1])]


def along(score, *predictions: int) -> list[float]:
    """The score of one sequence whose rungs predict these classes, at each of them in turn."""
    return at_each_rung(score, said(*predictions))


def confident(*rungs: bool) -> np.ndarray:
    """A history of one sequence whose rungs have an entropy near 0 or of 1."""
    return np.where(np.array(rungs)[:, None], [9.0, 0.0], 0.0)[None]


def as_bfloat16(numbers: np.ndarray) -> np.ndarray:
    """The numbers as bfloat16 holds them, cut and not rounded, in float32: numpy has no type for it."""
    return (numbers.astype(np.float32).view(np.uint32) & 0xFFFF0000).view(np.float32)


# --- entropy, top-entropy, max-probability, margin -------------------------------------------------------------------


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
def test_claim_11_huge_logits_are_sure_and_equal_ones_are_not(dtype, n):
    sure, even = [-1e4] * n, [1e4] * n
    sure[n // 2] = 1e4
    history = one_rung(sure, even, [0.0] * n, dtype=dtype)
    assert entropy(history).tolist()[0] == 0
    assert entropy(history)[1:] == pytest.approx([1, 1], abs=1e-12)
    assert max_probability(history) == pytest.approx([1, 1 / n, 1 / n], abs=1e-12)
    assert margin(history) == pytest.approx([1, 0, 0], abs=1e-12)
    assert top_entropy(history, 2)[0] == 0
    assert top_entropy(history, 2)[1:] == pytest.approx([1, 1], abs=1e-12)


@repeatable
@given(st.sampled_from([16, 32, 64]).flatmap(histories), st.booleans())
def test_claim_11_scores_are_finite_and_bounded_for_any_logits(history, cut):
    history = as_bfloat16(history) if cut else history
    n_classes = history.shape[-1]
    bounds = {"max-probability": (1 / n_classes - 1e-12, 1 + 1e-12), "margin": (0, 1 + 1e-12)}
    for name in OF_ONE_RUNG:
        values = exit_score(name).of(history)
        low, high = bounds.get(name, (0, 1))
        assert (values.shape, values.dtype) == (history.shape[:1], np.float64)
        assert (values >= low).all() and (values <= high).all()
    assert np.isfinite(log_softmax(history)).all()
    assert softmax(history).sum(axis=-1) == pytest.approx(np.ones(history.shape[:2]), abs=1e-12)


@repeatable
@given(histories(largest=32), st.floats(-1e4, 1e4))
def test_a_number_added_to_all_logits_changes_nothing(history, shift):
    for name in OF_ONE_RUNG:
        assert exit_score(name).of(history + shift) == pytest.approx(exit_score(name).of(history), abs=1e-9)


@repeatable
@given(histories(largest=32), st.randoms(use_true_random=False))
def test_the_order_of_the_classes_changes_nothing(history, random):
    order = list(range(history.shape[-1]))
    random.shuffle(order)
    for name in OF_ONE_RUNG:
        assert exit_score(name).of(history[..., order]) == pytest.approx(exit_score(name).of(history), abs=1e-12)


@repeatable
@given(histories(largest=32), st.floats(1, 8))
def test_sharper_logits_never_look_less_sure(history, factor):
    for name in OF_ONE_RUNG:
        score = exit_score(name)
        gain = score.of(history * factor) - score.of(history)
        assert (gain >= -1e-12).all() if score.larger_is_surer else (gain <= 1e-12).all()


@repeatable
@given(histories())
def test_only_the_last_rung_counts_and_only_the_sequence_itself(history):
    for name in OF_ONE_RUNG:
        assert exit_score(name).of(history).tolist() == exit_score(name).of(history[:, -1:]).tolist()
    for score in map(exit_score, NAMES):
        alone = [score.of(history[i : i + 1])[0] for i in range(len(history))]
        assert score.of(history).tolist() == alone


@pytest.mark.parametrize("name", [name for name in NAMES if name not in OF_OTHERS])
def test_a_score_says_which_way_it_points(name):
    unsure, sure = said(0, 1, 2) * 0.1, said(2, 2, 2) * 9
    values = exit_score(name).of(np.concatenate([unsure, sure]))
    assert (values[1] > values[0]) == exit_score(name).larger_is_surer
    assert values[0] != values[1]


def test_top_entropy_equals_its_definition():
    shares = [0.5 / 0.8, 0.2 / 0.8, 0.1 / 0.8]  # of 0.5, 0.2 and 0.1, renormalised
    expected = -sum(p * np.log(p) for p in shares) / np.log(3)
    assert sum(shares) == pytest.approx(1)
    assert top_entropy(probabilities(0.1, 0.5, 0.09, 0.2, 0.09, 0.02), 3)[0] == pytest.approx(expected, abs=1e-12)
    assert top_entropy(probabilities(0.48, 0.04, 0.48), 2)[0] == pytest.approx(1, abs=1e-12)


@repeatable
@given(histories(), st.integers(0, 3))
def test_top_entropy_of_all_classes_or_more_is_plain_entropy(history, beyond):
    assert top_entropy(history, history.shape[-1] + beyond).tolist() == entropy(history).tolist()


def test_claim_18_all_but_plain_entropy_see_a_clear_winner():
    # 64 classes, the best has 60 %, the others share the rest: entropy is still above one half.
    history = probabilities(0.6, *[0.4 / 63] * 63)
    assert entropy(history)[0] > 0.5
    assert top_entropy(history, 5)[0] < 0.2
    assert max_probability(history)[0] == pytest.approx(0.6)
    assert margin(history)[0] == pytest.approx(0.6 - 0.4 / 63)


# --- counts --------------------------------------------------------------------------------------------------------


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
def test_claim_17_patience_resets_as_in_pabee_but_not_as_in_s3(predictions, kept, reset):
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


@pytest.mark.parametrize(
    ("rungs", "expected"),
    [
        ((True, True, False, True, True, True), [1, 2, 0, 1, 2, 3]),
        ((False, False, True), [0, 0, 1]),
        ((True,), [1]),
        ((False,), [0]),
    ],
)
def test_claim_17_confident_rungs_in_a_row_count_as_in_pcee(rungs, expected):
    history = confident(*rungs)
    assert at_each_rung(exit_score("confident-in-a-row@0.5").of, history) == expected
    # Which class they are confident of plays no part: here it changes from rung to rung.
    history[:, ::2] = history[:, ::2, ::-1]
    assert at_each_rung(exit_score("confident-in-a-row@0.5").of, history) == expected


@repeatable
@given(histories(largest=8), st.floats(0, 1))
def test_confident_in_a_row_equals_a_literal_count(history, largest):
    for sequence in range(len(history)):
        count = 0
        for rung in range(history.shape[1]):
            alone = history[sequence : sequence + 1, rung : rung + 1]
            count = count + 1 if entropy(alone)[0] <= largest else 0
        assert confident_in_a_row(history, largest)[sequence] == count


def test_an_entropy_of_exactly_h_is_confident():
    history = probabilities(0.5, 0.25, 0.125, 0.125)
    value = entropy(history)[0]
    counts = [confident_in_a_row(history, largest)[0] for largest in (value, np.nextafter(value, 0), 1.0)]
    assert counts == [1, 0, 1]
    assert confident_in_a_row(one_rung([0.0, 0.0, 0.0]), 1.0).tolist() == [1]


@pytest.mark.parametrize("patience", [1, 2, 3, 5])
def test_claim_17_patience_needs_enough_rungs_to_agree(patience):
    depths = {"agreement": patience + 1, "agreement-in-a-row": patience + 1, "confident-in-a-row@0.5": patience}
    for name, depth in depths.items():
        unanimous = at_each_rung(exit_score(name).of, said(*[1] * 8) * 9)
        reached = [rung for rung, count in enumerate(unanimous, start=1) if count >= patience]
        assert reached[0] == depth


@pytest.mark.parametrize("n_asked", [2, 3, 7])
def test_the_largest_count_is_that_of_the_surest_input(n_asked):
    unanimous = said(*[1] * (n_asked - 1)) * 9
    for name in ("agreement", "agreement-in-a-row", "confident-in-a-row@0.5"):
        assert exit_score(name).of(unanimous).tolist() == [exit_score(name).largest_count(n_asked)]
    assert [exit_score(name).largest_count(n_asked) for name in OF_ONE_RUNG] == [None] * len(OF_ONE_RUNG)


@repeatable
@given(predicted)
def test_the_reset_count_is_never_the_larger_one(predictions):
    kept, reset = along(agreement, *predictions), along(agreement_in_a_row, *predictions)
    assert all(one <= other <= rung for rung, (one, other) in enumerate(zip(reset, kept, strict=True)))


# --- names ---------------------------------------------------------------------------------------------------------


def test_a_score_is_found_by_its_name():
    assert all(exit_score(name) is SCORES[name] for name in SCORES)
    history = np.random.default_rng(0).normal(size=(20, 4, 9))
    assert exit_score("top-entropy@3").of(history).tolist() == top_entropy(history, 3).tolist()
    assert exit_score("confident-in-a-row@.9").of(history).tolist() == confident_in_a_row(history, 0.9).tolist()


@pytest.mark.parametrize("name", ["luck", "", "@", "entropy@2", "agreement@1", "Entropy", "top-entropies@2"])
def test_an_unknown_name_is_refused_with_the_known_ones(name):
    with pytest.raises(UserError) as caught:
        exit_score(name)
    assert all(known in str(caught.value) for known in (repr(name), "is not known", *SCORES, *FAMILIES))


@pytest.mark.parametrize(
    ("family", "numbers", "wanted"),
    [
        ("top-entropy", ["", "0", "1", "-2", "2.5", "two", "nan", "²", "2@3"], "N of top-entropy@N must be a whole"),
        ("confident-in-a-row", ["", "-0.1", "1.1", "nan", "inf", "low", "0.5@1"], "H of confident-in-a-row@H must be"),
    ],
)
def test_a_bad_number_in_a_name_is_refused_with_what_it_must_be(family, numbers, wanted):
    for name in [family, *(f"{family}@{number}" for number in numbers)]:
        with pytest.raises(UserError) as caught:
            exit_score(name)
        message = str(caught.value)
        assert "\n" not in message
        assert all(part in message for part in (repr(name), wanted, *SCORES, "top-entropy@N", "confident-in-a-row@H"))


def test_the_borders_of_the_numbers_in_names_are_allowed():
    for name in ("top-entropy@2", "top-entropy@1000000", "confident-in-a-row@0", "confident-in-a-row@1"):
        assert np.isfinite(exit_score(name).of(said(0, 1, 1))).all()
