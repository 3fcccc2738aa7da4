"""A checkpoint's answers stay what they are, whatever its rows' labels are; where these do not fit, that is said."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from ziggurat import native
from ziggurat.calibrate import Promise, risk_by_name
from ziggurat.calibrate.calibrate import _risk_and_scores
from ziggurat.encoder import LABEL_RANGE, read_manifest
from ziggurat.encoder.folder import OTHER_SCALE
from ziggurat.engine import OpenedModel
from ziggurat.measure.evaluate import evaluate
from ziggurat.training import TrainOptions, adapt_model

QUIET = TrainOptions(device="cpu", progress=False, mixed_precision=False)
HEADS_ONLY = """
name = "h"
description = "For tests."
select = 0.3
[[stages]]
kind = "heads"
epochs = 1
learning_rate = 5e-3
label_weight = 0.5
evaluations = 1
"""
ONE = {"num_labels": 1, "id2label": {0: "LABEL_0"}}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    path = tmp_path_factory.mktemp("recipe") / "heads.toml"
    path.write_text(HEADS_ONLY)
    return str(path)


@pytest.fixture(scope="module")
def pairs(rows_file):
    """Pairs of texts: the first text of each row, and that of the next."""
    texts = [json.loads(line)["text"] for line in rows_file.read_text().splitlines()]
    return list(zip(texts, texts[1:] + texts[:1], strict=True))


def rows_of(pairs, path, labels=None):
    """A file of these pairs, with a label for each or none."""
    rows = [{"text": first, "text_pair": second} for first, second in pairs]
    if labels is not None:
        rows = [row | {"label": label} for row, label in zip(rows, labels, strict=True)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture(scope="module")
def reranker(make_bert, make_checkpoint, tmp_path_factory):
    """A random cross-encoder whose scores go far beyond 0 and 1."""
    bert = make_bert(**ONE)
    with torch.no_grad():
        bert.classifier.weight.mul_(20)
        bert.classifier.bias.add_(19)  # so that they are of both signs
    return make_checkpoint(bert, tmp_path_factory.mktemp("reranker") / "checkpoint")


@pytest.fixture(scope="module")
def scores(reranker, pairs):
    """What plain transformers says of the pairs, (n)."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(reranker)
    tokenizer = AutoTokenizer.from_pretrained(reranker)
    with torch.no_grad():
        said = [model(**tokenizer(*pair, return_tensors="pt")).logits.item() for pair in pairs]
    return np.array(said)


@pytest.fixture(scope="module")
def adapted(reranker, pairs, recipe, tmp_path_factory):
    """The reranker with exits, from rows with labels of 0 and 1 that have nothing to do with its scores."""
    folder = tmp_path_factory.mktemp("adapted")
    rows = rows_of(pairs, folder / "rows.jsonl", [float(place % 2) for place in range(len(pairs))])
    adapt_model(str(reranker), rows, folder / "model", recipe, QUIET)
    return folder / "model", rows


@pytest.mark.parametrize("engine", ["torch", *([] if native.why_missing() else ["native"])])
def test_scores_are_those_of_transformers_and_no_label_ends_them(adapted, pairs, scores, engine):
    model = OpenedModel.from_pretrained(adapted[0], "cpu", backend=engine)
    found = np.array([answer.label for answer in model.answer(pairs, "full")])
    assert scores.min() < -1 and scores.max() > 2
    assert found == pytest.approx(scores, abs=1e-3)


def test_labels_on_another_scale_mean_agreement_of_scores(adapted, scores):
    manifest = read_manifest(adapted[0])
    low, high = manifest.training[LABEL_RANGE]
    assert scores.min() - 1e-3 <= low < -1 and 2 < high <= scores.max() + 1e-3
    assert manifest.training[OTHER_SCALE]
    model = OpenedModel.from_pretrained(adapted[0], "cpu", backend="torch")
    risk, _ = _risk_and_scores(model, Promise({"a": 0.1}))
    assert risk.name == "agreement"
    assert _risk_and_scores(model, Promise({"a": 0.1}, criterion="harm"))[0].name == "harm"
    # Full depth says the same of every text as itself; another score is as far from it as scores are apart.
    every = model.problem.predictions(np.array([[low], [high]]))
    assert risk_by_name("agreement", model.problem).of(every, every[::-1]).tolist() == [1, 1]
    for point in manifest.operating_points:
        said = evaluate(str(adapted[0]), adapted[1], point.name, timed_texts=8).to_dict()
        assert said["agreement"] >= 1 - point.target - 0.05


def test_without_labels_the_range_is_that_of_the_scores(reranker, pairs, recipe, scores, tmp_path):
    rows = rows_of(pairs, tmp_path / "bare.jsonl")
    adapt_model(str(reranker), rows, tmp_path / "a", recipe, QUIET)
    low, high = read_manifest(tmp_path / "a").training[LABEL_RANGE]
    assert scores.min() - 1e-3 <= low < -1 and 2 < high <= scores.max() + 1e-3
    stated = TrainOptions(device="cpu", progress=False, mixed_precision=False, label_range=(0.0, 5.0))
    adapt_model(str(reranker), rows, tmp_path / "b", recipe, stated)
    assert read_manifest(tmp_path / "b").training[LABEL_RANGE] == [0.0, 5.0]


def test_labels_that_the_scores_explain_are_learned_from(reranker, pairs, recipe, scores, tmp_path, caplog):
    rows = rows_of(pairs, tmp_path / "rows.jsonl", (scores + 0.25).tolist())
    adapt_model(str(reranker), rows, tmp_path / "model", recipe, QUIET)
    assert OTHER_SCALE not in read_manifest(tmp_path / "model").training
    assert not caplog.records


def test_a_sentence_transformers_activation_is_mentioned(reranker, pairs, recipe, copied, tmp_path, caplog):
    folder = copied(reranker)
    config = json.loads((folder / "config.json").read_text())
    stated = {"sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Sigmoid"}}
    (folder / "config.json").write_text(json.dumps(config | stated))
    adapt_model(str(folder), rows_of(pairs, tmp_path / "bare.jsonl"), tmp_path / "model", recipe, QUIET)
    (record,) = caplog.records
    assert "sentence-transformers applies a Sigmoid to its scores; here they are raw" in record.getMessage()


@pytest.fixture(scope="module")
def chooser(make_bert, make_checkpoint, pairs, tmp_path_factory):
    """Three names in, a checkpoint of these classes out that answers with each of them now and then."""
    from transformers import AutoTokenizer

    def make(names):
        bert, folder = make_bert(id2label=dict(enumerate(names))), tmp_path_factory.mktemp("chooser")
        tokenizer = AutoTokenizer.from_pretrained(make_checkpoint(bert, folder))
        with torch.no_grad():
            said = torch.cat([bert(**tokenizer(text, return_tensors="pt")).logits for text, _ in pairs])
            bert.classifier.bias.sub_(said.mean(dim=0))
        return make_checkpoint(bert, folder)

    return make


@pytest.mark.parametrize("exchanged", [False, True])
def test_classes_that_have_each_others_names_are_said(chooser, rows_file, recipe, tmp_path, exchanged, caplog):
    names = ("river", "stone", "tower")
    checkpoint = chooser(names)
    texts = [json.loads(line)["text"] for line in rows_file.read_text().splitlines()]
    adapt_model(str(checkpoint), str(rows_file), tmp_path / "first", recipe, QUIET)
    model = OpenedModel.from_pretrained(tmp_path / "first", "cpu", backend="torch")
    said = [answer.label for answer in model.answer(texts, "full")]
    assert min(map(said.count, names)) > 20
    one, other = sorted(names, key=said.count)[-2:]
    labels = [{one: other, other: one}.get(name, name) if exchanged else name for name in said]
    rows = tmp_path / "rows.jsonl"
    pairs = zip(texts, labels, strict=True)
    rows.write_text("".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in pairs))
    caplog.clear()
    adapt_model(str(checkpoint), str(rows), tmp_path / "second", recipe, QUIET)
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == exchanged
    for said in messages:
        assert f"{one!r} are {other!r}" in said and f"{other!r} are {one!r}" in said and said.startswith(f"{rows}: ")
        assert "see that its names for classes (id2label) are in the right order" in said


def test_rows_may_call_classes_as_the_checkpoint_does(chooser, rows_file, recipe, tmp_path):
    """LABEL_1, 1 and "1" are one class of a checkpoint that nobody gave names, and case does not count for names."""
    unnamed, named = chooser(("LABEL_0", "LABEL_1", "LABEL_2")), chooser(("River", "STONE", "tower"))
    rows = [json.loads(line) for line in rows_file.read_text().splitlines()]
    names, truth = ("river", "stone", "tower"), {}
    for checkpoint, spell in (
        (unnamed, lambda place: f"LABEL_{place}"),
        (unnamed, lambda place: place),
        (unnamed, str),
        (named, lambda place: names[place]),
    ):
        file = tmp_path / "spelled.jsonl"
        spelled = ({"text": row["text"], "label": spell(names.index(row["label"]))} for row in rows)
        file.write_text("".join(json.dumps(row) + "\n" for row in spelled))
        out = tmp_path / f"model{len(list(tmp_path.glob('model*')))}"
        adapt_model(str(checkpoint), str(file), out, recipe, QUIET)
        measured = evaluate(str(out), str(file), "full", timed_texts=8).to_dict()
        truth.setdefault(checkpoint, measured["accuracy"])
        assert measured["accuracy"] == truth[checkpoint] > 0
    assert truth[unnamed] == truth[named]
