"""`calibrate` from end to end on a tiny model: what it writes is what it tested, and a mistake writes nothing."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from tests.kit.machines import made_up_profile
from ziggurat.calibrate import (
    RISKS,
    PredictedTime,
    ProfiledCost,
    Promise,
    calibrate_model,
    calibration_rows,
    per_draw,
    run_all_rungs,
)
from ziggurat.calibrate import points as promises
from ziggurat.calibrate import rows as rows_module
from ziggurat.calibrate import times as calibration_time
from ziggurat.cli.calibrate import calibration_text
from ziggurat.data import DEFAULT_COLUMNS, Columns, Fractions, Role, as_dataset, load, split_roles
from ziggurat.encoder import MANIFEST, read_manifest, write_manifest, write_point
from ziggurat.engine.replay import replay
from ziggurat.errors import UserError
from ziggurat.measure import ModelOptions
from ziggurat.measure.evaluate import evaluate
from ziggurat.policies import ExitRule
from ziggurat.types import OperatingPoint

ENGINE = ModelOptions("cpu", backend="torch")
LOOSE = Promise({"loose": 0.5}, criterion="agreement")  # what even a random model keeps


@pytest.fixture(autouse=True)
def no_clock(monkeypatch):
    """A machine whose speed is known: predicted by a made-up profile, measured by counting rungs."""
    monkeypatch.setattr(calibration_time, "stored_profile", made_up_profile)


@pytest.fixture
def folder(copied, model_folder):
    return copied(model_folder)


@pytest.fixture
def row_by_row(folder):
    """A model whose recipe says that rows which share text are as good as drawn alone."""
    recipe = {"select": 0.1, "certify": 0.1, "grouped": False}
    write_manifest(replace(read_manifest(folder), training={"recipe": recipe}), folder)
    return folder


@pytest.fixture
def certified(folder, rows_file):
    return folder, calibrate_model(str(folder), str(rows_file), LOOSE, options=ENGINE).to_dict()


def test_a_certified_point_is_in_the_folder_with_its_evidence(certified, rows_file):
    folder, result = certified
    point = read_manifest(folder).operating_point("loose")
    [entry] = result["points"]
    assert entry["certified"] > 0 and entry["note"] is None
    assert json.loads(json.dumps(point.to_dict())) == json.loads(json.dumps(entry["point"]))
    proof = point.certificate
    assert (point.target, point.confidence, proof.criterion) == (0.5, 0.95, "agreement")
    rows = result["rows"]
    assert proof.rows == rows["certify"] and rows["certify"] + rows["order"] == 240 and rows["left_out"] == 0
    assert 50 < rows["order"] < 110
    assert proof.estimate < 0.5 and proof.reference is None
    assert (proof.engine, proof.dtype, proof.batch_size) == ("torch", "float32", 32)
    assert [one.name for one in read_manifest(folder).operating_points] == ["balanced", "fast", "loose"]


def test_the_engine_does_with_the_point_what_was_replayed(certified, rows_file):
    """Exits were replayed from a stored run; run for real, every row leaves where the replay said."""
    folder, result = certified
    classifier = ENGINE.open(str(folder))
    parts = calibration_rows(str(folder), classifier, str(rows_file), DEFAULT_COLUMNS, RISKS["agreement"])
    certify_rows = run_all_rungs(classifier, parts.certify, RISKS["agreement"], None, 32, False)
    rule = classifier.rule_of("loose")
    outcomes = classifier.run(certify_rows.encoded, rule)
    assert outcomes.rungs.tolist() == replay(certify_rows.runs[1.0].all_readings, rule).tolist()
    full = classifier.run(certify_rows.encoded, ExitRule.full_depth(4)).predictions
    lost = per_draw((outcomes.predictions != full).astype(float), parts.drawn, RISKS["agreement"]).mean()
    assert lost == pytest.approx(result["points"][0]["point"]["certificate"]["estimate"])


def test_pruning_is_really_run_and_every_strength_is_tried(copied, pruned_folder, rows_file):
    folder = copied(pruned_folder)
    classifier = ENGINE.open(str(folder))
    parts = calibration_rows(str(folder), classifier, str(rows_file), DEFAULT_COLUMNS, RISKS["accuracy"])
    certify_rows = run_all_rungs(classifier, parts.certify, RISKS["accuracy"], None, 32, False)
    assert set(certify_rows.runs) == {0.0, 0.5, 0.75, 1.0, 1.25}
    assert (certify_rows.losses[0.0][:, -1] == 0).all()
    assert (
        certify_rows.runs[1.0].token_counts.sum()
        < certify_rows.runs[0.5].token_counts.sum()
        < certify_rows.runs[0.0].token_counts.sum()
    )
    result = calibrate_model(str(folder), str(rows_file), Promise({"loose": 0.6}), options=ENGINE).to_dict()
    point = read_manifest(folder).operating_point("loose")
    rule = ENGINE.open(str(folder)).rule_of("loose")
    assert result["points"][0]["certified"] > 0
    assert (rule.tokens is None) == (point.pruning == 0)


def test_predicted_time_follows_exits_and_pruning(copied, pruned_folder, rows_file):
    classifier = ENGINE.open(str(pruned_folder))
    parts = calibration_rows(str(pruned_folder), classifier, str(rows_file), DEFAULT_COLUMNS, RISKS["accuracy"])
    search_rows = run_all_rungs(classifier, parts.search, RISKS["accuracy"], None, 32, False)
    time = PredictedTime(
        classifier, [ProfiledCost(made_up_profile(classifier))], search_rows.encoded, search_rows.runs, 32
    )
    n, asked = len(parts.search), (True, True, True, True)
    depths = [time.of(np.full(n, rung), asked, 0.0) for rung in range(4)]
    assert depths == sorted(depths) and len(set(depths)) == 4
    assert time.of(np.full(n, 3), asked, 1.0) < depths[3]
    assert time.of_full_depth(4) < depths[3]  # no head was asked


def test_where_nothing_passes_full_depth_says_how_many_rows_help(folder, rows_file, monkeypatch):
    def most_daring(paths, targets, *_):
        return {target: [max(paths, key=lambda path: path[-1].loss)[-1:]] for target in targets}

    monkeypatch.setattr(promises, "sequences", most_daring)
    result = calibrate_model(
        str(folder), str(rows_file), replace(LOOSE, targets={"bold": 0.05}), options=ENGINE
    ).to_dict()
    [entry] = result["points"]
    assert entry["certified"] == 0 and entry["tightest"] > 0.05
    assert f"{result['rows']['certify']} rows in {result['groups']} groups do not certify 5 points" in entry["note"]
    point = read_manifest(folder).operating_point("bold")
    assert set(point.thresholds) == {None} and point.pruning == 0 and point.certificate.estimate == 0


def test_exact_is_full_depth_unless_something_loses_nothing(folder, rows_file):
    result = calibrate_model(
        str(folder), str(rows_file), Promise({"exact": 0.0, "loose": 0.5}), options=ENGINE
    ).to_dict()
    exact, loose = (entry["point"] for entry in result["points"])
    assert exact["target"] == 0 and set(exact["thresholds"]) == {None}
    assert loose["certificate"]["criterion"] == "accuracy"


def test_a_cap_on_layers_is_part_of_the_promise(row_by_row, rows_file):
    folder = row_by_row
    promise = Promise({"capped": 0.9}, max_layers=2)
    calibrate_model(str(folder), str(rows_file), promise, options=ENGINE)
    classifier = ENGINE.open(str(folder))
    outcomes = classifier.run(classifier.encode(load(str(rows_file)).texts), classifier.rule_of("capped"))
    assert outcomes.rungs.max() <= 1
    impossible = replace(promise, targets={"impossible": 0.05})
    write_manifest(with_point(read_manifest(folder), "impossible"), folder)  # of an earlier promise
    [entry] = calibrate_model(str(folder), str(rows_file), impossible, options=ENGINE).to_dict()["points"]
    assert entry["point"] is None and entry["note"]
    assert "impossible" not in {point.name for point in read_manifest(folder).operating_points}
    with pytest.raises(UserError, match="after layer 1"):
        calibrate_model(str(folder), str(rows_file), replace(promise, max_layers=0), options=ENGINE)


def with_point(manifest, name):
    """The manifest with another point, that never leaves."""
    point = OperatingPoint(name, "entropy", (None,) * len(manifest.head_layers), manifest.fingerprint)
    return replace(manifest, operating_points=(*manifest.operating_points, point))


def test_losses_may_be_counted_from_another_model(folder, make_folder, rows_file):
    other = make_folder(head_kind="linear", head_layers=(2,))
    result = calibrate_model(
        str(folder), str(rows_file), replace(LOOSE, reference=str(other)), options=ENGINE
    ).to_dict()
    assert result["points"][0]["point"]["certificate"]["reference"] == str(other)
    pairs = make_folder(pairs=True)
    with pytest.raises(UserError, match="another question"):
        calibrate_model(str(folder), str(rows_file), replace(LOOSE, reference=str(pairs)), options=ENGINE)


def test_agreement_needs_no_labels_and_accuracy_does(folder, rows_file, tmp_path):
    bare = tmp_path / "bare.jsonl"
    lines = [json.loads(line)["text"] for line in rows_file.read_text().splitlines()]
    bare.write_text("".join(json.dumps({"text": text}) + "\n" for text in lines))
    assert calibrate_model(str(folder), str(bare), LOOSE, options=ENGINE).to_dict()["points"][0]["certified"] > 0
    refuses(folder, bare, replace(LOOSE, criterion="accuracy"), "needs labels")


def test_rows_seen_in_training_never_certify(folder, rows_file, monkeypatch):
    classifier = ENGINE.open(str(folder))
    recipe = {"recipe": {"select": 0.3, "certify": 0.3, "grouped": True}}
    classifier.manifest = replace(classifier.manifest, training=recipe)
    everything = load(str(rows_file))
    roles = split_roles(everything, Fractions(0.4, 0.3, 0.3, 0.0))
    used = np.concatenate([roles[Role.TRAIN].hashes, roles[Role.SELECT].hashes])
    monkeypatch.setattr(rows_module, "trained_rows", lambda path: used)
    monkeypatch.setattr(rows_module, "ENOUGH", 20)
    found = calibration_rows(str(folder), classifier, str(rows_file), DEFAULT_COLUMNS, RISKS["accuracy"])
    assert set(found.certify.texts) == set(roles[Role.CERTIFY].texts)
    assert set(found.search.texts) == set(roles[Role.SELECT].texts)
    assert found.left_out == len(roles[Role.TRAIN])
    monkeypatch.setattr(rows_module, "ENOUGH", 10_000)
    found = calibration_rows(str(folder), classifier, str(rows_file), DEFAULT_COLUMNS, RISKS["accuracy"])
    both = {*found.search.texts, *found.certify.texts}
    assert both == set(roles[Role.CERTIFY].texts) and not {*found.search.texts} & {*found.certify.texts}


def refuses(folder, source, promise, message, columns=DEFAULT_COLUMNS):
    """That this is a user's mistake, and that the folder is untouched."""
    before = (folder / MANIFEST).read_bytes()
    with pytest.raises(UserError, match=message):
        calibrate_model(str(folder), str(source), promise, columns, ENGINE)
    assert (folder / MANIFEST).read_bytes() == before


def test_bad_rows_are_refused_and_nothing_is_written(folder, rows_file, tmp_path, monkeypatch):
    refuses(folder, rows_file, Promise({"bold": 0.01}), "even without a mistake")
    few = tmp_path / "few.jsonl"
    few.write_text("".join(rows_file.read_text().splitlines(True)[:2]))
    refuses(folder, few, LOOSE, "needs|some hundred")
    one_class = tmp_path / "one.jsonl"
    lines = [line for line in rows_file.read_text().splitlines(True) if '"river"' not in line]
    one_class.write_text("".join(lines))
    refuses(folder, one_class, Promise({"loose": 0.5}), "none of the .* has label 'river'")
    refuses(folder, rows_file, replace(LOOSE, criterion="luck"), "criterion 'luck'")
    refuses(folder, rows_file, replace(LOOSE, scores=("guess",)), "exit score 'guess'")
    refuses(folder, rows_file, LOOSE, "column", Columns(text="nope"))
    hashes = calibration_rows(
        str(folder), ENGINE.open(str(folder)), str(rows_file), DEFAULT_COLUMNS, RISKS["agreement"]
    )
    used = np.concatenate([hashes.search.hashes, hashes.certify.hashes])
    monkeypatch.setattr(rows_module, "trained_rows", lambda path: used)
    refuses(folder, rows_file, LOOSE, "all 240 rows trained the model")


@pytest.mark.parametrize("wrong", [{"targets": {"a": 0.0}}, {"targets": {"a": 1.0}}, {"targets": {"a": -0.1}}])
def test_a_drop_must_be_a_share(wrong):
    with pytest.raises(UserError, match="more than 0 and less than 1"):
        Promise(**wrong)


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95.0, float("nan")])
def test_confidence_must_be_a_share(confidence):
    with pytest.raises(UserError, match="between 0 and 1"):
        Promise(confidence=confidence)


def test_a_name_that_would_be_a_file_is_no_name_for_a_point():
    with pytest.raises(UserError, match=r"may not end in \.json"):
        Promise({"p.json": 0.01})


def test_full_is_no_name_for_a_point():
    with pytest.raises(UserError, match="taken"):
        Promise({"full": 0.1})


def test_a_point_may_live_in_a_file_of_its_own(certified, rows_file, tmp_path):
    folder, _ = certified
    classifier = ENGINE.open(str(folder))
    path = tmp_path / "loose.json"
    write_point(read_manifest(folder).operating_point("loose"), path)
    texts = load(str(rows_file)).texts[:20]
    from_file, by_name = (classifier.answer(texts, point) for point in (str(path), "loose"))
    assert [one.label for one in from_file] == [one.label for one in by_name]
    write_point(replace(read_manifest(folder).operating_point("loose"), fingerprint="0" * 64), path)
    with pytest.raises(UserError, match="other weights"):
        classifier.answer(texts, str(path))
    with pytest.raises(UserError, match="no such file"):
        classifier.answer(texts, str(tmp_path / "absent.json"))


def test_eval_states_the_promise_and_what_breaks_it(certified, rows_file):
    folder, _ = certified
    result = evaluate(str(folder), str(rows_file), "loose", options=ENGINE, timed_texts=8).to_dict()
    assert result["promise"]["target"] == 0.5 and result["promise"]["broken"] is None
    other = evaluate(
        str(folder), str(rows_file), "loose", options=replace(ENGINE, dtype="bfloat16"), timed_texts=8
    ).to_dict()
    assert "in bfloat16 it promises nothing" in other["promise"]["broken"]
    assert evaluate(str(folder), str(rows_file), "fast", options=ENGINE, timed_texts=8).to_dict()["promise"] is None


def test_a_setting_that_is_slower_when_it_runs_is_not_believed(folder, rows_file, monkeypatch):
    from ziggurat.calibrate import points as calibration_points
    from ziggurat.measure import Timing

    slow = {"None": Timing((1.0,) * 5), "loose": Timing((2.0,) * 5)}
    monkeypatch.setattr(calibration_points, "interleave", lambda calls, progress=None: slow)
    [entry] = calibrate_model(str(folder), str(rows_file), LOOSE, options=ENGINE).to_dict()["points"]
    assert entry["certified"] > 0 and "2.00x full depth's time" in entry["note"]
    assert set(read_manifest(folder).operating_point("loose").thresholds) == {None}
    [entry] = calibrate_model(
        str(folder), str(rows_file), replace(LOOSE, reference=str(folder)), options=ENGINE
    ).to_dict()["points"]
    assert entry["certified"] > 0 and entry["note"] is None  # what full depth loses against another was not tested


def test_other_points_of_the_folder_stay(certified, rows_file):
    folder, _ = certified
    manifest = read_manifest(folder)
    write_manifest(manifest, folder)
    calibrate_model(str(folder), str(rows_file), replace(LOOSE, targets={"loose": 0.6}), options=ENGINE)
    after = read_manifest(folder)
    assert [one.name for one in after.operating_points] == [one.name for one in manifest.operating_points]
    assert after.operating_point("balanced") == manifest.operating_point("balanced")
    assert after.operating_point("loose").target == 0.6


@pytest.mark.parametrize("parts", [True, False])
def test_parts_of_training_texts_are_counted_and_reported(folder, tmp_path, monkeypatch, parts):
    rng = np.random.default_rng(0)
    long = [" ".join(rng.choice(["bat", "kin", "lot", "mur", "nesh", "pond", "rass"], 20)) for _ in range(120)]
    fresh = [" ".join(text.split()[4:14]) for text in long] if parts else [f"bat {n} kin {n} lot" for n in range(120)]
    names = [("river", "stone", "tower")[n % 3] for n in range(120)]
    path = tmp_path / "rows.jsonl"
    path.write_text(
        "\n".join(json.dumps({"text": t, "label": n}) for t, n in zip(long + fresh, names * 2, strict=True))
    )
    hashes = as_dataset(load(str(path)), Role.TEST, ("river", "stone", "tower")).hashes
    monkeypatch.setattr(rows_module, "trained_rows", lambda _: hashes[:120])
    result_record = calibrate_model(str(folder), str(path), LOOSE, options=ENGINE)
    result = result_record.to_dict()
    assert result["overlap"] == (1.0 if parts else 0.0)
    assert ("warning: 100% of the certifying texts are parts" in calibration_text(result_record)) == parts


def stories(folder_of, n: int = 60) -> str:
    """A file of rows of which every four are one sentence and phrases of it; where it is."""
    rng, lines = np.random.default_rng(3), []
    for number in range(n):
        words = [f"own{number}", *rng.choice(["bat", "kin", "lot", "mur", "nesh", "pond", "rass"], 11)]
        label = ("river", "stone", "tower")[number % 3]
        parts = (words, words[:6], words[:4], words[:1])
        lines += [json.dumps({"text": " ".join(part), "label": label}) for part in parts]
    path = folder_of / "stories.jsonl"
    path.write_text("\n".join(lines))
    return str(path)


@pytest.mark.parametrize("grouped", [True, False, None])
def test_rows_that_share_text_order_or_certify_together(folder, tmp_path, monkeypatch, grouped):
    classifier, source = ENGINE.open(str(folder)), stories(tmp_path)
    shares = {"select": 0.3, "certify": 0.3} | ({} if grouped is None else {"grouped": grouped})
    classifier.manifest = replace(classifier.manifest, training={"recipe": shares})
    everything = load(source)
    roles = split_roles(everything, Fractions(0.4, 0.3, 0.3, 0.0), grouped=bool(grouped))
    used = np.concatenate([roles[Role.TRAIN].hashes, roles[Role.SELECT].hashes])
    monkeypatch.setattr(rows_module, "trained_rows", lambda path: used)
    monkeypatch.setattr(rows_module, "ENOUGH", 20)
    found = calibration_rows(str(folder), classifier, source, DEFAULT_COLUMNS, RISKS["accuracy"])
    assert set(found.search.texts) == set(roles[Role.SELECT].texts)  # as the folder's rows were shared out
    assert (found.overlap > 0.3) == (not grouped)
    monkeypatch.setattr(rows_module, "trained_rows", lambda path: used[:0])
    found = calibration_rows(str(folder), classifier, source, DEFAULT_COLUMNS, RISKS["accuracy"])
    first = [{text.split()[0] for text in part.texts} for part in (found.search, found.certify)]
    assert not first[0] & first[1] and found.groups == len(first[1])


def test_rows_that_share_text_are_one_draw(folder, tmp_path):
    result_record = calibrate_model(str(folder), stories(tmp_path), LOOSE, options=ENGINE)
    result = result_record.to_dict()
    rows, groups = result["rows"]["certify"], result["groups"]
    assert result["grouped"] and rows == 4 * groups
    assert f"{rows:,} rows in {groups:,} groups certify" in calibration_text(result_record)
    assert "a mean over groups" in calibration_text(result_record)
    proof = read_manifest(folder).operating_point("loose").certificate
    assert (proof.rows, proof.groups) == (rows, groups)
    assert proof.estimate * groups == pytest.approx(round(proof.estimate * groups))  # of each group one row
    evaluated = evaluate(str(folder), stories(tmp_path), "loose", options=ENGINE, timed_texts=8).to_dict()
    assert evaluated["promise"]["groups"] == groups
    few = f"{rows} rows in {groups} groups by the text that they share are left"
    refuses(folder, stories(tmp_path), Promise({"bold": 0.05}), few)  # as rows they would be enough


def test_rows_count_one_by_one_if_the_recipe_says_so(row_by_row, tmp_path):
    result_record = calibrate_model(str(row_by_row), stories(tmp_path), LOOSE, options=ENGINE)
    result = result_record.to_dict()
    assert not result["grouped"] and result["groups"] < result["rows"]["certify"]
    assert f"rows are {result['groups']:,} by the text that they share" in calibration_text(result_record)
    assert read_manifest(row_by_row).operating_point("loose").certificate.groups is None


def test_rows_that_share_nothing_are_certified_one_by_one(folder, tmp_path):
    path = tmp_path / "alone.jsonl"
    names = ("river", "stone", "tower")
    path.write_text(
        "".join(json.dumps({"text": f"bat{n} kin{n} lot{n}", "label": names[n % 3]}) + "\n" for n in range(240))
    )
    result_record = calibrate_model(str(folder), str(path), LOOSE, options=ENGINE)
    result = result_record.to_dict()
    assert result["groups"] == result["rows"]["certify"] and not result["grouped"]
    assert "group" not in calibration_text(result_record)
    assert read_manifest(folder).operating_point("loose").certificate.groups is None
