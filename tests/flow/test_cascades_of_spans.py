"""Cascades of question answerers: a small model in front of a large one, both over the same windows."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from tests.kit.questions import make_contexts, make_questions, save_span_folder, write_squad
from ziggurat import native
from ziggurat.bench import KINDS, Entry, TransformersPeer, compare, of_peer
from ziggurat.calibrate import Promise, calibrate_model
from ziggurat.encoder import read_manifest
from ziggurat.encoder.folder import seal
from ziggurat.engine import OpenedModel, answer_ladder
from ziggurat.engine.replay import replay
from ziggurat.errors import UserError
from ziggurat.explain.explain import explain
from ziggurat.measure import ModelOptions
from ziggurat.measure.evaluate import evaluate
from ziggurat.recipe import PruningConfig
from ziggurat.serve.predict import predict
from ziggurat.training import make_cascade

ENGINES = ["torch", *([] if native.why_missing() else ["native"])]
PAIRS = list(zip(make_questions(), make_contexts(), strict=True))
SCORE = "span-entropy"
CPU = ModelOptions("cpu", threads=1)


@pytest.fixture(scope="module")
def models(tmp_path_factory, make_checkpoint):
    """A model with two rungs and one with four, which prunes; both may say that there is no answer."""
    made = tmp_path_factory.mktemp("spans")
    folders = {
        "small": save_span_folder(made / "a", make_checkpoint, head_layers=(2,), no_answer=(0.5, 0.25)),
        "large": save_span_folder(
            made / "b", make_checkpoint, PruningConfig(per_layer=(0.8, 0.9, 0.95, 1.0)), no_answer=(3.0, 2.0, 1.0, 0.0)
        ),
    }
    make_cascade([str(folders["small"]), str(folders["large"])], made / "cascade")
    return folders | {"cascade": made / "cascade"}


@pytest.fixture(scope="module")
def squad(tmp_path_factory):
    return write_squad(tmp_path_factory.mktemp("squad") / "squad.json", n_articles=60, unanswerable=True)


def test_the_folder_knows_all_rungs_and_when_each_says_no_answer(models):
    manifest = read_manifest(models["cascade"])
    assert manifest.no_answer == (0.5, 0.25, 3.0, 2.0, 1.0, 0.0)
    rungs = OpenedModel.from_pretrained(models["cascade"], "cpu").rungs
    assert [rung.name for rung in rungs] == ["tier 1 layer 2", "tier 1 layer 4"] + [f"layer {n}" for n in (1, 2, 3, 4)]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("threshold", [0.8, 0.9])
def test_a_cascade_answers_as_reference_and_replay(models, engine, threshold):
    model = OpenedModel.from_pretrained(models["cascade"], "cpu", threads=1, backend=engine)
    encoded, rule = model.encode(PAIRS), model.rule(SCORE, threshold)
    outcomes, every = model.run(encoded, rule, 4), model.every_rung(encoded, tokens=rule.tokens)
    assert outcomes.rungs.tolist() == replay(every.readings, rule).tolist() and len(set(outcomes.rungs)) > 1
    backends = [tier.backend for tier in model.tiers]
    for row, (first, last) in enumerate(pairwise(encoded.edges.tolist())):
        reading, rung = answer_ladder(backends, [encoded.tokens[first:last]] * 2, rule, row)
        assert rung == outcomes.rungs[row] and np.abs(reading - outcomes.readings[row]).max() < 1e-4
    full = model.run(encoded, model.rule_of("full"))
    alone = OpenedModel.from_pretrained(models["large"], "cpu", threads=1, backend=engine)
    assert [a.text for a in model.answer(PAIRS, "full")] == [a.text for a in alone.answer(PAIRS, "full")]
    assert (
        model.flops(encoded, full.token_counts, model.rule_of("full"))[:, -1].tolist()
        == alone.full_flops(encoded).tolist()
    )


def test_what_questions_cost_is_every_tier_that_ran(models):
    model = OpenedModel.from_pretrained(models["cascade"], "cpu", threads=1)
    encoded, rule = model.encode(PAIRS), model.rule(SCORE, 0.85)
    outcomes = model.run(encoded, rule)
    spent = model.flops(encoded, outcomes.token_counts, rule)[np.arange(len(PAIRS)), outcomes.rungs]
    small = OpenedModel.from_pretrained(models["small"], "cpu", threads=1)
    asked = small.rule(SCORE, 0.0)  # both heads of the small model
    own = small.flops(encoded, small.run(encoded, asked).token_counts, asked)
    stopped = outcomes.rungs == 1
    assert spent[stopped].tolist() == own[stopped, 1].tolist()
    assert (spent[outcomes.rungs > 1] > own[outcomes.rungs > 1, 1]).all()


def test_a_cascade_of_spans_goes_through_every_command(models, squad, copied, tmp_path):
    folder = str(copied(models["cascade"]))
    result = evaluate(folder, str(squad), threshold=0.9, options=CPU, timed_texts=16).to_dict()
    assert result["f1"] <= 1 and result["windows"] > result["n"] == 360 and len(result["exit_histogram"]) == 6
    page = tmp_path / "page.html"
    made = calibrate_model(folder, str(squad), Promise({"loose": 0.9}), options=CPU, html=page).to_dict()
    assert made["points"][0]["point"] is not None and "F1" in page.read_text()
    told = explain(folder, PAIRS[7], "loose", options=CPU).to_dict()
    result = predict(folder, PAIRS, operating_point="loose", options=CPU, watch=tmp_path / "state.json")
    answers = result.to_dict()["answers"]
    assert (told["label"], told["layers"]) == (answers[7]["answer"], answers[7]["layers"])
    assert json.loads((tmp_path / "state.json").read_text())["cost"]["n"] == len(PAIRS)


def test_questions_are_read_as_a_stream(models):
    model = OpenedModel.from_pretrained(models["cascade"], "cpu", threads=1)
    rule = model.rule(SCORE, 0.85)
    found = dict(model.stream([PAIRS[:3], PAIRS[3:]], rule))
    assert [found[row].text for row in range(len(PAIRS))] == [a.text for a in model.answer(PAIRS, rule)]


def test_models_that_do_not_fit_together_are_refused(models, tmp_path, model_folder):
    small, large = models["small"], str(models["large"])
    other, always = (shutil.copytree(small, tmp_path / name) for name in ("other", "always"))
    manifest = read_manifest(other)
    seal(other, replace(manifest, spans=replace(manifest.spans, stride=4)))
    seal(always, replace(read_manifest(always), no_answer=None))
    cases = [
        (lambda out: make_cascade([str(other), large], out), "reads other windows than"),
        (lambda out: make_cascade([str(always), large], out), "may say that there is no answer"),
        (lambda out: make_cascade([str(model_folder), large], out), "answers single_label_classification"),
        (lambda out: make_cascade([str(small), large], out, "rows.json"), "--data: a learned exit score"),
    ]
    for number, (call, message) in enumerate(cases):
        with pytest.raises(UserError, match=message) as caught:
            call(tmp_path / str(number))
        assert "\n" not in str(caught.value) and not (tmp_path / str(number)).exists()


@pytest.mark.parametrize("name", ["large", "cascade"])
def test_peers_answer_questions_as_full_depth_does(models, squad, name, monkeypatch):
    monkeypatch.setattr(compare, "our_engines", lambda: [("torch", "float32")])
    monkeypatch.setattr(compare, "KINDS", KINDS[:1])
    rules = compare.Rules((1, 4), timed_texts=32, search_texts=6, scored_texts=20, repeats=1)
    rows = compare.compare(str(models[name]), str(squad), rules).to_dict()["rows"]
    assert {row["what"] for row in rows} == {"ziggurat full depth", "transformers SDPA"}
    assert len({(row["f1"], row["exact_match"], row["quality"], row["metric"]) for row in rows}) == 1
    assert len(rows) == 16 and {row["n_texts"] for row in rows} == {8} and {row["n_accuracy"] for row in rows} == {20}


@pytest.mark.parametrize("order", ["as it comes", "sorted"])
def test_a_peers_outputs_are_read_as_ours(models, order):
    model = OpenedModel.from_pretrained(models["large"], "cpu", threads=1, backend="torch")
    encoded, expected = model.encode(PAIRS), model.run(model.encode(PAIRS), model.rule_of("full")).readings
    peer = TransformersPeer(models["large"], head=model.problem.head)
    theirs = of_peer(peer, "transformers", model.problem.reader)
    assert max(np.diff(encoded.edges)) > 1
    for contestant in (theirs, compare._contestant(model, "full")):
        found = Entry(contestant, order, 3).prepared(encoded)()
        assert np.allclose(found, expected, atol=1e-4)
