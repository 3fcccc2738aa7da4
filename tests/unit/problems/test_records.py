"""What readings stand for, problem by problem, and the exit scores of those that have no classes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from ziggurat.errors import UserError
from ziggurat.policies import entropy, exit_score
from ziggurat.policies.exits import SCORES
from ziggurat.problems import MEASURES, problem_named
from ziggurat.types import ProblemType

repeatable = settings(derandomize=True, deadline=None, max_examples=100)
STARS = problem_named(ProblemType.REGRESSION, ("value",), (0, 5))
TAGS = problem_named(ProblemType.MULTI_LABEL)
LOGITS = arrays.arrays("float32", st.tuples(st.integers(1, 5), st.integers(1, 4)), elements=st.floats(-9, 9, width=32))


def test_a_number_is_the_one_output_wherever_labels_end():
    logits = np.array([[-1.0], [2.5], [7.0]])
    assert STARS.predictions(logits).tolist() == [-1.0, 2.5, 7.0]
    assert problem_named(ProblemType.REGRESSION).predictions(logits).tolist() == [-1.0, 2.5, 7.0]
    assert STARS.probabilities(logits) is None
    assert STARS.label(STARS.predictions(logits)[1]) == 2.5
    assert STARS.fields(STARS.predictions(logits)[2], None) == {"label": 7.0}


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
        problem_named(ProblemType.REGRESSION).differs(np.array([1.0]), np.array([1.0]))
    with pytest.raises(UserError, match="--label-range"):
        problem_named(ProblemType.REGRESSION).loss(np.array([1.0]), np.array([1.0]))
    with pytest.raises(UserError, match="label 6 is outside of the range 0 to 5"):
        STARS.loss(np.array([1.0]), np.array([6.0]))


@repeatable
@given(LOGITS)
def test_labels_apply_where_their_probability_is_above_a_half(logits):
    shares, said = TAGS.probabilities(logits), TAGS.predictions(logits)
    assert ((shares > 0.5) == said)[np.abs(logits) > 1e-5].all()
    assert shares == pytest.approx(1 / (1 + np.exp(-logits.astype(np.float64))))
    names = ("a", "b", "c", "d")[: logits.shape[1]]
    tags = problem_named(ProblemType.MULTI_LABEL, names)
    assert tags.label(said[0]) == tuple(name for name, yes in zip(names, said[0], strict=True) if yes)
    fields = tags.fields(said[0], shares[0])
    assert fields["label"] == list(tags.label(said[0])) and list(fields["probabilities"]) == list(names)


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


def test_change_is_counted_from_the_asked_rung_before():
    numbers = np.array([[1.0, 4.0, 3.5], [2.0, 2.0, 2.0]])[..., None]
    score = exit_score("change")
    assert score.of(numbers).tolist() == [0.5, 0.0]
    assert score.of(numbers[:, :2]).tolist() == [3.0, 0.0]
    assert score.of(numbers[:, [0, 2]]).tolist() == [2.5, 0.0]
    assert score.of(numbers[:, :1]).tolist() == [np.inf, np.inf]
    assert score.compares and score.looks_back and not exit_score("entropy").looks_back


def test_every_score_belongs_to_its_problems_alone():
    outputs = [
        problem_named(problem)
        for problem in (ProblemType.SINGLE_LABEL, ProblemType.MULTI_LABEL, ProblemType.REGRESSION)
    ]
    assert set(SCORES) <= {score for output in outputs for score in output.scores}
    for output in outputs:
        assert set(output.compared_scores) <= set(output.scores)
        for score in output.scores:
            output.check_score(f"{score}@2")
    with pytest.raises(UserError, match="'entropy' is not for a model of regression; it can have: change, learned"):
        STARS.check_score("entropy")


def test_answers_differ_as_their_predictions_do():
    assert STARS.apart(1.0, 2.0) == pytest.approx(0.2)
    assert STARS.same(1.0, 1.00001) and not STARS.same(1.0, 1.1)
    assert TAGS.apart(("a",), ("a", "b")) == 1.0 and TAGS.same(("a",), ("a",))


CLASS = problem_named(ProblemType.SINGLE_LABEL, ("a", "b", "c"))
CONTEXT = "the red fox saw a hen"


class OneContext:
    """Stands for windows: token k of a window is the k-th word of CONTEXT."""

    edges = np.array([0, 2, 3])

    def text(self, row, window, first, last):
        words = CONTEXT.split()
        start = len(" ".join(words[:first])) + (first > 0)
        text = " ".join(words[first : last + 1])
        return text, start, start + len(text)


def reading(first=0, last=0, score=1.0, null=0.0, window=0):
    return [0.25, 0.5, window, first, last, score, null]


def golds(*texts):
    found = np.empty(len(texts), dtype=object)
    found[:] = [tuple((text, 0) for text in some) for some in texts]
    return found


def test_a_class_is_its_largest_logit():
    logits = np.array([[0.0, 1.0, 0.0], [2.0, 1.0, 0.0]])
    predictions = CLASS.predictions(logits)
    assert [CLASS.label(one) for one in predictions] == ["b", "a"]
    fields = CLASS.fields(predictions[0], CLASS.probabilities(logits)[0])
    assert fields["label"] == "b" and fields["probability"] == fields["probabilities"]["b"] > 0.5
    figures = CLASS.beside_full(predictions, np.array([1, 1]), np.array([1, 2]))
    assert (figures["accuracy"], figures["full_accuracy"], figures["agreement"]) == (0.5, 0.5, 0.5)


def test_of_two_classes_one_score_stands_for_all_alike():
    tried = [*CLASS.compared_scores, "agreement"]
    assert CLASS.distinct(tried, 3) == tried and CLASS.distinct(tried, 2) == ["entropy", "agreement"]
    assert TAGS.distinct(["label-entropy"], 2) == ["label-entropy"]


def test_a_span_is_the_best_text_unless_no_answer_leads():
    spans = problem_named(ProblemType.QUESTION_ANSWERING, ("start", "end"), offsets=(0.5, 2.0))
    readings = np.array([[reading(1, 2, null=1.75)] * 2, [reading(4, 4, score=-np.inf)] * 2])
    found = spans.predictions(readings, OneContext())
    assert found.shape == (2, 2)
    assert found[0, 0].text == "" and tuple(found[0, 1]) == ("red fox", 4, 11)  # a lead of 0.75
    assert found[1, 0].text == found[1, 1].text == ""  # a context without words
    last = spans.predictions(readings[:, 1], OneContext(), np.array([1, 0]))
    assert [spans.label(one) for one in last] == ["red fox", ""]
    assert spans.fields(last[0], None) == {"label": "red fox", "start": 4, "end": 11}
    always = problem_named(ProblemType.QUESTION_ANSWERING)
    assert always.predictions(readings[:1], OneContext())[0, 0].text == "red fox"


def test_spans_are_judged_as_squad_judges_them():
    spans = problem_named(ProblemType.QUESTION_ANSWERING)
    readings = np.array([reading(0, 1), reading(1, 1), reading(4, 5)])
    answers = spans.predictions(readings, OneContext(), np.zeros(3, dtype=int))
    truth = golds(["red"], ["a red fox", "fox"], [])
    assert spans.loss(answers, truth).tolist() == pytest.approx([0, 0.333333, 1], abs=1e-5)
    assert spans.losses["exact-match"](answers, truth).tolist() == [0, 1, 1]
    assert spans.differs(answers[:2], answers[1::-1]).tolist() == [0, 0]  # "the red" and "red"
    assert spans.right(answers, truth).tolist() == [True, False, False]
    figures = spans.beside_full(answers, answers, truth)
    assert figures["f1_unanswerable"] == 0 and figures["f1_answerable"] == pytest.approx(5 / 6)
    assert figures["agreement"] == 1 and figures["exact_match_low"] < figures["exact_match"] == pytest.approx(1 / 3)
    assert spans.figures(answers, truth, np.array([True, False, False])) == {"f1": 1, "exact_match": 1}


def test_the_offsets_of_rungs_have_the_best_f1():
    spans = problem_named(ProblemType.QUESTION_ANSWERING)
    readings = np.array([[reading(1, 1, null=-1.0)], [reading(1, 1, null=3.0)]])
    (offset,) = spans.rung_offsets(lambda: readings, OneContext(), golds(["red"], []))
    assert -2 < offset < 2  # between the leads
    assert spans.rung_offsets(lambda: readings, OneContext(), golds(["red"], ["fox"])) is None
    assert CLASS.rung_offsets(lambda: readings, OneContext(), np.zeros(2)) is None


def test_what_is_worth_keeping_of_exits():
    sets = np.array([[[True, False], [True, True]], [[True, True], [True, True]], [[False, False], [True, False]]])
    truth = np.array([[1, 1], [1, 1], [0, 1]])
    assert TAGS.keeps(sets, truth).tolist() == [[0], [1], [1]]  # worse than the last; as good; both wrong
    assert STARS.keeps(np.array([[1.0, 2.0], [5.0, 5.0]]), None).tolist() == [[0.8], [1.0]]
    assert CLASS.keeps(np.array([[0, 1], [1, 1]]), None).tolist() == [[0], [1]]


@pytest.mark.parametrize("problem", list(ProblemType))
def test_every_record_has_the_same_shape(problem):
    record = problem_named(problem, ("a", "b"), (0, 1))
    assert (
        record.kind is problem
        and record.loss is not None
        and record.scores
        and set(record.compared_scores) <= set(record.scores)
    )
    assert record.width == (7 if problem is ProblemType.QUESTION_ANSWERING else 2)
    assert set(record.measures) <= set(MEASURES)
    assert record.unit_of(next(iter(record.losses))) == record.unit
