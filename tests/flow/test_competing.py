"""`compare` from end to end on a tiny model, and where its calibration texts come from."""

import dataclasses
import json

import numpy as np
import pytest

from ziggurat.bench import KINDS, Entry, PeerKind, calibration_of
from ziggurat.bench import compare as competing
from ziggurat.bench.compare import Rules, compare
from ziggurat.data import DEFAULT_COLUMNS, load
from ziggurat.encoder import read_manifest, write_cascade, write_manifest
from ziggurat.engine import OpenedModel
from ziggurat.errors import UserError
from ziggurat.measure import ModelOptions, read_rows_file, rows_to_measure, sample
from ziggurat.measure.evaluate import evaluate
from ziggurat.types import OperatingPoint

QUICK = Rules((1, 4), timed_texts=8, search_texts=6, scored_texts=40, repeats=2, only=("transformersSDPAfloat32",))


@pytest.fixture(scope="module")
def result(model_folder, rows_file, tmp_path_factory):
    out = tmp_path_factory.mktemp("peers") / "rows.jsonl"
    absent = PeerKind("Absent", "int8", ("no_such_module",), lambda setting: [], calibrated=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(competing, "our_engines", lambda: [("torch", "float32"), ("torch", "bfloat16")])
        patch.setattr(competing, "KINDS", (*KINDS[:1], absent))
        rules = QUICK.__class__(**{**vars(QUICK), "only": ()})
        return compare(str(model_folder), str(rows_file), rules, ["balanced"], out=out).to_dict(), out


def test_rows_cover_all_systems_orders_and_ways_of_timing(result):
    systems = {(row["what"], row["dtype"]) for row in result[0]["rows"]}
    ours = {(f"ziggurat {point}", dtype) for point in ("full depth", "balanced") for dtype in ("float32", "bfloat16")}
    assert systems == ours | {("transformers SDPA", "float32")}
    ways = {(row["timed"], row["order"], "latency_ms_p50" in row) for row in result[0]["rows"]}
    assert len(ways) == 8
    assert len(result[0]["rows"]) == 8 * len(systems)


def test_rows_are_kept_and_say_what_was_compared(result):
    rows, out = result[0]["rows"], result[1]
    assert read_rows_file(out) == json.loads(json.dumps(rows))
    for row in rows:
        assert row["padding"] == (row["order"] if row["peer"] else "packed")
        assert ("over" in row) == (not row["peer"])
        if "latency_ms_p50" in row:
            assert row["batch"] == 1 and row["latency_ms_p50"] <= row["latency_ms_p95"]
    unit = [
        row for row in rows if (row["what"], row["dtype"], row["order"]) == ("ziggurat full depth", "float32", "sorted")
    ]
    assert [row["time_gain"] for row in unit] == [1.0] * 4
    over = unit[0]["over"]
    assert set(over) == {"transformers SDPA float32, as it comes", "transformers SDPA float32, sorted"}
    assert all(low <= median <= high for median, low, high in over.values())


def test_full_depth_and_transformers_are_equally_right(result):
    rows = result[0]["rows"]
    right = {row["accuracy"] for row in rows if row["dtype"] == "float32" and row["what"] != "ziggurat balanced"}
    assert len(right) == 1
    assert all(row["n_accuracy"] == 40 for row in rows)


def test_what_is_not_installed_is_named(result):
    [left] = result[0]["left_out"]
    assert left["reason"] == "no_such_module not installed: pip install '.[bench]' in Ziggurat's folder"


@pytest.fixture(scope="module")
def classifier(model_folder):
    return OpenedModel.from_pretrained(model_folder, device="cpu")


def test_calibration_texts_are_neither_timed_nor_scored(result, classifier, model_folder, rows_file):
    data = rows_to_measure(classifier, str(rows_file))
    chosen = calibration_of(str(model_folder), classifier, data, 30, None, DEFAULT_COLUMNS)
    assert len(chosen.rows) == 30
    assert not np.isin(chosen.rows.hashes, chosen.measured.hashes).any()
    assert len(chosen.measured) <= len(data) - 30
    assert chosen.origin == f"30 rows of {rows_file}, neither timed nor scored"
    assert result[0]["calibration"] == f"{len(data) // 4} rows of {rows_file}, neither timed nor scored"


def test_calibration_prefers_rows_that_trained_the_model(classifier, model_folder, rows_file, tmp_path, monkeypatch):
    from dataclasses import replace

    lines = rows_file.read_text().splitlines(keepends=True)
    (tmp_path / "train.jsonl").write_text("".join(lines[:200]))
    (tmp_path / "test.jsonl").write_text("".join(lines[150:]))
    trained = rows_to_measure(classifier, str(tmp_path / "train.jsonl"))
    monkeypatch.setattr("ziggurat.bench.int8_texts.trained_rows", lambda folder: trained.hashes[:180])
    manifest = replace(classifier.manifest, training={"data": {"source": str(tmp_path / "train.jsonl")}})
    knowing = OpenedModel([dataclasses.replace(classifier.tiers[0], manifest=manifest)])
    data = rows_to_measure(classifier, str(tmp_path / "test.jsonl"))
    chosen = calibration_of(str(model_folder), knowing, data, 1000, None, DEFAULT_COLUMNS)
    assert chosen.measured is data
    assert "that trained the model" in chosen.origin
    assert 0 < len(chosen.rows) <= 150
    assert not np.isin(chosen.rows.hashes, data.hashes).any()
    assert np.isin(chosen.rows.hashes, trained.hashes[:180]).all()


def test_given_calibration_rows_must_be_others(classifier, model_folder, rows_file, tmp_path):
    data = rows_to_measure(classifier, str(rows_file))
    with pytest.raises(UserError, match="calibrate with other rows"):
        calibration_of(str(model_folder), classifier, data, 30, str(rows_file), DEFAULT_COLUMNS)
    (tmp_path / "other.jsonl").write_text('{"text": "bat kin bat bat"}\n' + rows_file.read_text().split("\n")[0])
    chosen = calibration_of(str(model_folder), classifier, data, 30, str(tmp_path / "other.jsonl"), DEFAULT_COLUMNS)
    assert chosen.rows.texts == ["bat kin bat bat"]


def test_peers_are_for_cpus_and_numbers_are_checked(model_folder, rows_file):
    assert load(str(rows_file)).labels
    with pytest.raises(UserError, match="on the CPU"):
        compare(str(model_folder), str(rows_file), options=ModelOptions(device="cuda"))
    with pytest.raises(UserError, match="at least 1"):
        compare(str(model_folder), str(rows_file), Rules((0,)))


@pytest.fixture
def short_cascade(make_static, pruned_folder, tmp_path):
    """Its first tier reads with a tokenizer of its own, so it needs the texts; a point leaves half of them there."""
    write_cascade([make_static(max_length=6), pruned_folder], tmp_path / "cascade")
    manifest = read_manifest(tmp_path / "cascade")
    point = OperatingPoint("halfway", "margin", (0.4, *[None] * 3), manifest.fingerprint)
    write_manifest(dataclasses.replace(manifest, operating_points=(point,)), tmp_path / "cascade")
    return tmp_path / "cascade"


def test_a_cascade_competes_whole_and_peers_with_its_last_tier(short_cascade, rows_file, monkeypatch):
    monkeypatch.setattr(competing, "our_engines", lambda: [("torch", "float32")])
    monkeypatch.setattr(competing, "KINDS", KINDS[:1])
    rows = compare(str(short_cascade), str(rows_file), QUICK).to_dict()["rows"]
    judged = evaluate(str(short_cascade), str(rows_file), "halfway", options=ModelOptions(device="cpu")).to_dict()
    classifier = OpenedModel.from_pretrained(short_cascade, "cpu", backend="torch")
    scored = rows_to_measure(classifier, str(rows_file)).take(sample(240, 40))
    answers = classifier.run(classifier.encode(scored.texts), classifier.rule_of("halfway"))
    assert 0 < (answers.rungs == 0).sum() < 40 and judged["flops_ratio"] > 1
    mine = {row["accuracy"] for row in rows if row["what"] == "ziggurat halfway"}
    assert mine == {(answers.predictions == scored.classes).mean()}
    whole = {row["accuracy"] for row in rows if row["what"] != "ziggurat halfway"}
    assert len(whole) == 1
    assert len(rows) == 8 * 3


@pytest.mark.parametrize("order", ["as it comes", "sorted"])
def test_a_cascades_answers_do_not_depend_on_how_the_texts_come(short_cascade, rows_file, order):
    classifier = OpenedModel.from_pretrained(short_cascade, "cpu")
    encoded = classifier.encode(load(str(rows_file)).texts[:50])
    contestant = competing._contestant(classifier, "halfway")
    found = Entry(contestant, order, 8).prepared(encoded)()
    expected = classifier.run(encoded, classifier.rule_of("halfway")).readings
    assert np.allclose(found, expected, atol=1e-4)


def test_a_small_model_alone_has_no_peers(static_folder, rows_file):
    with pytest.raises(UserError, match=r"a static model alone has .* which `ziggurat compare`"):
        compare(str(static_folder), str(rows_file), QUICK)


def test_points_that_run_full_depth_do_not_run_twice(classifier, monkeypatch):
    first, *others = [point.name for point in classifier.manifest.operating_points]
    rules = dict.fromkeys(others, classifier.rule("entropy", 0.3)) | {first: classifier.rule_of("full")}
    monkeypatch.setattr(classifier, "rule_of", lambda point: rules[point.name])
    assert others and competing._acting(classifier) == others
