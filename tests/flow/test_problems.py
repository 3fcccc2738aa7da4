"""Regressions and labels that may all apply, from a file of rows to certified answers, in both engines."""

from __future__ import annotations

import dataclasses
import itertools
import json
from dataclasses import replace

import numpy as np
import pytest

from tests.kit.machines import made_up_profile
from ziggurat import native
from ziggurat.analyses import draw
from ziggurat.bench import KINDS
from ziggurat.bench import compare as comparing
from ziggurat.bench.bench import bench
from ziggurat.calibrate import Monitor, Promise, calibrate_model, calibration_rows, risks_of, rule_of, run_all_rungs
from ziggurat.calibrate import times as calibration_time
from ziggurat.cli.bench import bench_text
from ziggurat.cli.calibrate import calibration_text
from ziggurat.cli.evaluate import evaluation_text
from ziggurat.cli.info import information_text
from ziggurat.cli.predict import prediction_text
from ziggurat.data import DEFAULT_COLUMNS
from ziggurat.encoder import LABEL_RANGE, read_manifest
from ziggurat.encoder.folder import read_json
from ziggurat.engine import OpenedModel, answer_all
from ziggurat.engine.replay import replay
from ziggurat.errors import UserError
from ziggurat.explain.explain import explain
from ziggurat.measure import ModelOptions
from ziggurat.measure.evaluate import evaluate
from ziggurat.measure.information import information
from ziggurat.recipe import SmallConfig, load_recipe
from ziggurat.serve.predict import predict
from ziggurat.training import TrainOptions, adapt_model, make_cascade, train_model
from ziggurat.types import ProblemType

QUIET = TrainOptions(device="cpu", progress=False, mixed_precision=False)
PROBLEMS = (ProblemType.REGRESSION, ProblemType.MULTI_LABEL)
LABELS = ("river", "stone", "tower")
# The words that the tiny tokenizer knows.
WORDS = [a + b for a in ("ba", "ki", "lo", "mu", "ne", "po", "ra") for b in ("t", "n", "sh", "r", "ss", "lm", "nd")]
ENGINES = ["torch", *([] if native.why_missing() else ["native"])]
HEADS_ONLY = """
name = "h"
description = "For tests."
max_length = 24
[[stages]]
kind = "heads"
epochs = 1
learning_rate = 5e-3
evaluations = 1
"""
TEXTS = ["bat", "kin losh mur", " ".join(WORDS[:9]), "net net ball"]


@pytest.fixture(autouse=True)
def no_clock(monkeypatch):
    """A machine whose speed is known."""
    monkeypatch.setattr(calibration_time, "stored_profile", made_up_profile)


def label_of(problem, chosen):
    """A third of the words belongs to each label: how many do, or which labels have two of them."""
    if problem is ProblemType.REGRESSION:
        return round(5 * float((chosen % 3 == 0).mean()), 2)
    return [name for place, name in enumerate(LABELS) if (chosen % 3 == place).sum() >= 2]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """By problem a file of 420 rows."""
    made = {}
    for problem in PROBLEMS:
        rng = np.random.default_rng(5)
        draws = [rng.choice(len(WORDS), rng.integers(2, 12)) for _ in range(420)]
        rows = [{"text": " ".join(WORDS[i] for i in words), "label": label_of(problem, words)} for words in draws]
        made[problem] = tmp_path_factory.mktemp("rows") / "rows.jsonl"
        made[problem].write_text("".join(json.dumps(row) + "\n" for row in rows))
    return made


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    path = tmp_path_factory.mktemp("recipe") / "tiny.toml"
    path.write_text(
        'name = "tiny"\ndescription = "For tests."\nmax_length = 24\nselect = 0.2\ncertify = 0.3\n\n'
        '[[stages]]\nkind = "regular"\nepochs = 16\nlearning_rate = 3e-3\nevaluations = 1\n\n'
        '[[stages]]\nkind = "heads"\nepochs = 2\nlearning_rate = 5e-3\nevaluations = 1\n'
    )
    return str(path)


@pytest.fixture(scope="module")
def trained(files, recipe, tiny_checkpoint, tmp_path_factory):
    """By problem the folder that `train` made of the rows; nothing but their labels says which problem it is."""
    made = {}
    for problem, rows in files.items():
        made[problem] = tmp_path_factory.mktemp("trained") / "model"
        train_model(str(rows), made[problem], recipe, str(tiny_checkpoint), QUIET)
    return made


@pytest.mark.parametrize("problem", PROBLEMS)
def test_a_folder_says_what_it_answers_to_us_and_to_transformers(trained, files, problem):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    manifest, config = read_manifest(trained[problem]), read_json(trained[problem] / "config.json", "")
    assert manifest.problem_type == config["problem_type"] == problem
    assert manifest.labels == (("value",) if problem is ProblemType.REGRESSION else LABELS)
    theirs = AutoModelForSequenceClassification.from_pretrained(trained[problem]).eval()
    tokens = AutoTokenizer.from_pretrained(trained[problem])(TEXTS[1], return_tensors="pt")
    said = theirs(**tokens).logits[0].detach().numpy()
    (answer,) = OpenedModel.from_pretrained(trained[problem]).answer(TEXTS[1:2], "full")
    if problem is ProblemType.REGRESSION:
        low, high = manifest.training[LABEL_RANGE]
        assert 0 <= low < high <= 5
        assert answer.label == pytest.approx(said[0], abs=1e-4)
        assert answer.probabilities is None
    else:
        assert answer.probabilities == pytest.approx(1 / (1 + np.exp(-said)), abs=1e-4)
        assert answer.label == tuple(name for name, logit in zip(LABELS, said, strict=True) if logit > 0)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("problem", PROBLEMS)
def test_packed_adaptive_answers_are_those_of_the_specification(trained, problem, engine):
    classifier = OpenedModel.from_pretrained(trained[problem], "cpu", threads=1, backend=engine)
    plain = OpenedModel.from_pretrained(trained[problem], "cpu", backend="torch")
    encoded = classifier.encode(TEXTS * 3)
    every = classifier.every_rung(encoded)
    for score in classifier.problem.scores:
        places = set()
        asked = classifier.rule(score, 0.0)
        values = np.unique(asked.values(1, every.readings[:, :2]))
        for threshold in (values[1:] + values[:-1]) / 2:  # where no rounding decides
            rule = classifier.rule_of(classifier.rule(score, threshold))
            outcomes = classifier.run(encoded, rule, 5)
            logits, rungs = answer_all(plain.backend, encoded.tokens, rule)
            assert outcomes.rungs.tolist() == rungs.tolist() == replay(every.readings, rule).tolist()
            assert np.abs(outcomes.readings - logits).max() < 1e-3
            places |= set(rungs.tolist())
        assert len(places) > 1, score


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("problem", PROBLEMS)
def test_a_certified_point_keeps_its_promise(trained, files, copied, problem, engine):
    folder, options = copied(trained[problem]), ModelOptions("cpu", threads=1, backend=engine)
    result_record = calibrate_model(str(folder), str(files[problem]), Promise({"loose": 0.3}), options=options)
    result = result_record.to_dict()
    assert result["criterion"] == {"regression": "absolute-error"}.get(problem, "hamming")
    assert "no mean of losses per row" in result["note"] and result["note"] in calibration_text(result_record)
    assert ("% of the labels' range" in calibration_text(result_record)) == (problem is ProblemType.REGRESSION)
    assert result["points"][0]["certified"] > 0
    classifier = options.open(str(folder))
    risk = risks_of(classifier.problem)[result["criterion"]]
    rows = calibration_rows(str(folder), classifier, str(files[problem]), DEFAULT_COLUMNS, risk).certify
    witness = run_all_rungs(classifier, rows, risk, None, 32, False)
    rule = classifier.rule_of("loose")
    said = classifier.problem.predictions(classifier.run(witness.encoded, rule).readings)
    full = classifier.problem.predictions(witness.runs[1.0].all_readings[:, -1])
    losses = risk.of(said, full, rows.truth)
    assert losses.mean() <= 0.3 and losses.min() >= -1 and losses.max() <= 1
    answers = predict(str(folder), TEXTS, operating_point="loose", options=options).to_dict()["answers"]
    assert json.loads(json.dumps(answers)) == answers
    watched = Monitor(classifier, "loose", share=1.0) if result["points"][0]["note"] is None else None
    assert watched is None or len(watched.answer(TEXTS)) == len(TEXTS)


@pytest.mark.parametrize("problem", PROBLEMS)
def test_a_cap_on_layers_holds(trained, files, copied, problem):
    folder, options = copied(trained[problem]), ModelOptions("cpu", threads=1, backend="torch")
    [entry] = calibrate_model(
        str(folder), str(files[problem]), Promise({"capped": 0.95}, max_layers=1), options=options
    ).to_dict()["points"]
    classifier = options.open(str(folder))
    outcomes = classifier.run(classifier.encode(TEXTS), classifier.rule_of("capped"))
    assert outcomes.rungs.tolist() == [0] * len(TEXTS) and np.isfinite(entry["point"]["certificate"]["estimate"])
    assert rule_of(classifier, None).score in classifier.problem.scores


@pytest.mark.parametrize("problem", PROBLEMS)
def test_a_calibrations_page_is_about_numbers_and_sets_too(trained, files, copied, tmp_path, problem):
    folder, page = copied(trained[problem]), tmp_path / "page.html"
    options = ModelOptions("cpu", threads=1, backend="torch")
    result = calibrate_model(
        str(folder), str(files[problem]), Promise({"loose": 0.3}), options=options, html=page
    ).to_dict()
    assert result["problem"] == problem and result["html"] == str(page)
    words = page.read_text()
    said = (
        "of the labels&#x27; range more than full depth" if problem is ProblemType.REGRESSION else "of all labels wrong"
    )
    assert "The inputs that cost most" in words
    assert ("error gained" if problem is ProblemType.REGRESSION else "labels made wrong (%)") in words
    if result["points"][0]["note"] is None:  # the clock decides whether the point is faster
        assert "would have corrected" in words and said in words
        scores = ("change", "learned") if problem is ProblemType.REGRESSION else ("label-entropy",)
        assert any(f"equal size by {score} after" in words for score in scores)


def test_what_is_measured_is_what_people_know(trained, files):
    stars_record = evaluate(
        str(trained[ProblemType.REGRESSION]), str(files[ProblemType.REGRESSION]), "full", timed_texts=8
    )
    stars = stars_record.to_dict()
    assert stars["pearson"] == stars["full_pearson"] > 0.5 and stars["spearman"] > 0.5
    assert stars["agreement"] == pytest.approx(1, abs=1e-6) and "pearson" in evaluation_text(stars_record)
    tags_record = evaluate(
        str(trained[ProblemType.MULTI_LABEL]), str(files[ProblemType.MULTI_LABEL]), "full", timed_texts=8
    )
    tags = tags_record.to_dict()
    assert tags["f1_micro"] > 0.6 and tags["f1_macro"] > 0.6 and "subset accuracy" in evaluation_text(tags_record)
    assert "accuracy" not in stars


def test_answers_look_like_a_label_column(trained):
    numbers, sets = (
        predict(str(trained[kind]), TEXTS[2:3]) for kind in (ProblemType.REGRESSION, ProblemType.MULTI_LABEL)
    )
    (number,) = numbers.to_dict()["answers"]
    assert isinstance(number["label"], float) and "probabilities" not in number
    (tags,) = sets.to_dict()["answers"]
    assert tags["label"] == [name for name in LABELS if tags["probabilities"][name] > 0.5]
    assert f"{number['label']:.4g}\t" in prediction_text(numbers)
    (one,) = sets.answers
    none = dataclasses.replace(one, answer=dataclasses.replace(one.answer, label=()))
    assert prediction_text(dataclasses.replace(sets, answers=(none,))).startswith("no label")
    assert "numbers, whose losses are counted from" in information_text(
        information(str(trained[ProblemType.REGRESSION]))
    )
    assert "any of river, stone, tower" in information_text(information(str(trained[ProblemType.MULTI_LABEL])))
    assert "rungs" in explain(str(trained[ProblemType.REGRESSION]), TEXTS[2], "full").to_dict() | {}
    json.dumps(explain(str(trained[ProblemType.MULTI_LABEL]), TEXTS[2], threshold=0.9).to_dict(), allow_nan=False)
    json.dumps(explain(str(trained[ProblemType.REGRESSION]), TEXTS[2], threshold=0.1).to_dict(), allow_nan=False)


@pytest.mark.parametrize("problem", PROBLEMS)
def test_bench_times_it_beside_transformers_and_names_its_metric(trained, files, problem):
    options = ModelOptions("cpu", threads=1, backend="torch")
    made = bench(str(trained[problem]), str(files[problem]), (8,), (), timed_texts=8, repeats=1, options=options)
    rows = [row.to_dict() for row in made.rows]
    assert {row["metric"] for row in rows} == {"pearson" if problem is ProblemType.REGRESSION else "f1_micro"}
    assert all(row["quality"] == row[row["metric"]] and "accuracy" not in row for row in rows)
    shown = bench_text(made)
    assert rows[0]["metric"] in shown and "accuracy" not in shown


@pytest.mark.parametrize("problem", PROBLEMS)
def test_adapt_keeps_the_checkpoints_problem_and_answers(make_bert, make_checkpoint, files, recipe, tmp_path, problem):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    changes = {"num_labels": 1, "id2label": {0: "LABEL_0"}, "label2id": {"LABEL_0": 0}}
    bert = make_bert(problem_type=problem, **(changes if problem is ProblemType.REGRESSION else {}))
    if problem is ProblemType.REGRESSION:
        bert.config.problem_type = None  # one output is a regression, as for transformers
    checkpoint, heads_only = make_checkpoint(bert, tmp_path / "checkpoint"), tmp_path / "heads.toml"
    heads_only.write_text(HEADS_ONLY)
    out = tmp_path / "model"
    adapt_model(str(checkpoint), str(files[problem]), out, str(heads_only), QUIET)
    assert read_manifest(out).problem_type == problem
    before = AutoModelForSequenceClassification.from_pretrained(checkpoint).eval()
    tokens = AutoTokenizer.from_pretrained(checkpoint)(TEXTS[1], return_tensors="pt")
    classifier = OpenedModel.from_pretrained(out, "cpu", backend="torch")
    said = classifier.run(classifier.encode(TEXTS[1:2]), classifier.rule_of("full")).readings[0]
    assert said == pytest.approx(before(**tokens).logits[0].detach().numpy(), abs=1e-4)


def test_what_cannot_be_done_is_said_in_one_line(trained, files, recipe, tmp_path, tiny_checkpoint):
    stars, tags = str(trained[ProblemType.REGRESSION]), str(trained[ProblemType.MULTI_LABEL])
    rows, sets = str(files[ProblemType.REGRESSION]), str(files[ProblemType.MULTI_LABEL])
    high = tmp_path / "high.jsonl"
    high.write_text("".join(f'{{"text": "bat {word}", "label": 9.5}}\n' for word in WORDS * 9))
    narrow = TrainOptions(device="cpu", progress=False, label_range=(0.0, 1.0))
    cases = [
        (lambda: evaluate(stars, sets), r"(row|line) 1: label .* is not a number"),
        (lambda: calibrate_model(stars, str(high)), r"high.jsonl: label 9.5 is outside of the range"),
        (lambda: evaluate(tags, rows), r"(row|line) 1: .* is no list of labels"),
        (lambda: predict(stars, TEXTS, threshold=0.1, score="entropy"), "it can have: change, learned"),
        (
            lambda: calibrate_model(stars, rows, Promise({"a": 0.3}, criterion="accuracy")),
            "choose one of absolute-error",
        ),
        (lambda: calibrate_model(stars, rows, Promise({"a": 0.3}, scores=("margin",))), "it can have: change"),
        (lambda: draw(stars, rows, tmp_path / "figure"), "`ziggurat bench --figure` is about classes"),
        (lambda: make_cascade([stars, tags], tmp_path / "c"), "answers regression, and .* multi_label_classification"),
        (
            lambda: make_cascade([tags, tags], tmp_path / "d", sets),
            "--data: a learned exit score .* multi_label_classification does not have",
        ),
        (lambda: train_model(rows, tmp_path / "p", "pabee", str(tiny_checkpoint), QUIET), "agreement-in-a-row"),
        (lambda: train_model(rows, tmp_path / "r", recipe, str(tiny_checkpoint), narrow), "leaves some out"),
        (lambda: predict(stars, [("a", "b")]), "reads single texts"),
    ]
    for call, message in cases:
        with pytest.raises(UserError, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def cascades(trained, files, tmp_path_factory):
    """By problem and kind of the first tier a cascade whose small model learned from the large one."""
    made = {}
    for problem, kind in itertools.product(PROBLEMS, ("static", "bilstm")):
        folder = tmp_path_factory.mktemp("cascade")
        small = replace(load_recipe(kind), small=SmallConfig(kind, epochs=2), augment=None)
        train_model(str(files[problem]), folder / "small", small, None, QUIET, str(trained[problem]))
        rows = str(files[problem]) if problem is ProblemType.REGRESSION else None  # sets have no learned score
        make_cascade([str(folder / "small"), str(trained[problem])], folder / "cascade", rows)
        made[problem, kind] = folder / "cascade"
    return made


@pytest.mark.parametrize("kind", ["static", "bilstm"])
@pytest.mark.parametrize("problem", PROBLEMS)
def test_a_small_model_answers_alone_what_its_teacher_answers(cascades, trained, files, problem, kind):
    small = evaluate(
        str(cascades[problem, kind].parent / "small"), str(files[problem]), "full", timed_texts=4
    ).to_dict()
    assert small["problem"] == problem and small["mean_layers"] == 0
    if problem is ProblemType.REGRESSION:
        limits = read_manifest(trained[problem]).training[LABEL_RANGE]
        assert read_manifest(cascades[problem, kind].parent / "small").training[LABEL_RANGE] == limits
        assert small["mean_absolute_error"] < 2.5
    else:
        assert 0 <= small["f1_micro"] <= 1 and small["hamming_loss"] < 0.6


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", ["static", "bilstm"])
@pytest.mark.parametrize("problem", PROBLEMS)
def test_a_cascade_runs_as_its_replay_and_prices_what_ran(cascades, problem, kind, engine):
    classifier = ModelOptions("cpu", threads=1, backend=engine).open(str(cascades[problem, kind]))
    encoded, n = classifier.encode(TEXTS * 20), len(TEXTS) * 20
    every = classifier.every_rung(encoded)
    score = "learned" if problem is ProblemType.REGRESSION else "label-entropy"
    asked = classifier.rule(score, 0.0)
    values = np.concatenate([asked.values(rung, every.readings[:, : rung + 1]) for rung in (0, 1)])
    rule = classifier.rule(score, float(np.median(values)) + 1e-9)
    outcomes = classifier.run(encoded, rule, 8)
    assert outcomes.rungs.tolist() == replay(every.readings, rule).tolist()
    assert 0 < (outcomes.rungs == 0).sum() < n  # some stop at the small model
    spent = classifier.flops(encoded, outcomes.token_counts, rule)[np.arange(n), outcomes.rungs]
    first = outcomes.rungs == 0
    assert spent[first].tolist() == classifier.tiers[0].full_flops(encoded.lengths)[first].tolist()
    labels = [one.label for one in classifier.answers(encoded, outcomes, rule)]
    assert labels == [classifier.problem.label(one) for one in classifier.predictions(encoded, outcomes)]


@pytest.mark.parametrize("problem", PROBLEMS)
def test_a_cascade_is_calibrated_explained_and_read_as_a_stream(cascades, files, copied, tmp_path, problem):
    folder = copied(cascades[problem, "static"])
    result = calibrate_model(
        str(folder), str(files[problem]), Promise({"loose": 0.5}), html=tmp_path / "page.html"
    ).to_dict()
    assert result["points"][0]["point"] is not None and (tmp_path / "page.html").stat().st_size > 10_000
    classifier = ModelOptions("cpu").open(str(folder))
    told = explain(str(folder), TEXTS[2], "loose").to_dict()
    found = dict(classifier.stream([TEXTS[:2], TEXTS[2:]], "loose"))
    expected = classifier.answer(TEXTS, "loose")
    for number, answer in enumerate(expected):
        assert classifier.problem.same(found[number].label, answer.label)
    assert told["layers"] == expected[2].trace.layers
    watched = predict(str(folder), TEXTS * 10, operating_point="loose", watch=tmp_path / "state.json")
    assert len(watched.answers) == 40 and (tmp_path / "state.json").exists()


@pytest.mark.parametrize("problem", PROBLEMS)
def test_peers_are_as_good_as_full_depth(trained, files, problem, monkeypatch):
    monkeypatch.setattr(comparing, "our_engines", lambda: [("torch", "float32")])
    monkeypatch.setattr(comparing, "KINDS", KINDS[:1])
    rules = comparing.Rules((1, 4), timed_texts=8, search_texts=6, scored_texts=40, repeats=1)
    rows = comparing.compare(str(trained[problem]), str(files[problem]), rules).to_dict()["rows"]
    assert {row["what"] for row in rows} == {"ziggurat full depth", "transformers SDPA"} and len(rows) == 16
    mine, *others = [row["quality"] for row in rows]
    assert others == pytest.approx([mine] * 15, abs=1e-5)
    assert {row["metric"] for row in rows} == {"pearson" if problem is ProblemType.REGRESSION else "f1_micro"}
