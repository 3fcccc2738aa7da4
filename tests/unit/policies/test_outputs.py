"""What logits stand for, problem by problem, and the exit scores of those that have no classes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from ziggurat.errors import UserError
from ziggurat.policies.exits import SCORES, entropy, exit_score
from ziggurat.policies.outputs import output_of
from ziggurat.types import Problem

repeatable = settings(derandomize=True, deadline=None, max_examples=100)
STARS = output_of(Problem.REGRESSION, (0, 5))
TAGS = output_of(Problem.MULTI_LABEL)
LOGITS = arrays.arrays("float32", st.tuples(st.integers(1, 5), st.integers(1, 4)), elements=st.floats(-9, 9, width=32))


def test_a_number_is_the_one_output_wherever_labels_end():
    logits = np.array([[-1.0], [2.5], [7.0]])
    assert STARS.predictions(logits).tolist() == [-1.0, 2.5, 7.0]
    assert output_of(Problem.REGRESSION).predictions(logits).tolist() == [-1.0, 2.5, 7.0]
    assert STARS.probabilities is None
    assert STARS.label(STARS.predictions(logits)[1], ("value",)) == 2.5


def test_losses_of_a_number_are_shares_of_the_range():
    said, true = np.array([0.0, 5.0, 2.5]), np.array([5.0, 5.0, 2.0])
    assert STARS.loss(said, true).tolist() == pytest.approx([1, 0, 0.1])
    assert STARS.losses["squared-error"](said, true).tolist() == pytest.approx([1, 0, 0.01])


def test_beyond_the_range_of_labels_nothing_more_is_lost():
    """Answers are what the model says; a bound needs losses of at most 1."""
    said, true = np.array([-9.0, 7.0, 7.0]), np.array([5.0, 5.0, 2.0])
    assert STARS.loss(said, true).tolist() == pytest.approx([1, 0, 0.6])
    assert STARS.differs(said, np.array([9.0, 9.0, -1.0])).tolist() == pytest.approx([1, 0, 1])
    assert STARS.apart(7.0, 9.0) == 0 and not STARS.same(7.0, 9.0)


def test_without_a_range_or_outside_of_it_there_is_no_loss():
    with pytest.raises(UserError, match="--label-range"):
        output_of(Problem.REGRESSION).differs(np.array([1.0]), np.array([1.0]))
    with pytest.raises(UserError, match="--label-range"):
        output_of(Problem.REGRESSION).loss(np.array([1.0]), np.array([1.0]))
    with pytest.raises(UserError, match="label 6 is outside of the range 0 to 5"):
        STARS.loss(np.array([1.0]), np.array([6.0]))


@repeatable
@given(LOGITS)
def test_labels_apply_where_their_probability_is_above_a_half(logits):
    shares, said = TAGS.probabilities(logits), TAGS.predictions(logits)
    assert ((shares > 0.5) == said)[np.abs(logits) > 1e-5].all()
    assert shares == pytest.approx(1 / (1 + np.exp(-logits.astype(np.float64))))
    names = ("a", "b", "c", "d")[: logits.shape[1]]
    assert TAGS.label(said[0], names) == tuple(name for name, yes in zip(names, said[0], strict=True) if yes)


def test_losses_of_sets():
    said, true = (
        np.array([[1, 0, 1, 0], [1, 1, 1, 1]], dtype=bool),
        np.array([[1, 0, 0, 0], [1, 1, 1, 1]], dtype=np.int8),
    )
    assert TAGS.loss(said, true).tolist() == [0.25, 0]
    assert TAGS.losses["subset-accuracy"](said, true).tolist() == TAGS.differs(said, true).tolist() == [1, 0]


@repeatable
@given(LOGITS)
def test_several_labels_are_as_sure_as_the_least_sure_of_them(logits):
    pairs = np.stack([logits, np.zeros_like(logits)], axis=-1)  # each label's yes against its no
    each = entropy(pairs.reshape(-1, 1, 2)).reshape(logits.shape)
    assert exit_score("label-entropy").of(logits[:, None]) == pytest.approx(each.max(axis=1), abs=1e-12)


def test_change_is_counted_from_the_last_asked_rung():
    numbers = np.array([[1.0, 4.0, 3.5], [2.0, 2.0, 2.0]])[..., None]
    score = exit_score("change")
    assert score.of(numbers).tolist() == [0.5, 0.0]
    assert score.of(numbers[:, :2]).tolist() == [3.0, 0.0]
    assert score.of(numbers[:, [0, 2]]).tolist() == [2.5, 0.0]
    assert score.of(numbers[:, :1]).tolist() == [np.inf, np.inf]
    assert score.compares and score.looks_back and not exit_score("entropy").looks_back


def test_every_score_belongs_to_one_problem_only():
    outputs = [output_of(problem) for problem in (Problem.SINGLE_LABEL, Problem.MULTI_LABEL, Problem.REGRESSION)]
    assert set(SCORES) <= {score for output in outputs for score in output.scores}
    for output in outputs:
        assert set(output.tried) <= set(output.scores)
        for score in output.scores:
            output.refuse_score(f"{score}@2")
    with pytest.raises(UserError, match="'entropy' is not for a model of regression; it can have: change, learned"):
        STARS.refuse_score("entropy")


def test_two_answers_differ_as_their_predictions_do():
    assert STARS.apart(1.0, 2.0) == pytest.approx(0.2)
    assert STARS.same(1.0, 1.00001) and not STARS.same(1.0, 1.1)
    assert TAGS.apart(("a",), ("a", "b")) == 1.0 and TAGS.same(("a",), ("a",))
