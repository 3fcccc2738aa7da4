"""A fine-tuned classifier's answers are what its configuration calls them, as far as its weights agree."""

from __future__ import annotations

import json
import shutil

import pytest

from ziggurat.encoder.finetuned import answers_of, checkpoint_labels, checkpoint_problem
from ziggurat.errors import UserError
from ziggurat.types import Problem

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
    ],
)
def test_a_checkpoints_labels_are_its_names_or_numbers_where_nobody_named_them(tmp_path, config, labels):
    (tmp_path / CONFIG).write_text(json.dumps(config))
    assert checkpoint_labels(tmp_path) == labels


def test_a_checkpoint_that_leaves_out_a_class_is_refused(tmp_path):
    (tmp_path / CONFIG).write_text(json.dumps({"id2label": {"0": "a", "2": "b"}}))
    with pytest.raises(UserError, match="names no classes"):
        checkpoint_labels(tmp_path)


def test_two_classes_that_nobody_named_are_0_and_1(make_bert, make_checkpoint, tmp_path):
    folder = make_checkpoint(make_bert(id2label=None, label2id=None, num_labels=2), tmp_path / "binary")
    assert "id2label" not in json.loads((folder / CONFIG).read_text())
    assert answers_of(folder) == ((0, 1), Problem.SINGLE_LABEL)


def test_a_folder_of_ours_answers_what_its_manifest_says(make_folder):
    assert answers_of(make_folder(labels=(7, 5, 6))) == ((7, 5, 6), Problem.SINGLE_LABEL)


def test_more_or_fewer_names_than_outputs_are_refused(tiny_checkpoint, tmp_path):
    folder = shutil.copytree(tiny_checkpoint, tmp_path / "named")
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps({**config, "id2label": {"0": "no", "1": "yes"}}))
    with pytest.raises(UserError, match=r"names 2 classes \(id2label\), its classifier has 3"):
        answers_of(folder)


def test_a_problem_that_is_stated_is_taken(tiny_checkpoint):
    assert answers_of(tiny_checkpoint, Problem.MULTI_LABEL)[1] is Problem.MULTI_LABEL
    assert checkpoint_problem(tiny_checkpoint) is Problem.SINGLE_LABEL
    with pytest.raises(UserError, match="has 3 outputs, and a regression has one"):
        answers_of(tiny_checkpoint, Problem.REGRESSION)
