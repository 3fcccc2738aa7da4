"""Small models and cascades from rows to certified points, as the commands make and use them."""

from __future__ import annotations

import dataclasses
import json
import shutil

import numpy as np
import pytest

from tests.kit.machines import made_up_profile
from ziggurat.calibrate import PredictedTime, ProfiledCost, Promise, SmallCost, StoredRun, calibrate_model, costs_of
from ziggurat.calibrate import calibrate as certifying
from ziggurat.calibrate import points as calibration_points
from ziggurat.calibrate import times as calibration_time
from ziggurat.cli.training import training_text
from ziggurat.data import Fractions, Role, load, split_roles
from ziggurat.encoder import read_manifest, trained_rows
from ziggurat.engine import OpenedModel
from ziggurat.errors import UserError
from ziggurat.explain.explain import explain
from ziggurat.measure import ModelOptions, Timing
from ziggurat.measure.evaluate import evaluate
from ziggurat.measure.information import information
from ziggurat.policies import ExitRule
from ziggurat.recipe import Recipe, SmallConfig
from ziggurat.serve.predict import predict
from ziggurat.training import TrainOptions, make_cascade, small, train_model
from ziggurat.training import train as train_job
from ziggurat.training.small import Teacher, lesson_of

QUIET = TrainOptions(device="cpu", progress=False, mixed_precision=False)
ENGINE = ModelOptions("cpu")
SHARES = Fractions(0.7, 0.1, 0.2, 0.0)  # a tenth of 240 rows would certify by luck alone


@pytest.fixture(autouse=True)
def no_clock(monkeypatch):
    monkeypatch.setattr(calibration_time, "stored_profile", made_up_profile)


@pytest.fixture(scope="module")
def teacher(rows_file, tiny_recipe, tiny_checkpoint, tmp_path_factory):
    out = tmp_path_factory.mktemp("teacher") / "model"
    shares = dataclasses.replace(QUIET, certify=SHARES.certify)
    train_model(str(rows_file), out, str(tiny_recipe), str(tiny_checkpoint), shares)
    return out


@pytest.fixture(scope="module")
def taught(rows_file, teacher, tmp_path_factory):
    out = tmp_path_factory.mktemp("taught") / "model"
    return out, train_model(str(rows_file), out, "static", options=QUIET, teacher=str(teacher))


def test_a_static_model_says_what_its_teacher_says(taught, teacher, rows_file):
    texts = load(str(rows_file)).texts
    student, theirs = (OpenedModel.from_pretrained(f, "cpu").answer(texts, "full") for f in (taught[0], teacher))
    assert len({answer.label for answer in theirs}) == 3
    assert np.mean([a.label == b.label for a, b in zip(student, theirs, strict=True)]) > 0.85


def test_it_has_seen_its_own_rows_and_its_teachers(taught, teacher, rows_file):
    out, summary = taught
    roles, seen = split_roles(load(str(rows_file)), SHARES), trained_rows(out)
    assert np.isin(trained_rows(teacher), seen).all()
    assert np.isin(roles[Role.TRAIN].hashes, seen).all() and np.isin(roles[Role.SELECT].hashes, seen).all()
    assert not np.isin(roles[Role.CERTIFY].hashes, seen).any()
    manifest = read_manifest(out)
    assert manifest.kind == "static" and manifest.training["teacher"] == read_manifest(teacher).fingerprint
    assert [point.name for point in summary.operating_points] == ["exact", "balanced", "fast"]


def test_without_a_teacher_labels_are_learned(rows_file, tiny_checkpoint, tmp_path):
    train_model(str(rows_file), tmp_path / "m", "static", str(tiny_checkpoint), QUIET)
    rows = split_roles(load(str(rows_file)), SHARES)[Role.CERTIFY]
    answers = OpenedModel.from_pretrained(tmp_path / "m").answer(rows.texts)
    assert np.mean([a.label == rows.label_names[i] for a, i in zip(answers, rows.labels, strict=True)]) > 0.8


def test_rows_without_labels_need_a_teacher(rows_file, model_folder, tiny_checkpoint, tmp_path):
    bare = tmp_path / "bare.jsonl"
    bare.write_text("\n".join(json.dumps({"text": text}) for text in load(str(rows_file)).texts))
    with pytest.raises(UserError, match="label"):
        train_model(str(bare), tmp_path / "m", "static", str(tiny_checkpoint), QUIET)
    train_model(str(bare), tmp_path / "m", "static", None, QUIET, str(model_folder))
    assert read_manifest(tmp_path / "m").labels == read_manifest(model_folder).labels


def test_labels_have_their_share_where_there_are_any(rows_file, teacher):
    roles = split_roles(load(str(rows_file)), SHARES)
    rows, select = roles[Role.TRAIN], roles[Role.SELECT]
    some = dataclasses.replace(rows, labels=np.where(np.arange(len(rows)) % 2, rows.labels, -1))
    opened = Teacher(teacher, OpenedModel.from_pretrained(teacher, "cpu"))

    def targets(weight: float) -> np.ndarray:
        recipe = Recipe("r", "d", small=SmallConfig(label_weight=weight))
        return lesson_of(recipe, some, select, opened.model.tokenizer, opened, opened.model.problem, False).targets

    soft, half = targets(0.0), targets(0.5)
    assert np.allclose(half[::2], soft[::2])
    assert np.allclose(half[1::2], (soft[1::2] + np.eye(3)[rows.labels[1::2]]) / 2)
    assert np.allclose(half.sum(axis=1), 1)


def test_a_teacher_of_other_labels_is_refused(rows_file, make_static, make_folder, tmp_path):
    other = make_folder(labels=("river", "stone", "hill"))
    with pytest.raises(UserError, match="tower"):
        train_model(str(rows_file), tmp_path / "m", "static", None, QUIET, str(other))
    assert not (tmp_path / "m").exists()


@pytest.fixture
def cascade(taught, teacher, tmp_path):
    return tmp_path / "cascade", make_cascade([str(taught[0]), str(teacher)], tmp_path / "cascade")


def test_a_cascade_is_calibrated_evaluated_and_explained(cascade, rows_file, tmp_path):
    folder, built = cascade
    assert built.tiers == ("static", "encoder")
    promise = Promise({"loose": 0.5}, criterion="agreement")
    result = calibrate_model(
        str(folder), str(rows_file), promise, options=ENGINE, html=tmp_path / "page.html"
    ).to_dict()
    point = read_manifest(folder).operating_point("loose")
    assert len(point.thresholds) == 4 and point.certificate.gain > 0
    assert point.batch_sizes[0] == 1024 and point.batch_sizes[1] in (1, 8, 32, 128)
    assert result["points"][0]["certified"] > 0
    assert (tmp_path / "page.html").stat().st_size > 10_000
    report = evaluate(str(folder), str(rows_file), "loose", options=ENGINE).to_dict()
    assert sum(report["exit_histogram"].values()) == 240
    assert report["flops_ratio"] > 1 and report["bops_ratio"] > 1
    assert information(str(folder)).tiers[0].architecture == "static"
    (answer,) = predict(str(folder), ["bat kin"], operating_point="loose", options=ENGINE).to_dict()["answers"]
    explained = explain(str(folder), "bat kin", "loose", options=ENGINE).to_dict()
    assert explained["label"] == answer["label"] and explained["layers"] == answer["layers"]
    assert [rung["rung"] for rung in explained["rungs"]][-1] in ("static", *(f"layer {n}" for n in range(1, 5)))


def test_the_point_does_what_was_replayed(cascade, rows_file):
    folder, _ = cascade
    calibrate_model(str(folder), str(rows_file), Promise({"loose": 0.5}, criterion="agreement"), options=ENGINE)
    classifier = OpenedModel.from_pretrained(folder, "cpu")
    rule = classifier.rule_of("loose")
    encoded = classifier.encode(load(str(rows_file)).texts)
    outcomes = classifier.run(encoded, rule)
    every = classifier.every_rung(encoded, tokens=rule.tokens)
    chosen = every.readings[np.arange(len(encoded)), outcomes.rungs]
    np.testing.assert_allclose(outcomes.readings, chosen, atol=1e-4)
    ran = classifier.ran(encoded, every.token_counts, outcomes.rungs, rule)
    assert np.array_equal(ran, outcomes.token_counts)
    spent = classifier.flops(encoded, outcomes.token_counts, rule)[np.arange(len(encoded)), outcomes.rungs]
    assert np.array_equal(
        spent, classifier.flops(encoded, every.token_counts, rule)[np.arange(len(encoded)), outcomes.rungs]
    )


def test_predicted_time_charges_a_tier_for_what_reaches_it(cascade, rows_file):
    classifier = OpenedModel.from_pretrained(cascade[0], "cpu")
    encoded = classifier.encode(load(str(rows_file)).texts)
    every = classifier.every_rung(encoded)
    n = len(encoded)
    costs = [SmallCost(1e-7), ProfiledCost(made_up_profile(OpenedModel([classifier.tiers[1]])))]
    time = PredictedTime(classifier, costs, encoded, {0.0: StoredRun(every.readings, every.token_counts, 0.0)}, 32)
    asked = (True, False, False, False, True)
    first, last = (time.of(np.full(n, rung), asked, 0.0) for rung in (0, 4))
    assert first == pytest.approx(1e-7 * encoded.lengths.mean())
    assert last == pytest.approx(first + time.of_full_depth(5))
    half = time.of(np.where(np.arange(n) % 2, 4, 0), asked, 0.0)
    assert first < half < last
    assert time.of(np.full(n, 4), ExitRule.full_depth(5).active, 0.0) < last  # the first tier is left out
    assert np.all(np.diff(time.saved) < 0) and time.saved[0] == pytest.approx(1.0) and time.saved[-1] == 0


def test_small_tiers_are_timed_and_encoders_profiled(cascade, rows_file):
    classifier = OpenedModel.from_pretrained(cascade[0], "cpu")
    costs = costs_of(classifier, classifier.encode(load(str(rows_file)).texts), 32)
    assert isinstance(costs[0], SmallCost) and costs[0].per_token > 0
    assert isinstance(costs[1], ProfiledCost)


def test_a_cascade_resumes_with_its_own_last_tier_only(rows_file, tiny_recipe, tiny_checkpoint, tmp_path, monkeypatch):
    recipe, out = tmp_path / "tango.toml", tmp_path / "out"
    recipe.write_text('tiers = ["nope"]\n' + tiny_recipe.read_text())
    with pytest.raises(UserError, match="'nope'"):  # and nothing was trained before that was found out
        train_model(str(rows_file), out, str(recipe), str(tiny_checkpoint), QUIET)
    recipe.write_text('tiers = ["early-exit"]\n' + tiny_recipe.read_text())
    with pytest.raises(UserError, match="makes no student"):
        train_model(str(rows_file), out, str(recipe), str(tiny_checkpoint), QUIET)
    assert not (tmp_path / "out.tiers").exists()

    recipe.write_text('tiers = ["static"]\n' + tiny_recipe.read_text())
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(train_job, "write_cascade", interrupted)
        train_model(str(rows_file), out, str(recipe), str(tiny_checkpoint), QUIET)
    fewer = tmp_path / "fewer.jsonl"
    fewer.write_text("".join(rows_file.read_text().splitlines(keepends=True)[:-5]))
    with pytest.raises(UserError, match="holds an unfinished run with another data"):
        train_model(str(fewer), out, str(recipe), str(tiny_checkpoint), QUIET)
    other = shutil.copytree(tiny_checkpoint, tmp_path / "other")
    with pytest.raises(UserError, match="holds an unfinished run with another model"):
        train_model(str(rows_file), out, str(recipe), str(other), QUIET)
    with monkeypatch.context() as patch:
        patch.setattr(train_job, "fit_roles", interrupted)  # both tiers are there
        train_model(str(rows_file), out, str(recipe), str(tiny_checkpoint), QUIET)
    assert out.exists()


def test_rows_that_fitted_the_deferral_score_still_certify(taught, teacher, tmp_path, monkeypatch):
    """README's own sequence: the same file for `cascade --data` and for `calibrate`."""
    rng = np.random.default_rng(0)
    words = ["bat", "kin", "lot", "mur", "nesh", "polm", "rass"]
    rows = tmp_path / "fresh.jsonl"
    texts = [" ".join(rng.choice(words, 12)) for _ in range(600)]
    rows.write_text("".join(json.dumps({"text": text, "label": "river"}) + "\n" for text in texts))
    out = tmp_path / "cascade"
    built = make_cascade([str(taught[0]), str(teacher)], out, str(rows), options=ENGINE)
    promise = Promise({"loose": 0.5}, criterion="agreement")
    found = calibrate_model(str(out), str(rows), promise, options=ENGINE).to_dict()["rows"]
    assert built.rows_fitted + found["order"] + found["certify"] == 600
    assert min(built.rows_fitted, found["order"]) > 100 and found["certify"] > 200


def test_a_small_model_is_there_with_its_points_or_not_at_all(rows_file, teacher, unlabelled, tmp_path, monkeypatch):
    recipe, out = tmp_path / "small.toml", tmp_path / "out"
    for setting, data, says in (
        ('exit_score = "entropi"', rows_file, "'entropi'"),
        ("temperatures = true", unlabelled, "temperatures are fitted to labels"),
    ):
        recipe.write_text(f'name = "s"\ndescription = "d"\n{setting}\n[small]\nkind = "static"\n')
        with pytest.raises(UserError, match=says):
            train_model(str(data), out, str(recipe), None, QUIET, str(teacher))
    monkeypatch.setattr(small, "with_operating_points", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train_model(str(rows_file), out, "static", None, QUIET, str(teacher))
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["small.toml", unlabelled.name])


def interrupted(*_, **__):
    raise KeyboardInterrupt


def test_the_tango_recipe_builds_a_cascade_from_rows(rows_file, tiny_recipe, tiny_checkpoint, tmp_path):
    recipe = tmp_path / "tango.toml"
    recipe.write_text('tiers = ["static"]\ntemperatures = true\n' + tiny_recipe.read_text())
    out = tmp_path / "out"
    options = dataclasses.replace(QUIET, keep_stages=True)
    made = train_model(str(rows_file), out, str(recipe), str(tiny_checkpoint), options)
    kept = sorted(path.name for path in (tmp_path / "out.stages").iterdir())
    assert kept == ["1-regular", "2-heads"]
    classifier = OpenedModel.from_pretrained(out)
    assert [tier.manifest.kind for tier in classifier.tiers] == ["static", "encoder"]
    assert [point.name for point in made.operating_points] == ["exact", "balanced", "fast"]
    assert not (tmp_path / "out.tiers").exists()
    rows = split_roles(load(str(rows_file)), SHARES)[Role.CERTIFY]
    answers = classifier.answer(rows.texts, "fast")
    assert np.mean([a.label == rows.label_names[i] for a, i in zip(answers, rows.labels, strict=True)]) > 0.7
    assert sum(answer.trace.rung == 0 for answer in answers) > 0


def test_a_bilstm_learns_from_copies_that_its_teacher_labels(rows_file, teacher, tmp_path, monkeypatch):
    recipe = tmp_path / "small.toml"
    recipe.write_text(
        'name = "s"\ndescription = "d"\n[small]\nkind = "bilstm"\nepochs = 2\n[augment]\ncopies = 2\nneighbours = 3\n'
    )
    out = tmp_path / "out"
    made = train_model(str(rows_file), out, str(recipe), options=QUIET, teacher=str(teacher))
    assert f"learned from {made.copies.copies} changed copies" in training_text(made)
    manifest = read_manifest(out)
    assert manifest.kind == "bilstm" and 100 < manifest.training["copies"]["copies"] <= 400
    texts = load(str(rows_file)).texts
    student, theirs = (OpenedModel.from_pretrained(f, "cpu").answer(texts, "full") for f in (out, teacher))
    assert np.mean([a.label == b.label for a, b in zip(student, theirs, strict=True)]) > 0.4
    assert student[0].trace.flops > 0
    with pytest.raises(UserError, match="--teacher"):
        train_model(str(rows_file), tmp_path / "m", str(recipe), options=QUIET)


@pytest.mark.parametrize(("per_token", "asked"), [(1e-9, True), (1e-3, False)])
def test_a_first_tier_is_asked_only_where_it_pays(cascade, rows_file, per_token, asked, monkeypatch):
    profile = made_up_profile(OpenedModel([OpenedModel.from_pretrained(cascade[0], "cpu").tiers[1]]))
    monkeypatch.setattr(certifying, "costs_of", lambda *_: [SmallCost(per_token), ProfiledCost(profile)])
    monkeypatch.setattr(calibration_points, "interleave", lambda calls, progress=None: predicted(calls))
    calibrate_model(str(cascade[0]), str(rows_file), Promise({"loose": 0.5}, criterion="agreement"), options=ENGINE)
    point = read_manifest(cascade[0]).operating_point("loose")
    assert any(threshold is not None for threshold in point.thresholds)
    assert (point.thresholds[0] is not None) == asked


def predicted(calls) -> dict[str, Timing]:
    """Full depth is slow, everything else fast, whatever the machine does."""
    return {name: Timing((1.0 if name == "None" else 0.1,) * 5) for name in calls}
