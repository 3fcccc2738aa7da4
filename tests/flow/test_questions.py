"""Question answering from a SQuAD file to certified answers, on the command line, and what is refused on the way."""

import dataclasses
import json
import sys

import numpy as np
import pytest

from tests.kit.families import FAMILIES, family, tokenizer_of
from tests.kit.questions import WORDS, squad_content, tiny_qa, write_squad
from ziggurat import native
from ziggurat.calibrate import risk_by_name
from ziggurat.cli import main
from ziggurat.data import SPAN_ENDS, Role, as_dataset, read_questions
from ziggurat.encoder import read_manifest, trained_rows
from ziggurat.engine import OpenedModel
from ziggurat.errors import UserError
from ziggurat.problems import SCORE, problem_named
from ziggurat.recipe import load_recipe
from ziggurat.training import TrainOptions, train_model
from ziggurat.types import ProblemType

ENGINES = ["torch", *([] if native.why_missing() else ["native"])]
RECIPE = """
name = "toy"
description = "For tests."

[spans]
window = 24
stride = 5
question = 6

[pruning]
final = 0.9
"""
STAGES = "".join(
    f'\n[[stages]]\nkind = "{kind}"\nepochs = 1\nlearning_rate = 1e-3\nevaluations = 1\n'
    for kind in ("regular", "soft", "hard", "heads")
)


def command(capsys, *arguments):
    """Exit code, stdout and stderr of a command line."""
    before, sys.argv = sys.argv, ["ziggurat", *map(str, arguments)]
    try:
        with pytest.raises(SystemExit) as stop:
            main()
    finally:
        sys.argv = before
    captured = capsys.readouterr()
    return stop.value.code or 0, captured.out, captured.err


def fails(capsys, *arguments):
    code, out, err = command(capsys, *arguments)
    lines = [line for line in err.splitlines() if line.startswith("ziggurat: ")]
    assert (code, out, len(lines)) == (2, "", 1), err
    return lines[0]


@pytest.fixture(scope="module")
def squad(tmp_path_factory):
    """SQuAD 2.0: every third question has no answer."""
    return write_squad(tmp_path_factory.mktemp("squad") / "squad.json", n_articles=60, unanswerable=True)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, squad, tiny_checkpoint):
    """A model folder from `ziggurat train`, every stage one epoch."""

    work = tmp_path_factory.mktemp("questions")
    (work / "toy.toml").write_text(RECIPE + STAGES)
    options = TrainOptions(device="cpu", progress=False)
    train_model(str(squad), work / "model", str(work / "toy.toml"), str(tiny_checkpoint), options)
    return work / "model"


def test_training_writes_a_folder_that_says_what_it_answers(trained, squad):
    manifest = read_manifest(trained)
    assert manifest.problem_type == ProblemType.QUESTION_ANSWERING and manifest.labels == ("start", "end")
    assert (manifest.max_length, manifest.head_kind, manifest.spans.stride) == (24, "span", 5)
    assert len(manifest.no_answer) == 4 and np.isfinite(manifest.no_answer).all()
    assert [point.score for point in manifest.operating_points] == ["span-entropy"] * 3
    assert 0 <= manifest.training["regular_accuracy"] <= 1  # F1 of the model before it was pruned
    config = json.loads((trained / "config.json").read_text())
    assert config["architectures"] == ["BertForQuestionAnswering"] and "id2label" not in config
    rows = as_dataset(read_questions(str(squad)), Role.TEST, SPAN_ENDS, ProblemType.QUESTION_ANSWERING)
    seen = np.isin(rows.hashes, trained_rows(trained))
    articles = np.array(rows.articles)
    assert seen.any() and not seen.all()
    assert not set(articles[seen]) & set(articles[~seen])  # whole articles, never some of their questions


def test_exits_that_would_learn_from_random_spans_are_refused(squad, tiny_checkpoint, tmp_path):
    quiet, recipe = TrainOptions(device="cpu", progress=False), load_recipe("early-exit")
    heads = dataclasses.replace(recipe, stages=recipe.stages[-1:])
    with pytest.raises(UserError, match="put a stage 'regular' first"):
        train_model(str(squad), tmp_path / "model", heads, str(tiny_checkpoint), quiet)


def test_transformers_loads_the_folder_completely(trained):
    from transformers import BertForQuestionAnswering

    _, notes = BertForQuestionAnswering.from_pretrained(trained, output_loading_info=True)
    assert not notes["missing_keys"] and not notes["unexpected_keys"]


@pytest.mark.parametrize("engine", ["torch", "auto"])
def test_eval_says_em_f1_flops_and_time(trained, squad, capsys, engine):
    arguments = ["eval", trained, "--data", squad, "--device", "cpu", "--threads", 1, "--backend", engine]
    code, out, err = command(capsys, *arguments, "--threshold", "0.9", "--json")
    assert code == 0, err
    result = json.loads(out)
    assert 0 <= result["exact_match"] <= result["f1"] <= 1 and result["f1_unanswerable"] >= 0
    assert result["flops_ratio"] > 1 and result["n"] == 360 and result["windows"] > 360
    assert sum(result["exit_histogram"].values()) == 360 and 0 < result["seen_in_training"] < 360
    code, out, _ = command(capsys, *arguments)
    assert code == 0 and "exact match" in out and "F1 of questions with an answer" in out


def test_predict_writes_answers_with_their_places(trained, squad, capsys, tmp_path):
    out = tmp_path / "answers.jsonl"
    code, _, err = command(capsys, "predict", trained, "--data", squad, "--out", out, "--operating-point", "full")
    assert code == 0, err
    answers = [json.loads(line) for line in out.read_text().splitlines()]
    rows = read_questions(str(squad))
    assert [one["id"] for one in answers] == rows.ids
    for one, context in zip(answers, rows.pairs, strict=True):
        assert context[one["start"] : one["end"]] == one["answer"]
    code, text, _ = command(capsys, "predict", trained, "bat", "--text-pair", "ki bat lot", "--operating-point", "full")
    assert code == 0 and text.rstrip().endswith("bat")


def test_predict_reads_rows_without_answers(trained, capsys, tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"question": "bat", "context": "kit bat kin"}\n{"question": "kin", "context": "kit"}\n')
    code, out, err = command(capsys, "predict", trained, "--data", rows, "--json")
    assert code == 0, err
    assert [one["id"] for one in json.loads(out)["answers"]] == ["1", "2"]


def test_info_says_how_questions_are_read(trained, capsys):
    code, out, _ = command(capsys, "info", trained)
    assert code == 0
    assert "contexts in windows of 24 that share 5" in out and "or says that there is none" in out


@pytest.mark.parametrize("engine", ENGINES)
def test_bench_times_full_depth_and_points_beside_transformers(trained, squad, capsys, engine):
    arguments = ["bench", trained, "--data", squad, "--device", "cpu", "--threads", 1, "--backend", engine]
    more = ["--batch", 8, "--texts", 40, "--repeats", 1, "--points", "fast"]
    code, out, err = command(capsys, *arguments, *more, "--json")
    assert code == 0, err
    rows = {row["what"]: row for row in json.loads(out)["rows"]}
    assert set(rows) == {
        "transformers SDPA, as it comes",
        "transformers SDPA, sorted",
        "ziggurat full depth",
        "ziggurat fast",
    }
    code, out, _ = command(capsys, "eval", trained, "--data", squad, "--operating-point", "fast", "--json")
    known = json.loads(out)
    for what, before in (("ziggurat fast", ""), ("ziggurat full depth", "full_")):
        assert rows[what]["exact_match"] == pytest.approx(known[f"{before}exact_match"])
        assert rows[what]["f1"] == rows[what]["quality"] == pytest.approx(known[f"{before}f1"])
    assert all(row["n_texts"] == 10 and row["n_accuracy"] == 360 and row["metric"] == "f1" for row in rows.values())
    assert rows["ziggurat fast"]["flops_gain"] == pytest.approx(known["flops_ratio"])
    assert rows["ziggurat full depth"]["time_gain"] == rows["ziggurat full depth"]["flops_gain"] == 1
    code, out, _ = command(capsys, *arguments, *more)
    assert code == 0 and "exact match" in out and "accuracy" not in out


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("threshold", [0.97, 0.0])
def test_explain_tells_the_way_of_the_answer_that_predict_gives(trained, capsys, tmp_path, engine, threshold):
    question, context = "bat kin", " ".join(WORDS * 2)
    more = ["--threshold", threshold, "--device", "cpu", "--threads", 1, "--backend", engine]
    code, out, err = command(
        capsys, "explain", trained, question, context, *more, "--json", "--html", tmp_path / "a.html"
    )
    assert code == 0, err
    told = json.loads(out)
    code, out, _ = command(capsys, "predict", trained, question, "--text-pair", context, *more, "--json")
    [answer] = json.loads(out)["answers"]
    assert (told["label"], told["start"], told["end"]) == (answer["answer"], answer["start"], answer["end"])
    assert (told["layers"], told["flops"], told["windows"]["of"]) == (
        answer["layers"],
        answer["flops"],
        answer["windows"],
    )
    assert told["windows"]["of"] > 1 and told["rungs"][-1]["label"] == told["label"]
    assert [rung["leaves"] for rung in told["rungs"]] == [False] * (len(told["rungs"]) - 1) + [True]
    assert told["rungs"][-1]["layer"] == told["layers"]
    assert told["rungs"][-1]["score"] == pytest.approx(answer["doubt"], abs=1e-6)
    shown = told["text"][1]
    assert shown == context[told["windows"]["start"] : told["windows"]["end"]]
    for token in told["tokens"]:
        if token["side"] is not None:
            assert told["text"][token["side"]][token["start"] : token["end"]].startswith(token["piece"].strip("#")[:1])
    assert len(told["tokens"]) <= 24
    assert threshold or any(token["left_at"] is not None for token in told["tokens"])
    for token in told["tokens"]:
        assert token["left_at"] is None or token["left_at"] <= told["layers"]
    assert "window" in (tmp_path / "a.html").read_text()
    code, out, _ = command(capsys, "explain", trained, question, context, *more)
    assert code == 0 and f"of {answer['windows']}, characters" in out and "span-entropy" in out


def test_explain_of_no_answer_and_of_a_question_alone(trained, capsys):
    code, out, _ = command(capsys, "explain", trained, "bat", "\u200b", "--operating-point", "full")
    assert code == 0 and "(no answer)" in out
    assert "the model reads questions and their contexts; give a second text" in fails(
        capsys, "explain", trained, "bat"
    )


@pytest.mark.parametrize("criterion", ["f1", "exact-match", "agreement"])
def test_calibrate_certifies_with_unseen_articles(trained, capsys, copied, tmp_path, criterion):
    fresh = write_squad(tmp_path / "fresh.json", n_articles=60, seed=7, unanswerable=True)
    folder = copied(trained)
    arguments = ["calibrate", folder, "--data", fresh, "--threads", 1, "--device", "cpu", "--max-drop", "0.9"]
    code, out, err = command(capsys, *arguments, "--criterion", criterion, "--json")
    assert code == 0, err
    result = json.loads(out)
    assert result["criterion"] == criterion and result["rows"]["left_out"] == 0
    assert result["rows"]["order"] + result["rows"]["certify"] == 360
    [point] = [one for one in read_manifest(folder).operating_points if one.certificate is not None]
    assert point.certificate.criterion == criterion and point.certificate.profile is None
    code, out, _ = command(capsys, "eval", folder, "--data", fresh, "--operating-point", point.name, "--device", "cpu")
    assert code == 0 and "promise" in out


def test_calibrate_wants_contexts_that_the_model_has_not_seen(trained, capsys, tmp_path):
    loaded = read_questions(str(write_squad(tmp_path / "all.json", n_articles=60, unanswerable=True)))
    rows = as_dataset(loaded, Role.TEST, SPAN_ENDS, ProblemType.QUESTION_ANSWERING)
    content = squad_content(60, unanswerable=True)
    seen = set(rows.take(np.flatnonzero(np.isin(rows.hashes, trained_rows(trained)))).articles)
    content["data"] = [article for article in content["data"] if article["title"] in seen]
    path = tmp_path / "seen.json"
    path.write_text(json.dumps(content))
    assert "rows trained the model or chose for it" in fails(capsys, "calibrate", trained, "--data", path)


@pytest.mark.parametrize(
    "arguments",
    [
        ("bench", "--figure", "x"),
        ("profile",),
        ("report", "thresholds", "--out", "x"),
    ],
)
def test_what_questions_do_not_have_is_refused_in_one_line(trained, squad, capsys, arguments):
    name, *more = arguments
    if name == "report":
        arguments = ["report", more[0], trained, "--data", squad, *more[1:]]
    else:
        arguments = [name, trained, "--data", squad, *more]
    code, out, err = command(capsys, *arguments)
    lines = [line for line in err.splitlines() if line.strip()]
    assert code == 2 and not out and "Traceback" not in err and lines


def test_a_text_alone_is_no_question_about_a_text(trained, capsys):
    assert "reads questions and their contexts; give the second text with --text-pair" in fails(
        capsys, "predict", trained, "bat"
    )


@pytest.mark.parametrize(
    ("recipe", "named"),
    [("lat", "lengthdrop"), ("ltp-int8", "int8"), ("distil", "distil"), ("static", "small"), ("tango", "tiers")],
)
def test_recipes_for_classifiers_are_refused_before_training(squad, capsys, tmp_path, recipe, named):
    said = fails(capsys, "train", "--train", squad, "--out", tmp_path / "out", "--recipe", recipe)
    assert named in said and "is not for question_answering" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("recipe", ["full", "ltp", "early-exit", "magic-pyramid", "pabee", "adapt"])
def test_the_usual_recipes_fit_questions(recipe):
    assert problem_named(ProblemType.QUESTION_ANSWERING).fitted_recipe(load_recipe(recipe), None).max_length == 384


def test_adapt_takes_a_checkpoint_for_questions_and_no_other(squad, capsys, tmp_path, make_checkpoint, tiny_checkpoint):
    (tmp_path / "heads.toml").write_text(
        RECIPE.split("[pruning]")[0] + STAGES[STAGES.index('\n[[stages]]\nkind = "heads"') :]
    )
    checkpoint = make_checkpoint(tiny_qa(), tmp_path / "qa")
    more = ["--train", squad, "--device", "cpu", "--recipe", tmp_path / "heads.toml"]
    code, _, err = command(capsys, "adapt", checkpoint, "--out", tmp_path / "out", *more)
    assert code == 0, err
    before, after = ((path / "model.safetensors").read_bytes() for path in (checkpoint, tmp_path / "out"))
    assert len(before) == len(after)
    assert "not fine-tuned for questions" in fails(capsys, "adapt", tiny_checkpoint, "--out", tmp_path / "no", *more)


@pytest.mark.parametrize("name", ["modernbert-mean", "roberta", "electra"])
def test_every_architecture_trains_and_runs_in_both_engines(tmp_path, name):
    import torch
    import transformers

    config = family(name).config
    config.num_labels = 2
    torch.manual_seed(0)
    getattr(transformers, f"{FAMILIES[name][0]}ForQuestionAnswering")(config).save_pretrained(tmp_path / "qa")
    tokenizer_of(name).save_pretrained(tmp_path / "qa")
    (tmp_path / "toy.toml").write_text(RECIPE + STAGES)
    rows = read_questions(str(write_squad(tmp_path / "squad.json", n_articles=40)))
    options = TrainOptions(device="cpu", progress=False)
    train_model(rows.source, tmp_path / "model", str(tmp_path / "toy.toml"), str(tmp_path / "qa"), options)
    theirs, *others = (
        OpenedModel.from_pretrained(tmp_path / "model", "cpu", threads=1, backend=engine) for engine in ENGINES
    )
    windows = theirs.encode(list(zip(rows.texts, rows.pairs, strict=True))[:12])
    rule = theirs.rule("span-entropy", 0.0)
    expected = theirs.run(windows, rule)
    assert expected.token_counts[:, -1].sum() < expected.token_counts[:, 0].sum()
    for one in others:
        outcomes = one.run(windows, rule)
        assert np.array_equal(outcomes.token_counts, expected.token_counts)
        assert np.abs(outcomes.readings[:, SCORE:] - expected.readings[:, SCORE:]).max() < 1e-3


def test_an_answer_outside_its_context_stops_training(capsys, tmp_path):
    content = squad_content(3)
    content["data"][1]["paragraphs"][0]["qas"][0]["answers"][0]["answer_start"] = 1
    path = tmp_path / "squad.json"
    path.write_text(json.dumps(content))
    said = fails(capsys, "train", "--train", path, "--out", tmp_path / "out")
    assert "question '1-0-0'" in said and "is not in its context at character 1" in said


def test_a_stride_that_a_window_has_no_room_for_names_itself(squad, capsys, tmp_path, tiny_checkpoint):
    (tmp_path / "toy.toml").write_text((RECIPE + STAGES).replace("window = 24", "window = 384").replace("= 5", "= 60"))
    more = ["--out", tmp_path / "out", "--recipe", tmp_path / "toy.toml", "--model", tiny_checkpoint]
    assert "stride 60" in fails(capsys, "train", "--train", squad, *more)


def test_an_unknown_problem_or_criterion_lists_the_known_ones(squad, capsys, tmp_path):
    said = fails(capsys, "train", "--train", squad, "--out", tmp_path / "out", "--problem", "spans")
    assert "question_answering" in said
    with pytest.raises(UserError, match="choose one of f1, exact-match, agreement, harm"):
        risk_by_name("accuracy", problem_named(ProblemType.QUESTION_ANSWERING))
    assert risk_by_name(None, problem_named(ProblemType.QUESTION_ANSWERING)).name == "f1"
