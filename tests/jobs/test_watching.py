"""A certified point in production: a shift is noticed, its absence is not, and a restart forgets nothing."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from ziggurat.data.sources import DEFAULT_COLUMNS
from ziggurat.data.tasks import load
from ziggurat.engine.classifier import AdaptiveClassifier
from ziggurat.errors import UserError
from ziggurat.jobs import prediction
from ziggurat.jobs.opening import ModelOptions
from ziggurat.jobs.prediction import predict
from ziggurat.jobs.watching import DEAREST, WatchedClassifier, read_state, watch_of, watched_costs, write_state
from ziggurat.types import Certificate, OperatingPoint


def certificate(differs: float, flops: float) -> Certificate:
    return Certificate(
        "agreement", 0.0, 100, "hash", "torch", "float32", 1, 32, None, 1.0, 1.0, 2.0, 2.0, 2.0, 2.0, differs, flops
    )


@pytest.fixture(scope="module")
def classifier(model_folder):
    return AdaptiveClassifier.from_pretrained(model_folder, "cpu", engine="torch")


@pytest.fixture
def with_point(classifier):
    """A function: the classifier with a point `eager` that leaves at the first exit, promised this much."""

    def make(differs: float, flops: float) -> AdaptiveClassifier:
        fingerprint = classifier.manifest.fingerprint
        point = OperatingPoint("eager", "entropy", (1.0,) * 3, fingerprint, 0.5, 0.95, "hash")
        point = replace(point, certificate=certificate(differs, flops))
        manifest = replace(classifier.manifest, operating_points=(point,))
        return AdaptiveClassifier([replace(classifier.tiers[0], manifest=manifest)])

    return make


@pytest.fixture(scope="module")
def many(rows_file):
    return load(str(rows_file), DEFAULT_COLUMNS).texts


def differing(classifier: AdaptiveClassifier, texts: list[str]) -> float:
    pairs = zip(classifier.predict(texts, "eager"), classifier.predict(texts, "full"), strict=True)
    return float(np.mean([one.label != full.label for one, full in pairs]))


def test_answers_are_those_of_the_operating_point(with_point, many):
    model = with_point(0.9, 1.5)
    watched = WatchedClassifier(model, "eager", share=0.3)
    assert [one.label for one in watched.predict(many)] == [one.label for one in model.predict(many, "eager")]
    assert watched.monitor.state.cost.n == 240
    assert 30 < watched.monitor.state.risk.n < 120
    assert watched.alarms == []


def test_more_differing_answers_than_were_promised_sound_an_alarm(with_point, many):
    share = differing(with_point(0.9, 1.5), many)
    assert share > 0.1  # or the test shows nothing
    watched = WatchedClassifier(with_point(share / 4, 1.5), "eager", share=1.0)
    watched.predict(many)
    [alarm] = watched.alarms
    assert "no longer supported" in alarm and "eager" in alarm


def test_dearer_inputs_than_were_expected_sound_an_alarm(with_point, many):
    watched = WatchedClassifier(with_point(0.95, 0.1), "eager")
    watched.predict(many)
    [alarm] = watched.alarms
    assert "expected 0.10" in alarm and "--max-layers" in alarm


def test_a_restart_goes_on_where_it_stopped(with_point, many, tmp_path):
    model, path = with_point(0.5, 1.5), tmp_path / "state.json"
    assert read_state(path) is None
    through = WatchedClassifier(model, "eager", share=0.5)
    through.predict(many[:100])
    write_state(through.monitor.state, path)
    through.predict(many[100:])
    again = WatchedClassifier(model, "eager", share=0.5, state=read_state(path))
    again.predict(many[100:])
    assert again.monitor.state == through.monitor.state


def test_a_point_that_is_full_depth_never_differs_from_it(with_point, many):
    """Computed in other batches numbers may differ in their last digits, which is proof against a bound of 0."""
    model = with_point(0.0, 1.0)
    whole = replace(model.point("eager"), thresholds=(None,) * 3)
    manifest = replace(model.manifest, operating_points=(whole,))
    model = AdaptiveClassifier([replace(model.tiers[0], manifest=manifest)])
    watched = WatchedClassifier(model, "eager", share=1.0)
    watched.predict(many)
    assert watched.alarms == [] and watched.monitor.state.risk.total == 0 < watched.monitor.state.risk.n


def test_numbers_that_differ_in_their_last_digits_are_the_same(with_point, many, monkeypatch):
    model = with_point(0.0, 1.5)
    monkeypatch.setattr(type(model.output), "apart", lambda *_: 1e-8)
    watched = WatchedClassifier(model, "eager", share=1.0)
    watched.predict(many)
    assert watched.alarms == [] and watched.monitor.state.risk.total == 0


def test_full_depth_promises_nothing_that_could_be_watched(with_point):
    with pytest.raises(UserError, match="promises nothing that could be watched"):
        WatchedClassifier(with_point(0.5, 1.5), "full")


def test_no_texts_are_no_news(with_point):
    watched = WatchedClassifier(with_point(0.5, 1.5), "eager")
    before = watched.monitor.state
    assert watched.predict([]) == [] and watched.monitor.state == before


def test_what_promises_nothing_or_another_state_is_refused(classifier, with_point, many, tmp_path):
    with pytest.raises(UserError, match="promises nothing"):
        WatchedClassifier(classifier, "balanced")
    with pytest.raises(UserError, match="share 0"):
        watch_of(with_point(0.5, 1.5).point("eager"), 0.0)
    state = WatchedClassifier(with_point(0.5, 1.5), "eager").monitor.state
    with pytest.raises(UserError, match="as it is now"):
        WatchedClassifier(with_point(0.4, 1.5), "eager", state=state)
    path = tmp_path / "broken.json"
    wrong = json.dumps(state.to_dict() | {"cost": {**state.to_dict()["cost"], "n": "x"}})
    few = json.dumps(state.to_dict() | {"cost": {**state.to_dict()["cost"], "stakes": [0.5]}})
    for text in ("{", "[]", '{"watch": 3}', wrong, few):
        path.write_text(text)
        with pytest.raises(UserError, match=r"broken\.json: not the state"):
            read_state(path)
    with pytest.raises(UserError, match="not the state"):
        read_state(tmp_path)
    with pytest.raises(UserError, match="not the state"):
        read_state(path / "below")


def test_what_is_expected_of_costs_is_counted_as_the_monitor_counts_them(with_point, many):
    """A mean of shares, which short texts raise, is not the share that all texts together cost."""
    point = with_point(0.9, 0.2).point("eager")
    assert watch_of(point).expected_cost == 0.2  # an older certificate
    assert watch_of(replace(point, certificate=replace(point.certificate, cost=0.3))).expected_cost == 0.3
    assert watched_costs(np.array([10, 90, 1000]), np.array([20, 100, 100])).tolist() == [0.5, 0.9, DEAREST]


def test_predict_keeps_the_state_between_calls_and_warns(with_point, many, tmp_path, monkeypatch, caplog):
    model, path = with_point(0.95, 0.1), tmp_path / "state.json"
    monkeypatch.setattr(ModelOptions, "open", lambda self, folder: model)
    monkeypatch.setattr(prediction, "answers_questions", lambda folder: False)
    predict("folder", many[:100], operating_point="eager", watch=path)
    assert read_state(path).cost.n == 100
    predict("folder", many[100:], operating_point="eager", watch=path)
    assert read_state(path).cost.n == 240
    assert "expected 0.10" in caplog.messages[-1]
    with pytest.raises(UserError, match="--watch goes with an operating point"):
        predict("folder", many, threshold=0.5, watch=path)
