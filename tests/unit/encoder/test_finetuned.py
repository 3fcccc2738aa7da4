"""A fine-tuned classifier's answers are what its configuration calls them, as far as its weights agree."""

from __future__ import annotations

import json
import shutil

import pytest

from ziggurat.encoder import answers_of, has_classifier
from ziggurat.encoder.finetuned import checkpoint_labels, checkpoint_problem, known_names, same_classes
from ziggurat.errors import UserError
from ziggurat.types import ProblemType

CONFIG = "config.json"


@pytest.mark.parametrize(
    ("config", "labels"),
    [
        ({"id2label": {"0": "no", "1": "yes"}}, ("no", "yes")),
        ({"id2label": {"1": "yes", "0": "no"}}, ("no", "yes")),
        ({"id2label": {"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"}}, (0, 1, 2)),
        ({"id2label": {"0": "0", "1": "1"}}, (0, 1)),
        ({"id2label": {"0": "1", "1": "0"}}, ("1", "0")),
        ({}, (0, 1)),  # what transformers writes of two classes that nobody named
        ({"id2label": None}, (0, 1)),
        ({"num_labels": 3}, (0, 1, 2)),
        ({"num_labels": 1}, ("value",)),
        ({"id2label": {"0": 1, "1": 2, "2": 3}}, (1, 2, 3)),
        ({"id2label": {"0": 0, "1": 1}}, (0, 1)),
        ({"id2label": {"0": False, "1": True}}, ("False", "True")),
        ({"id2label": {"0": "LABEL_1", "1": "LABEL_0"}}, ("LABEL_1", "LABEL_0")),
        ({"id2label": {str(i): f"n{i}" for i in (*range(2, 12), 1, 0)}}, tuple(f"n{i}" for i in range(12))),
        ({"label2id": {"yes": 1, "no": 0}}, ("no", "yes")),
        ({"id2label": {"0": "no", "1": "yes"}, "label2id": {"no": "0", "yes": "1"}, "num_labels": 2}, ("no", "yes")),
        # Whoever sets one of the two alone leaves the other as it was.
        ({"id2label": {"0": "no", "1": "yes"}, "label2id": {"LABEL_0": 0, "LABEL_1": 1}}, ("no", "yes")),
    ],
)
def test_a_checkpoints_labels_are_its_names_or_numbers(tmp_path, config, labels):
    (tmp_path / CONFIG).write_text(json.dumps(config))
    assert checkpoint_labels(tmp_path) == labels


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"id2label": {"0": "a", "2": "b"}}, "none is number 1; number them 0 to 1"),
        ({"id2label": {"0": "a", "00": "b"}}, "none is number 1"),
        ({"id2label": {"1": "a", "2": "b"}}, "none is number 0"),
        ({"id2label": {"a": 0, "b": 1}}, "has 'a' where the number of a class belongs"),
        ({"id2label": {"9" * 5000: "a", "0": "b"}}, "where the number of a class belongs"),
        ({"id2label": ["a", "b"]}, "id2label is no object"),
        ({"id2label": {"0": "a", "1": None}}, "calls class 1 None; give it a name"),
        ({"id2label": {"0": "a", "1": " "}}, "calls class 1 ' '; give it a name"),
        ({"id2label": {"0": "a", "1": ["b"]}}, "calls class 1"),
        ({"id2label": {"0": "a", "1": "b", "2": "a"}}, "classes 0, 2 have one name, 'a'; give each a name of its own"),
        ({"id2label": {"0": 1, "1": "1"}}, "classes 0, 1 have one name, '1'"),
        ({"label2id": {"a": 0, "b": 0}}, "none is number 1"),
        ({"label2id": {"a": 0, "b": "one"}}, "'one' where the number of a class belongs"),
        ({"id2label": {"0": "a", "1": "b"}, "label2id": {"a": 1, "b": 0}}, "'a' is class 0, label2id that it is 1"),
        ({"id2label": {"0": "a", "1": "b"}, "num_labels": 3}, "num_labels is 3, and 2 classes have names"),
        ({"num_labels": 10**12}, "is no number of classes"),
        ({"num_labels": "two"}, "is no number of classes"),
    ],
)
def test_a_configuration_with_ambiguous_classes_is_refused(tmp_path, config, says):
    (tmp_path / CONFIG).write_text(json.dumps(config))
    with pytest.raises(UserError) as refused:
        checkpoint_labels(tmp_path)
    assert says in str(refused.value) and str(refused.value).startswith(f"{tmp_path / CONFIG}: ")


@pytest.mark.parametrize("stated", [ProblemType.SINGLE_LABEL, None])
def test_one_output_is_a_score_and_no_class(tmp_path, stated):
    (tmp_path / CONFIG).write_text(json.dumps({"id2label": {"0": "LABEL_0"}, "problem_type": stated}))
    assert checkpoint_labels(tmp_path, ProblemType.REGRESSION) == ("value",)
    assert checkpoint_labels(tmp_path, ProblemType.MULTI_LABEL) == (0,)
    if stated is None:
        assert checkpoint_problem(tmp_path) is ProblemType.REGRESSION
    else:
        with pytest.raises(UserError, match="for its score say --problem regression, for a yes or no"):
            checkpoint_labels(tmp_path)


@pytest.mark.parametrize("ending", ["ForTokenClassification", "ForMultipleChoice", "ForQuestionAnswering"])
def test_tensors_with_other_meanings_are_no_classifier(tiny_checkpoint, tmp_path, ending):
    """A tagger has a classifier, too: taken for one of texts it would answer, and all of it would be wrong."""
    folder = shutil.copytree(tiny_checkpoint, tmp_path / "other")
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps({**config, "architectures": [f"Bert{ending}"]}))
    assert known_names(folder) is None and not has_classifier(folder)
    with pytest.raises(UserError, match=f"a Bert{ending}, which .*; adapt takes a fine-tuned classifier of texts"):
        answers_of(folder)


def test_a_pickled_classifier_beside_an_encoder_is_named(make_bert, make_checkpoint, tmp_path):
    folder = make_checkpoint(make_bert().bert, tmp_path / "setfit")
    (folder / "model_head.pkl").write_bytes(b"")
    with pytest.raises(UserError, match=r"its classifier is model_head.pkl, a pickle.* `ziggurat train --model`"):
        answers_of(folder)


def test_the_same_classes_are_the_same_in_any_order_and_spelling():
    assert same_classes((0, 1, 2), ("LABEL_2", "label_0", "1"))
    assert same_classes(("No", "Yes"), ("yes", "no"))
    assert not same_classes(("No", "Yes"), (0, 1))
    assert not same_classes(("no", "yes"), ("yes", "maybe"))
    assert not same_classes(("no", "yes"), ("yes", "YES"))


def test_two_classes_that_nobody_named_are_0_and_1(make_bert, make_checkpoint, tmp_path):
    folder = make_checkpoint(make_bert(id2label=None, label2id=None, num_labels=2), tmp_path / "binary")
    assert "id2label" not in json.loads((folder / CONFIG).read_text())
    assert answers_of(folder) == ((0, 1), ProblemType.SINGLE_LABEL)


def test_a_folder_of_ours_answers_what_its_manifest_says(make_folder):
    assert answers_of(make_folder(labels=(7, 5, 6))) == ((7, 5, 6), ProblemType.SINGLE_LABEL)


def test_more_or_fewer_names_than_outputs_are_refused(tiny_checkpoint, tmp_path):
    folder = shutil.copytree(tiny_checkpoint, tmp_path / "named")
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps({**config, "id2label": {"0": "no", "1": "yes"}}))
    with pytest.raises(UserError, match=r"names 2 classes \(id2label\), its classifier has 3"):
        answers_of(folder)


def test_a_problem_that_is_stated_is_taken(tiny_checkpoint):
    assert answers_of(tiny_checkpoint, ProblemType.MULTI_LABEL)[1] is ProblemType.MULTI_LABEL
    assert checkpoint_problem(tiny_checkpoint) is ProblemType.SINGLE_LABEL
    with pytest.raises(UserError, match="has 3 outputs, and a regression has one"):
        answers_of(tiny_checkpoint, ProblemType.REGRESSION)
