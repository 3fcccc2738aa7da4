"""Models that are pickled, copied and moved; answers after it are the same bits."""

from __future__ import annotations

import copy
import os
import pickle
import shutil

import pytest

from tests.kit.questions import make_contexts, make_questions, save_span_folder
from ziggurat.calibrate import Monitor
from ziggurat.engine import OpenedModel
from ziggurat.errors import UserError
from ziggurat.policies import ExitRule
from ziggurat.types import OperatingPoint

FOLDERS = ["model_folder", "static_folder", "cascade_folder"]


def said(model, texts):
    return [(answer.label, answer.probabilities.tobytes()) for answer in model.answer(texts, "full")]


@pytest.mark.parametrize("protocol", [2, pickle.HIGHEST_PROTOCOL])
@pytest.mark.parametrize("name", FOLDERS)
def test_a_pickled_model_answers_as_before(request, texts, name, protocol):
    model = OpenedModel.from_pretrained(request.getfixturevalue(name), "cpu")
    pickled = pickle.dumps(model, protocol)
    assert len(pickled) < 2000
    assert said(pickle.loads(pickled), texts) == said(model, texts)


def test_options_are_kept(model_folder):
    model = OpenedModel.from_pretrained(model_folder, "cpu", threads=2)
    opened = pickle.loads(pickle.dumps(model))
    again = pickle.loads(pickle.dumps(opened))
    for one in (opened, again):
        assert (one.backend.engine, one.backend.dtype) == (model.backend.engine, model.backend.dtype)
        assert one.backend.threads == 2


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
@pytest.mark.parametrize("name", FOLDERS)
def test_copies_share_the_weights(request, texts, name, copied):
    model = OpenedModel.from_pretrained(request.getfixturevalue(name), "cpu")
    other = copied({"model": model} if copied is copy.deepcopy else model)
    other = other["model"] if isinstance(other, dict) else other
    assert other is not model and other.backend is model.backend
    assert said(other, texts) == said(model, texts) == said(pickle.loads(pickle.dumps(other)), texts)


def test_models_of_questions_are_pickled_too(tmp_path, make_checkpoint):
    model = OpenedModel.from_pretrained(save_span_folder(tmp_path, make_checkpoint), "cpu")
    asked = list(zip(make_questions(), make_contexts(), strict=True))
    again = pickle.loads(pickle.dumps(model))
    assert [a.score for a in again.answer(asked, "full")] == [a.score for a in model.answer(asked, "full")]


def test_a_relative_folder_is_found_from_elsewhere(static_folder, tmp_path, monkeypatch, texts):
    monkeypatch.chdir(static_folder.parent)
    model = OpenedModel.from_pretrained(static_folder.name)
    pickled = pickle.dumps(model)
    monkeypatch.chdir(tmp_path)
    assert said(pickle.loads(pickled), texts) == said(model, texts)


def test_a_model_of_the_hub_is_opened_from_where_it_was_put(static_folder, monkeypatch, texts):
    with monkeypatch.context() as patched:
        patched.setattr("ziggurat.engine.opened.local_folder", lambda name: static_folder)
        model = OpenedModel.from_pretrained("somebody/something")
    assert said(pickle.loads(pickle.dumps(model)), texts) == said(model, texts)


def test_a_missing_or_changed_folder_is_named_when_unpickled(copied, static_folder, make_static):
    folder = copied(static_folder)
    pickled = pickle.dumps(OpenedModel.from_pretrained(folder))
    shutil.rmtree(folder)
    with pytest.raises(UserError, match=f"{folder}: no such folder any more") as raised:
        pickle.loads(pickled)
    assert "\n" not in str(raised.value)
    assert str(pickle.loads(pickle.dumps(raised.value))) == str(raised.value)  # as a pool's workers send it back
    shutil.copytree(make_static(labels=("tower", "stone", "river")), folder)  # of the same weights
    os.utime(folder)
    with pytest.raises(UserError, match=f"{folder}: no longer the model that was pickled"):
        pickle.loads(pickled)


def test_what_no_folder_holds_is_not_pickled(static_folder):
    model = OpenedModel.from_pretrained(static_folder)
    with pytest.raises(UserError, match="from_pretrained"):
        pickle.dumps(OpenedModel(model.tiers))


def test_rules_and_points_are_plain(model_folder):
    rule = ExitRule.full_depth(4)
    assert pickle.loads(pickle.dumps(rule)).score == rule.score
    point = OperatingPoint("p", "entropy", (0.5,), "f")
    assert pickle.loads(pickle.dumps(point)) == point


def test_evidence_is_not_split(model_folder):
    watched = object.__new__(Monitor)
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(UserError, match="evidence would be split"):
            attempt(watched)
