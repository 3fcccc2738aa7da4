"""The names of version 0.1 warn once, with the new name, and do what they did."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest

import ziggurat
from tests.kit.questions import make_contexts, make_questions, save_span_folder
from ziggurat import UserError, deprecated
from ziggurat.types import Answer, SpanAnswer


@pytest.fixture(autouse=True)
def as_in_a_new_process():
    deprecated._warn.cache_clear()


def test_a_classifier_returns_a_list_as_it_did(model_folder, texts):
    with pytest.warns(DeprecationWarning, match=r"AdaptiveClassifier is now AdaptiveModel \(engine=") as seen:
        old = ziggurat.AdaptiveClassifier.from_pretrained(model_folder, device="cpu", engine="native")
    assert len(seen) == 1 and seen[0].filename == __file__
    answers = old.predict(texts, operating_point="full", batch_size=4)
    assert type(answers) is list and all(isinstance(answer, Answer) for answer in answers)
    new = ziggurat.load(model_folder, device="cpu").answer(texts, "full")
    assert [answer.label for answer in answers] == new.labels.tolist()
    assert all(np.array_equal(one.probabilities, other.probabilities) for one, other in zip(answers, new, strict=True))
    streamed = dict(old.stream([texts], operating_point="full", deadline=0.1))
    assert [streamed[index].label for index in range(len(texts))] == new.labels.tolist()
    with pytest.raises(UserError, match="deadline 0 s: must be more than 0"):
        old.stream([texts], deadline=0.0)


def test_it_warns_once(model_folder):
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        for _ in range(3):
            ziggurat.AdaptiveClassifier.from_pretrained(model_folder, "cpu")
    assert [warning.category for warning in seen] == [DeprecationWarning]


def test_questions_and_contexts_are_lists_as_they_were(make_checkpoint, model_folder, tmp_path):
    folder = save_span_folder(tmp_path, make_checkpoint)
    with pytest.warns(DeprecationWarning, match="QuestionAnswerer is now AdaptiveModel"):
        old = ziggurat.QuestionAnswerer.from_pretrained(folder, "cpu", engine="native")
    answers = old.predict(make_questions(), make_contexts(), operating_point="full")
    asked = list(zip(make_questions(), make_contexts(), strict=True))
    assert type(answers) is list and all(isinstance(answer, SpanAnswer) for answer in answers)
    assert [answer.text for answer in answers] == ziggurat.load(folder, device="cpu").predict(asked, "full").tolist()
    with pytest.raises(UserError, match="1 questions about 2 contexts"):
        old.predict(["a"], ["b", "c"])
    with pytest.raises(UserError, match="give a list of each"):
        old.predict("a", ["b"])
    with pytest.raises(UserError, match="a classifier, which has no spans to give"):
        ziggurat.QuestionAnswerer.from_pretrained(model_folder, "cpu")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_classifier_of_spans_is_refused_as_it_was(make_checkpoint, tmp_path):
    with pytest.raises(UserError, match="answers questions with spans of a text"):
        ziggurat.AdaptiveClassifier.from_pretrained(save_span_folder(tmp_path, make_checkpoint), "cpu")


def test_functions_return_json_values_as_they_did(tiny_checkpoint, static_folder, tiny_recipe, rows_file, tmp_path):
    options = ziggurat.TrainOptions(device="cpu", progress=False)
    checkpoint, rows, made = str(tiny_checkpoint), str(rows_file), tmp_path / "trained"
    with pytest.warns(DeprecationWarning, match=r"train_classifier is now ziggurat\.train"):
        done = ziggurat.train_classifier(rows, made, str(tiny_recipe), checkpoint, options)
    assert done["out"] == str(made) and json.dumps(done)
    with pytest.warns(DeprecationWarning, match=r"adapt_classifier is now ziggurat\.adapt"):
        done = ziggurat.adapt_classifier(checkpoint, rows, tmp_path / "adapted", options=options)
    assert done["recipe"] == "adapt"
    with pytest.warns(DeprecationWarning, match=r"build_cascade is now ziggurat\.cascade"):
        done = ziggurat.build_cascade([str(static_folder), str(tmp_path / "adapted")], tmp_path / "cascade")
    assert done["tiers"] == ["static", "encoder"]
    promise = ziggurat.Promise(targets={"loose": 0.5}, criterion="agreement")
    with pytest.warns(DeprecationWarning, match=r"calibrate_classifier is now ziggurat\.load\(model\)\.calibrate"):
        done = ziggurat.calibrate_classifier(str(made), rows, promise)
    assert done["points"][0]["name"] == "loose" and json.dumps(done)


def test_old_names_are_no_longer_shown():
    assert not set(ziggurat.__all__) & set(ziggurat._OLD_NAMES)
