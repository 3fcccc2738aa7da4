"""Many answers at once: columns, a list, and objects of those alone that are looked at."""

from __future__ import annotations

import json
import pickle
import types
from dataclasses import replace

import numpy as np
import pytest

import ziggurat.problems.problem
from tests.kit.questions import make_contexts, make_questions, save_span_folder
from ziggurat.engine import OpenedModel
from ziggurat.problems import Classes
from ziggurat.problems.answers import Answers
from ziggurat.problems.labels import Labels
from ziggurat.problems.number import Number
from ziggurat.types import Answer, SpanAnswer, Trace

NAMES = ("river", "stone", "tower")


def made(problem, readings) -> Answers:
    """Answers with these readings (n, width) and other costs each."""
    n = len(readings)
    counts = np.arange(1, n + 1)
    left = np.stack([counts, counts * (counts > 1)], axis=1)
    truncated = counts % 2 == 0
    return Answers(
        problem, np.array(readings, np.float32), counts - 1, 10 * counts, left, 7 * counts, counts / 1e6, truncated
    )


@pytest.fixture
def three():
    return made(Classes(NAMES), [[5, 1, 0], [0, 1, 5], [1, 5, 0]])


def test_columns_of_classes(three):
    assert three.labels.tolist() == ["river", "tower", "stone"]
    assert three.probabilities.shape == (3, 3) and three.probabilities.argmax(axis=1).tolist() == [0, 2, 1]
    assert three.layers.tolist() == [1, 2, 2] and three.tokens.tolist() == [10, 20, 30]


def test_columns_of_labels_and_of_numbers():
    several = made(Labels(NAMES), [[1, -1, 1], [-1, -1, -1]])
    assert several.labels.tolist() == [("river", "tower"), ()]
    assert several.problem.predicted(several.predictions).tolist() == [[1, 0, 1], [0, 0, 0]]
    numbers = made(Number(("value",)), [[2.5], [-1.0]])
    assert numbers.labels.tolist() == [2.5, -1.0] and numbers.probabilities is None
    assert [answer.label for answer in numbers] == [2.5, -1.0] and numbers[0].probabilities is None


def test_an_answer_is_the_row_of_the_columns(three):
    answer = three[1]
    assert isinstance(answer, Answer) and answer.label == "tower" and type(answer.label) is str
    assert answer.trace == Trace(rung=1, read=20, tokens=(2, 2), flops=14, microseconds=2.0, truncated=True)
    assert np.array_equal(answer.probabilities, three.probabilities[1])
    assert three[0].trace.layers == 1 and three[-1].label == "stone"
    assert json.dumps(answer.trace.__dict__)  # Python's own numbers


def test_it_is_a_list(three):
    assert len(three) == 3 and [answer.label for answer in three] == ["river", "tower", "stone"]
    assert [answer.trace for answer in three] == three.traces
    assert [answer.label for answer in reversed(three)] == ["stone", "tower", "river"]
    first, *others = three
    assert first.label == "river" and len(others) == 2 and bool(three)
    with pytest.raises(IndexError):
        three[3]
    with pytest.raises(TypeError):
        three["river"]


def test_a_slice_has_the_columns(three):
    two = three[::2]
    assert isinstance(two, Answers) and two.labels.tolist() == ["river", "stone"] and two.flops.tolist() == [7, 21]
    assert not three[3:] and three[3:].labels.tolist() == [] and three[3:] == []
    assert three.take(np.array([False, True, True])) == three[1:] and three.take(np.array([2, 0])).flops[0] == 21


def test_equal_but_for_their_times(three):
    later = replace(three, seconds=three.seconds * 2)
    assert three == later and three != three[:2] and three != replace(three, rungs=three.rungs + 1)
    assert three != made(Classes(("a", "b", "c")), three.readings) and three != 3
    with pytest.raises(TypeError):
        hash(three)


def test_its_text_is_short(three):
    assert repr(three) == "Answers(3: 'river', 'tower', 'stone')"
    many = made(Classes(NAMES), np.eye(3)[[0, 1, 2, 0]])
    assert repr(many) == "Answers(4: 'river', 'stone', 'tower', …)" and repr(many[:0]) == "Answers(0)"


def test_it_can_be_pickled(three):
    assert pickle.loads(pickle.dumps(three)) == three


def test_no_object_is_made_before_one_is_looked_at(model_folder, texts, monkeypatch):
    model = OpenedModel.from_pretrained(model_folder, "cpu")
    objects = []
    counting = types.SimpleNamespace(of=lambda *values: objects.append(values) or Answer(*values))
    monkeypatch.setattr(ziggurat.problems.problem, "Answer", counting.of)
    answers = model.answer(texts, "full")
    assert len(answers.labels) == len(answers.probabilities) == len(answers[2:5].flops) + len(texts) - 3
    assert objects == []
    assert answers[3].label == answers.labels[3] and len(objects) == 1


def test_columns_and_objects_of_a_model_agree(cascade_folder, texts):
    model = OpenedModel.from_pretrained(cascade_folder, "cpu")
    answers = model.answer(texts, model.rule("entropy", 0.9))
    for row, answer in enumerate(answers):
        trace = answer.trace
        assert (answer.label, trace.rung, trace.read) == (answers.labels[row], answers.rungs[row], answers.tokens[row])
        assert (trace.layers, trace.flops) == (answers.layers[row], answers.flops[row])
        assert trace.tokens == tuple(count for count in answers.tokens_left[row] if count)
    assert answers == model.answer(texts, model.rule("entropy", 0.9))


def test_spans_are_columns_and_objects(make_checkpoint, tmp_path):
    model = OpenedModel.from_pretrained(save_span_folder(tmp_path, make_checkpoint), "cpu")
    answers = model.answer(list(zip(make_questions(), make_contexts(), strict=True)), "full")
    assert all(isinstance(answer, SpanAnswer) for answer in answers)
    assert answers.labels.tolist() == [answer.text for answer in answers]
    assert answers[3] == answers[3:][0] and answers.probabilities is None
    assert pickle.loads(pickle.dumps(answers)) == answers


def test_single_answers_compare_by_their_values():
    trace = Trace(0, 3, (3,), 10, 1.0, False)
    shares = np.array([0.25, 0.75])
    answer = Answer("a", shares, trace)
    assert answer == Answer("a", shares.copy(), trace) and answer != Answer("a", shares[::-1], trace)
    assert Answer(1.5, None, trace) == Answer(1.5, None, trace) != answer
