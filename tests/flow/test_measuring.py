"""Evaluation, benchmark, figure, prediction, information."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from ziggurat import native
from ziggurat.analyses import draw
from ziggurat.bench.bench import bench
from ziggurat.data import Fractions, Role, load, split_roles
from ziggurat.encoder import read_manifest, write_manifest
from ziggurat.engine import OpenedModel
from ziggurat.errors import UserError
from ziggurat.measure import ModelOptions, read_rows_file, sample
from ziggurat.measure.evaluate import evaluate
from ziggurat.measure.information import information
from ziggurat.recipe import PruningConfig
from ziggurat.serve.predict import predict
from ziggurat.types import OperatingPoint

CPU = ModelOptions(device="cpu", batch_size=8)


@pytest.fixture(scope="module")
def evaluation(model_folder, rows_file):
    return evaluate(str(model_folder), str(rows_file), options=CPU, timed_texts=16).to_dict()


def test_eval_says_what_scripts_need(evaluation):
    wanted = {"n", "accuracy", "full_accuracy", "flops_ratio", "mean_rungs", "texts_per_second"}
    assert wanted | {"full_texts_per_second", "exit_histogram"} <= evaluation.keys()
    assert json.loads(json.dumps(evaluation)) == evaluation


def test_eval_agrees_with_predict(evaluation, model_folder, rows_file):
    rows = load(str(rows_file))
    answers = OpenedModel.from_pretrained(model_folder).answer(rows.texts)
    right = [answer.label == label for answer, label in zip(answers, rows.labels, strict=True)]
    assert evaluation["n"] == len(rows)
    assert evaluation["accuracy"] == pytest.approx(np.mean(right))
    assert evaluation["mean_layers"] == pytest.approx(np.mean([answer.trace.layers for answer in answers]))
    assert evaluation["mean_rungs"] == pytest.approx(np.mean([answer.trace.rung + 1 for answer in answers]))
    assert sum(evaluation["exit_histogram"].values()) == len(rows)


def test_flops_ratio_is_full_over_spent(evaluation, model_folder, rows_file):
    classifier = OpenedModel.from_pretrained(model_folder)
    texts = load(str(rows_file)).texts
    spent = sum(answer.trace.flops for answer in classifier.answer(texts))
    full = classifier.full_flops(classifier.encode(texts)).sum()
    assert evaluation["flops_ratio"] == pytest.approx(full / spent)


def test_without_int8_bit_operations_fall_as_flops_do(evaluation):
    assert evaluation["bops_ratio"] == pytest.approx(evaluation["flops_ratio"])


def test_a_guess_costs_bit_operations_as_it_costs_flops(make_folder, rows_file):
    folder = make_folder(pruning=PruningConfig(final=1.0, score="predicted"))
    result = evaluate(str(folder), str(rows_file), threshold=0.0, options=CPU, timed_texts=8).to_dict()
    assert result["bops_ratio"] == pytest.approx(result["flops_ratio"])


@pytest.mark.skipif(bool(native.why_missing()), reason="no compiled engine")
def test_a_model_that_is_run_in_int8_is_charged_so(model_folder, rows_file):
    options = dataclasses.replace(CPU, dtype="int8")
    result = evaluate(str(model_folder), str(rows_file), "full", options=options, timed_texts=8).to_dict()
    assert 2.5 < result["bops_ratio"] < 4.0


def test_in_int8_a_full_model_costs_a_little_more_than_a_quarter(make_folder, rows_file):
    folder = make_folder(int8=True)
    result = evaluate(str(folder), str(rows_file), "full", options=CPU, timed_texts=8).to_dict()
    assert 2.5 < result["bops_ratio"] < 4.0
    assert result["flops_ratio"] == 1.0


def test_eval_says_which_share_of_the_tokens_each_layer_leaves(pruned_folder, rows_file):
    result = evaluate(str(pruned_folder), str(rows_file), threshold=0.0, options=CPU, timed_texts=8).to_dict()
    classifier = OpenedModel.from_pretrained(pruned_folder)
    answers = classifier.answer(load(str(rows_file)).texts, classifier.rule("entropy", 0.0))
    read = sum(answer.trace.read for answer in answers)
    left = [sum(answer.trace.tokens[layer] for answer in answers) / read for layer in range(4)]
    assert result["tokens_left"][1:] == pytest.approx(left)
    assert 1 > result["tokens_left"][0] >= left[0] > left[-1]


def test_full_depth_is_its_own_measure(model_folder, rows_file):
    result = evaluate(str(model_folder), str(rows_file), "full", options=CPU, timed_texts=8).to_dict()
    assert result["flops_ratio"] == 1.0
    assert result["agreement"] == 1.0
    assert result["accuracy"] == result["full_accuracy"]


def test_a_threshold_of_the_call_goes_before_the_operating_point(model_folder, rows_file):
    result = evaluate(str(model_folder), str(rows_file), threshold=1.0, options=CPU, timed_texts=8).to_dict()
    assert result["mean_rungs"] == 1.0
    assert result["operating_point"] == "entropy 1"


def test_rows_that_trained_the_model_are_counted(copied, model_folder, rows_file, make_folder, monkeypatch):
    rows = split_roles(load(str(rows_file)), Fractions())[Role.SELECT]
    monkeypatch.setattr("ziggurat.measure.subject.trained_rows", lambda folder: rows.hashes)
    result = evaluate(str(model_folder), str(rows_file), options=CPU, timed_texts=8).to_dict()
    assert result["seen_in_training"] >= len(rows)


def test_an_unknown_label_in_test_rows_is_named(model_folder, rows_file, tmp_path):
    strange = tmp_path / "strange.jsonl"
    strange.write_text(rows_file.read_text().replace('"tower"', '"castle"', 1))
    with pytest.raises(UserError, match=r"(row|line) \d+: unknown label 'castle'"):
        evaluate(str(model_folder), str(strange), options=CPU)


def test_pairs_and_single_texts_are_not_mixed_up(model_folder, pair_folder, rows_file, tmp_path):
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text('{"text": "bat", "text_pair": "kin", "label": "river"}\n')
    with pytest.raises(UserError, match="pairs"):
        evaluate(str(model_folder), str(pairs), options=CPU)
    with pytest.raises(UserError, match="pairs"):
        evaluate(str(pair_folder), str(rows_file), options=CPU)


@pytest.fixture(scope="module")
def bench_rows(model_folder, rows_file, tmp_path_factory):
    out = tmp_path_factory.mktemp("bench") / "rows.jsonl"
    options = ModelOptions(device="cpu")
    rows = bench(
        str(model_folder), str(rows_file), (1, 8), ("balanced",), options=options, timed_texts=12, repeats=2, out=out
    ).to_dict()["rows"]
    return rows, out


def test_bench_compares_all_systems_at_each_batch_size(bench_rows):
    systems = [(row["what"], row["batch"]) for row in bench_rows[0]]
    padded = "transformers SDPA, as it comes"
    ours = ["ziggurat full depth", "ziggurat balanced"]
    expected = [(what, 1) for what in [padded, *ours]]
    expected += [(what, 8) for what in [padded, "transformers SDPA, sorted", *ours]]
    assert systems == expected


def test_bench_rows_are_kept_as_they_are_returned(bench_rows):
    rows, out = bench_rows
    assert read_rows_file(out) == json.loads(json.dumps(rows))


def test_full_depth_is_the_unit_of_every_gain(bench_rows):
    for row in bench_rows[0]:
        if row["what"] == "ziggurat full depth":
            assert row["time_gain"] == row["flops_gain"] == 1.0
        assert row["accuracy_low"] <= row["accuracy"] <= row["accuracy_high"]


def test_bench_of_a_cascade_has_its_last_tier_as_full_depth(copied, cascade_folder, rows_file, tmp_path):
    folder = copied(cascade_folder)
    manifest = read_manifest(folder)
    point = OperatingPoint("halfway", "margin", (0.4, *[None] * 3), manifest.fingerprint)
    write_manifest(dataclasses.replace(manifest, operating_points=(point,)), folder)
    rows = bench(str(folder), str(rows_file), (8,), options=CPU, timed_texts=4, repeats=1).to_dict()["rows"]
    by_system = {row["what"]: row for row in rows}
    judged = evaluate(str(folder), str(rows_file), "halfway", options=CPU, timed_texts=4).to_dict()
    assert 0 < judged["exit_histogram"]["static"] < judged["n"]
    assert by_system["ziggurat halfway"]["accuracy"] == judged["accuracy"]
    assert by_system["ziggurat halfway"]["flops_gain"] == pytest.approx(judged["flops_ratio"])
    whole = by_system["ziggurat full depth"]
    assert whole["accuracy"] == by_system["transformers SDPA, sorted"]["accuracy"] == judged["full_accuracy"]


def test_transformers_in_another_dtype_has_its_own_accuracy(model_folder, rows_file):
    half = dataclasses.replace(CPU, dtype="bfloat16")
    rows = bench(
        str(model_folder), str(rows_file), (8,), ("balanced",), options=half, timed_texts=4, repeats=1
    ).to_dict()["rows"]
    assert [row["dtype"] for row in rows] == ["float32"] * 2 + ["bfloat16"] * 2
    exact, halved = (evaluate(str(model_folder), str(rows_file), "full", options=one).to_dict() for one in (CPU, half))
    assert {row["accuracy"] for row in rows[:2]} == {exact["accuracy"]}
    assert rows[2]["accuracy"] == halved["accuracy"]


def test_bench_refuses_a_small_model_alone(static_folder, rows_file):
    with pytest.raises(UserError, match="a static model alone has neither layers nor exits, which `ziggurat bench`"):
        bench(str(static_folder), str(rows_file), options=CPU)


def test_transformers_gives_the_same_answers_as_full_depth(model_folder, rows_file):

    from ziggurat.bench import TransformersPeer
    from ziggurat.data import in_order

    classifier = OpenedModel.from_pretrained(model_folder, device="cpu")
    encoded = classifier.encode(load(str(rows_file)).texts[:20])
    peer = TransformersPeer(model_folder)
    theirs = peer.run(peer.prepare(encoded, in_order(np.arange(20), 7)))
    ours = classifier.run(encoded, classifier.rule_of("full")).readings
    assert np.allclose(theirs, ours, atol=1e-5)


def test_bench_refuses_an_unknown_point_before_it_measures(model_folder, rows_file):
    with pytest.raises(UserError, match="balanced"):
        bench(str(model_folder), str(rows_file), (1,), ("quick",))


def test_the_figure_is_drawn_with_all_controls(model_folder, rows_file, tmp_path):
    png, svg = draw(str(model_folder), str(rows_file), tmp_path / "figure", options=CPU, timed_texts=6, repeats=1)
    assert png.stat().st_size > 10_000
    text = svg.read_text()
    assert all(label in text for label in ("adaptive", "random exit", "oracle exit", "fixed depth", "full model"))


def test_a_model_without_exits_has_a_figure_too(make_folder, rows_file, tmp_path):
    plain = make_folder(head_layers=())
    _, svg = draw(str(plain), str(rows_file), tmp_path / "figure", options=CPU, timed_texts=6, repeats=1)
    text = svg.read_text()
    assert "full model" in text and "adaptive" not in text


def test_predict_writes_one_answer_per_row_in_order(model_folder, rows_file, tmp_path):
    out = tmp_path / "answers.jsonl"
    answers = [one.to_dict() for one in predict(str(model_folder), source=str(rows_file), options=CPU, out=out).answers]
    texts = load(str(rows_file)).texts
    assert [answer["text"] for answer in answers] == texts
    assert [json.loads(line) for line in out.read_text().splitlines()] == answers
    assert all(sum(answer["probabilities"].values()) == pytest.approx(1.0) for answer in answers)


def test_predict_does_not_write_over_what_it_reads(model_folder, rows_file, tmp_path):
    rows = tmp_path / "rows.jsonl"
    shutil.copy(rows_file, rows)
    with pytest.raises(UserError, match="is an input of this command"):
        predict(str(model_folder), source=str(rows), options=CPU, out=rows)
    assert rows.read_bytes() == rows_file.read_bytes()


def test_answers_and_a_monitors_state_are_two_files(model_folder, rows_file, tmp_path):
    both = tmp_path / "both.jsonl"
    with pytest.raises(UserError, match="--out and --watch name the same file"):
        predict(str(model_folder), source=str(rows_file), options=CPU, out=both, watch=both)
    with pytest.raises(UserError, match="is an input of this command"):
        predict(str(model_folder), source=str(rows_file), options=CPU, watch=rows_file)
    assert not both.exists()


def test_answers_may_replace_results_but_no_model_files(copied, model_folder, rows_file):
    folder = copied(model_folder)
    for _ in range(2):
        predict(str(folder), ["bat"], options=CPU, out=folder / "answers.jsonl")
    for name in ("ziggurat.json", "model.safetensors"):
        with pytest.raises(UserError, match="is an input of this command"):
            predict(str(folder), ["bat"], options=CPU, out=folder / name)


def test_predict_refuses_misleading_names_and_unused_scores(model_folder, rows_file, tmp_path):
    with pytest.raises(UserError, match=r"name it answers\.jsonl"):
        predict(str(model_folder), source=str(rows_file), options=CPU, out=tmp_path / "answers.csv")
    with pytest.raises(UserError, match="--score margin"):
        predict(str(model_folder), source=str(rows_file), options=CPU, score="margin")


def test_predict_takes_texts_from_a_generator(model_folder):
    model = CPU.open(str(model_folder))
    texts = ["bat kin", "sol"]
    assert [answer.label for answer in model.answer(text for text in texts)] == [
        answer.label for answer in model.answer(texts)
    ]


def test_predict_reads_files_whose_labels_are_strange_or_missing(model_folder, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "bat kin", "label": "castle"}\n{"text": "posh"}\n')
    assert len(predict(str(model_folder), source=str(path), options=CPU).to_dict()["answers"]) == 2


def test_info_needs_no_weights(copied, model_folder):
    folder = copied(model_folder)
    for weights in folder.glob("*.safetensors"):
        weights.unlink()
    described = information(str(folder)).to_dict()
    assert described["fingerprint"] == read_manifest(model_folder).fingerprint
    assert described["heads"] == {"kind": "fastbert", "after_layers": [1, 2, 3]}


@pytest.mark.parametrize(("n", "size", "count"), [(10, 3, 3), (3, 10, 3), (1, 5, 1), (7600, 512, 512)])
def test_a_sample_is_spread_over_all_rows(n, size, count):
    rows = sample(n, size)
    assert len(rows) == count
    assert rows[0] == 0
    assert rows[-1] == (n - 1 if count > 1 else 0)
