"""Models are judged by their task's own measures, wherever the task is named: by the rows, or by the model."""

import dataclasses
import json
from dataclasses import replace

import numpy as np
import pytest

from tests.kit.machines import made_up_profile
from ziggurat.bench import BenchResult
from ziggurat.bench.bench import bench
from ziggurat.calibrate import calibrate_model
from ziggurat.calibrate import times as calibration_time
from ziggurat.calibrate.calibrate import Promise
from ziggurat.cli.bench import bench_text
from ziggurat.cli.calibrate import calibration_text
from ziggurat.cli.evaluate import evaluation_text
from ziggurat.data import load
from ziggurat.encoder import read_manifest, write_manifest
from ziggurat.errors import UserError
from ziggurat.measure import ModelOptions, data_and_split
from ziggurat.measure.evaluate import evaluate
from ziggurat.measure.task_metrics import class_order, metrics_for
from ziggurat.problems import f1, mcc
from ziggurat.training import TrainOptions, adapt_model, train_model

CPU = ModelOptions("cpu", batch_size=8)
QUIET = TrainOptions(device="cpu", progress=False, mixed_precision=False)
ACCEPTABLE = ("unacceptable", "acceptable")


@pytest.fixture(scope="module")
def cola(tmp_path_factory):
    """A folder of CoLA's files in which the first word says whether a sentence is acceptable."""
    folder = tmp_path_factory.mktemp("cola")
    rng = np.random.default_rng(0)
    words = ["bat", "kin", "losh", "mur", "ness", "polm"]
    for split, n in (("train", 300), ("dev", 60)):
        labels = rng.integers(0, 2, n)
        lines = [f"x\t{label}\t\t{('rat', 'kit')[label]} {' '.join(rng.choice(words, 5))}\n" for label in labels]
        (folder / f"{split}.tsv").write_text("".join(lines))
    return folder


@pytest.fixture(scope="module")
def trained(cola, tiny_recipe, tiny_checkpoint, tmp_path_factory):
    """A model that was trained on it by its name."""
    out = tmp_path_factory.mktemp("trained") / "model"
    train_model(f"task:glue/cola@train:{cola}", out, str(tiny_recipe), str(tiny_checkpoint), QUIET)
    return out


@pytest.fixture(scope="module")
def two_classes(make_bert, make_checkpoint, tmp_path_factory):
    """A function: what a random model calls its two classes in, its folder out."""
    import torch

    from ziggurat.encoder import Manifest, load_hf, save_model

    base = tmp_path_factory.mktemp("two")
    checkpoint = make_checkpoint(make_bert(id2label={0: "a", 1: "b"}, label2id={"a": 0, "b": 1}), base / "checkpoint")

    def make(labels):
        torch.manual_seed(1)
        folder = base / "-".join(map(str, labels))
        manifest = Manifest(labels, False, 24, "fastbert", (1, 2, 3), "")
        save_model(
            load_hf(checkpoint, 2, "fastbert", None).eval(), manifest, np.array([1], np.uint64), checkpoint, folder
        )
        return folder

    return make


def test_training_by_name_learns_and_remembers_the_task(trained, cola):
    manifest = read_manifest(trained)
    assert manifest.labels == ACCEPTABLE
    assert manifest.training["data"]["source"] == f"task:glue/cola@train:{cola}"
    result_record = evaluate(str(trained), f"task:glue/cola@validation:{cola}", options=CPU, timed_texts=8)
    result = result_record.to_dict()
    assert result["accuracy"] > 0.9
    assert list(result["metrics"]) == ["mcc", "mcc_low", "mcc_high", "full_mcc"]
    assert result["metrics"]["mcc_low"] <= result["metrics"]["mcc"] <= result["metrics"]["mcc_high"]
    assert json.loads(json.dumps(result)) == result
    shown = evaluation_text(result_record)
    assert f"  mcc        {result['metrics']['mcc']:.4f} [" in shown and "full depth" in shown


def test_a_plain_file_with_class_numbers_is_judged_the_same(trained, cola, tmp_path):
    rows = load(f"task:glue/cola@validation:{cola}")
    path = tmp_path / "rows.jsonl"
    lines = [
        {"text": text, "label": ACCEPTABLE.index(label)} for text, label in zip(rows.texts, rows.labels, strict=True)
    ]
    path.write_text("\n".join(map(json.dumps, lines)))
    by_name = evaluate(str(trained), f"task:glue/cola@validation:{cola}", options=CPU, timed_texts=8).to_dict()
    by_file = evaluate(str(trained), str(path), options=CPU, timed_texts=8).to_dict()
    assert by_file["metrics"] == by_name["metrics"]
    assert by_file["accuracy"] == by_name["accuracy"]


def test_held_out_rows_calibrate_and_name_the_stand_in_metric(trained, cola, copied, monkeypatch):
    monkeypatch.setattr(calibration_time, "stored_profile", made_up_profile)
    folder, engine = copied(trained), ModelOptions("cpu", backend="torch")
    result_record = calibrate_model(
        str(folder), f"task:glue/cola@train:{cola}", Promise({"loose": 0.5}), options=engine
    )
    result = result_record.to_dict()
    assert result["rows"]["left_out"] > 200 and result["rows"]["certify"] > 15
    assert "glue/cola is judged by mcc" in result["note"] and "'accuracy'" in result["note"]
    assert result["note"] in calibration_text(result_record).splitlines()
    assert calibrate_model(str(folder), str(_plain(cola, folder)), Promise({"loose": 0.5}), options=engine).to_dict()[
        "note"
    ]


def _plain(cola, folder):
    """The training split as a file of ours."""
    rows = load(f"task:glue/cola@train:{cola}")
    path = folder.parent / "rows.jsonl"
    lines = (json.dumps({"text": t, "label": label}) for t, label in zip(rows.texts, rows.labels, strict=True))
    path.write_text("\n".join(lines))
    return path


def test_a_model_without_a_task_has_no_further_measures(model_folder, rows_file):
    result = evaluate(str(model_folder), str(rows_file), options=CPU, timed_texts=8).to_dict()
    assert result["metrics"] == {}
    asked = evaluate(
        str(model_folder), str(rows_file), options=CPU, timed_texts=8, metrics=["mcc", "f1-macro", "accuracy"]
    ).to_dict()
    assert {"mcc", "full_mcc", "f1_macro"} <= asked["metrics"].keys() and "accuracy" not in asked["metrics"]
    with pytest.raises(UserError, match="'f1': is of two classes, the model has 3; take f1-macro"):
        evaluate(str(model_folder), str(rows_file), options=CPU, metrics=["f1"])
    score = replace(read_manifest(model_folder), problem_type="regression", labels=("value",))
    with pytest.raises(UserError, match="'mcc': is not of regression; choose one of pearson, spearman"):
        metrics_for(score, "rows.jsonl", ["mcc"])
    with pytest.raises(UserError, match="metric 'rouge' is not known"):
        evaluate(str(model_folder), str(rows_file), options=CPU, metrics=["rouge"])


@pytest.mark.parametrize(
    "labels", [ACCEPTABLE, (0, 1), ("Acceptable", "UNACCEPTABLE")], ids=["the task's", "numbers", "another order"]
)
def test_a_models_own_class_names_and_order_are_found(labels, two_classes, cola):
    source = f"task:glue/cola@validation:{cola}"
    folder = two_classes(labels)
    result = evaluate(str(folder), source, "full", options=CPU, timed_texts=8, metrics=["f1", "mcc"]).to_dict()
    classifier = CPU.open(str(folder))
    rows = load(source)
    answers = [str(answer.label).lower() for answer in classifier.answer(rows.texts, "full")]
    names = [str(name) for name in labels] if labels == (0, 1) else list(ACCEPTABLE)
    predictions = np.array([names.index(answer) for answer in answers])
    truth = np.array([ACCEPTABLE.index(label) for label in rows.labels])
    assert result["accuracy"] == pytest.approx((predictions == truth).mean())
    assert result["metrics"]["f1"] == pytest.approx(f1(predictions, truth))
    assert result["metrics"]["mcc"] == pytest.approx(mcc(predictions, truth))


def test_the_order_of_classes_is_by_their_words():
    assert class_order(("no", "yes"), ("Yes", "NO")).tolist() == [1, 0]
    assert class_order(("no", "yes"), (0, 1)) is None
    assert class_order(("no", "yes"), ("yes", "maybe")) is None


def test_bench_rows_and_table_carry_the_tasks_measures(trained, cola):
    source = f"task:glue/cola@validation:{cola}"
    result = bench(str(trained), source, [8], ["fast"], options=CPU, timed_texts=8, repeats=1)
    rows = [row.to_dict() for row in result.rows]
    assert all({"mcc", "mcc_low", "mcc_high", "accuracy"} <= row.keys() for row in rows)
    assert {(row["data"], row["split"]) for row in rows} == {("glue/cola", "validation")}
    assert "mcc" in bench_text(result) and "mcc" not in bench_text(BenchResult(()))
    assert data_and_split(source) == ("glue/cola", "validation")


def test_a_checkpoint_adapted_by_task_keeps_its_labels(cola, make_bert, make_checkpoint, tmp_path):
    names = {0: "ACCEPTABLE", 1: "UNACCEPTABLE"}
    checkpoint = make_checkpoint(make_bert(id2label=names, label2id={v: k for k, v in names.items()}), tmp_path / "hf")
    out = tmp_path / "model"
    recipe = tmp_path / "heads.toml"
    recipe.write_text(
        'name = "h"\ndescription = "t"\nmax_length = 24\n[[stages]]\nkind = "heads"\nepochs = 1\nlearning_rate = 5e-3\n'
    )
    adapt_model(str(checkpoint), f"task:glue/cola@train:{cola}", out, str(recipe), QUIET)
    assert read_manifest(out).labels == ("ACCEPTABLE", "UNACCEPTABLE")
    result = evaluate(str(out), f"task:glue/cola@validation:{cola}", options=CPU, timed_texts=8).to_dict()
    assert result["metrics"]["full_mcc"] is not None


def test_a_correlation_with_constant_answers_is_a_dash(trained, cola):
    result = evaluate(str(trained), f"task:glue/cola@validation:{cola}", options=CPU, timed_texts=8)
    metrics = {"pearson": None, "pearson_low": None, "pearson_high": None, "full_pearson": 0.5}
    assert "  pearson    – [–, –]   full depth 0.5000" in evaluation_text(dataclasses.replace(result, metrics=metrics))


def test_a_model_of_an_unknown_task_is_an_ordinary_model(trained, copied, cola):
    folder = copied(trained)
    manifest = read_manifest(folder)
    write_manifest(replace(manifest, training={**manifest.training, "data": {"source": "task:gone@train"}}), folder)
    path = _plain(cola, folder)
    assert evaluate(str(folder), str(path), options=CPU, timed_texts=8).to_dict()["metrics"] == {}
