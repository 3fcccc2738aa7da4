"""From a checkpoint of any architecture and rows to a model folder that answers as the checkpoint did."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.kit.families import FAMILIES, LABELS, family, random_texts, save_family, tokenizer_of
from ziggurat.data import TextTokenizer
from ziggurat.encoder import load_model, read_manifest, read_spec
from ziggurat.engine import OpenedModel
from ziggurat.errors import UserError
from ziggurat.recipe import AugmentConfig, PruningConfig, Recipe, SmallConfig, StageConfig, StudentConfig
from ziggurat.training import TrainOptions, adapt_model, train_model

QUIET = TrainOptions(device="cpu", progress=False, mixed_precision=False)
ADAPT = Recipe("adapt", "a test", (StageConfig("heads", 1, 3e-3),), max_length=40)
PRUNED = replace(
    ADAPT,
    stages=tuple(StageConfig(kind, 1, 1e-3, batch_size=32) for kind in ("regular", "soft", "hard", "int8", "heads")),
    pruning=PruningConfig(final=0.9, vocabulary=0.9),
    head_layers=(1, 2),
)
DIFFERENT = ("roberta", "camembert", "distilbert", "electra", "electra-unprojected", "ernie-2")


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> Path:
    """120 labelled pairs of texts as JSON lines."""
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    lengths = np.random.default_rng(0).integers(1, 9, 120).tolist()
    sides = zip(random_texts(1, lengths), random_texts(2, lengths), strict=True)
    lines = [{"text": one, "text_pair": two, "label": LABELS[len(one + two) % 3]} for one, two in sides]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def of_transformers(folder: Path, texts, pairs) -> np.ndarray:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    inputs = AutoTokenizer.from_pretrained(folder)(texts, pairs, padding=True, return_tensors="pt")
    with torch.no_grad():
        return model(**inputs).logits.softmax(dim=1).numpy()


@pytest.mark.parametrize("name", FAMILIES)
def test_an_adapted_checkpoint_answers_as_before(tmp_path, rows, name):
    checkpoint = save_family(name, tmp_path / "checkpoint")
    adapt_model(str(checkpoint), str(rows), tmp_path / "model", ADAPT, QUIET)
    texts, pairs = random_texts(3, (1, 2, 2, 1)), random_texts(4, (2, 1, 1, 2))
    expected = of_transformers(checkpoint, texts, pairs)
    assert np.array_equal(of_transformers(tmp_path / "model", texts, pairs), expected)
    for engine in ("auto", "torch"):
        model = OpenedModel.from_pretrained(tmp_path / "model", backend=engine)
        answers = model.answer(list(zip(texts, pairs, strict=True)), "full")
        assert np.allclose([answer.probabilities for answer in answers], expected, atol=1e-4)


@pytest.mark.parametrize("name", [*DIFFERENT, "modernbert-mean"])
def test_a_bare_encoder_is_trained_through_every_stage(tmp_path, rows, name):
    family(name).base_model.save_pretrained(tmp_path / "bare")
    tokenizer_of(name).save_pretrained(tmp_path / "bare")
    train_model(str(rows), tmp_path / "model", PRUNED, str(tmp_path / "bare"), QUIET)
    native, torch = (OpenedModel.from_pretrained(tmp_path / "model", backend=one) for one in ("auto", "torch"))
    assert native.manifest.int8 and native.manifest.pruning is not None
    texts = list(zip(random_texts(3, (1, 2, 2, 1)), random_texts(4, (2, 1, 1, 2)), strict=True))
    ours, theirs = (np.array([a.probabilities for a in one.answer(texts, "exact")]) for one in (native, torch))
    assert np.abs(ours - theirs).max() < 0.05
    assert load_model(tmp_path / "model")[0].pruning.values.isfinite().all()


@pytest.mark.parametrize("name", DIFFERENT)
def test_a_narrower_student_is_an_ordinary_checkpoint(tmp_path, rows, name):
    student = StudentConfig(2, "skip", hidden=24, intermediate=40)
    stages = tuple(StageConfig(kind, 1, 1e-3, batch_size=32) for kind in ("regular", "distil"))
    recipe = replace(ADAPT, stages=stages, student=student, head_layers=())
    checkpoint = save_family(name, tmp_path / "checkpoint")
    train_model(str(rows), tmp_path / "model", recipe, str(checkpoint), QUIET)
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    spec = read_spec(config)
    assert (spec.layers, spec.hidden, spec.intermediate) == (2, 24, 40)
    assert spec.embedded == (16 if name == "electra" else 24)
    texts, pairs = random_texts(3, (1, 2, 2, 1)), random_texts(4, (2, 1, 1, 2))
    answers = OpenedModel.from_pretrained(tmp_path / "model").answer(list(zip(texts, pairs, strict=True)), "full")
    expected = of_transformers(tmp_path / "model", texts, pairs)
    assert np.allclose([answer.probabilities for answer in answers], expected, atol=1e-4)


def test_a_modernbert_student_is_an_ordinary_checkpoint(tmp_path, rows):
    stages = tuple(StageConfig(kind, 1, 1e-3, batch_size=32) for kind in ("regular", "distil"))
    recipe = replace(ADAPT, stages=stages, student=StudentConfig(2, intermediate=40), head_layers=())
    checkpoint = save_family("modernbert-mean", tmp_path / "checkpoint")
    train_model(str(rows), tmp_path / "model", recipe, str(checkpoint), QUIET)
    texts, pairs = random_texts(3, (1, 2, 2, 1)), random_texts(4, (2, 1, 1, 2))
    model = OpenedModel.from_pretrained(tmp_path / "model")
    answers = model.answer(list(zip(texts, pairs, strict=True)), "full")
    assert model.spec.windows == (3, 0)
    expected = of_transformers(tmp_path / "model", texts, pairs)
    assert np.allclose([answer.probabilities for answer in answers], expected, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("bert", "classifier.weight"),
        ("roberta", "classifier.dense.weight"),
        ("distilbert", "pre_classifier.weight"),
        ("modernbert", "head.dense.weight"),
    ],
)
def test_a_bare_encoder_cannot_be_adapted(tmp_path, rows, name, missing):
    family(name).base_model.save_pretrained(tmp_path / "bare")
    tokenizer_of(name).save_pretrained(tmp_path / "bare")
    with pytest.raises(UserError, match=rf"has no '{missing}'; adapt takes a fine-tuned classifier"):
        adapt_model(str(tmp_path / "bare"), str(rows), tmp_path / "model", ADAPT, QUIET)


def test_an_electra_student_as_wide_as_embeddings_is_refused(tmp_path, rows):
    recipe = replace(
        ADAPT,
        stages=(StageConfig("regular", 1, 1e-3), StageConfig("distil", 1, 1e-3)),
        student=StudentConfig(2, "skip", hidden=16, intermediate=40),
    )
    checkpoint = save_family("electra", tmp_path / "checkpoint")
    with pytest.raises(UserError, match="hidden 16 is the width of the embeddings"):
        train_model(str(rows), tmp_path / "model", recipe, str(checkpoint), QUIET)


def test_a_tokenizer_with_more_ids_than_embeddings_is_refused(tmp_path, rows):
    checkpoint = save_family("camembert", tmp_path / "checkpoint")
    tokenizer_of("roberta").save_pretrained(checkpoint)
    with pytest.raises(UserError, match="the tokenizer has ids up to 265, the model only 27 embeddings"):
        adapt_model(str(checkpoint), str(rows), tmp_path / "model", ADAPT, QUIET)


def test_old_files_of_a_byte_level_tokenizer_are_enough(tmp_path, rows):
    checkpoint = save_family("roberta", tmp_path / "checkpoint")
    old = Path(shutil.copytree(checkpoint, tmp_path / "old"))
    pieces = json.loads((old / "tokenizer.json").read_text())["model"]
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (old / file).unlink()
    (old / "vocab.json").write_text(json.dumps(pieces["vocab"]))
    (old / "merges.txt").write_text("#version: 0.2\n" + "".join(" ".join(one) + "\n" for one in pieces["merges"]))
    adapt_model(str(old), str(rows), tmp_path / "model", ADAPT, QUIET)
    texts = random_texts(5, (3, 1, 7))
    mine, known = (TextTokenizer(folder, 30).encode(texts).tokens for folder in (tmp_path / "model", checkpoint))
    assert all(np.array_equal(one, other) for one, other in zip(mine, known, strict=True))
    assert read_manifest(tmp_path / "model").pairs


@pytest.mark.parametrize("name", ["roberta", "camembert", "distilbert"])
def test_a_static_tier_learns_from_any_teachers_tokenizer(tmp_path, rows, name):
    checkpoint = save_family(name, tmp_path / "checkpoint")
    adapt_model(str(checkpoint), str(rows), tmp_path / "teacher", ADAPT, QUIET)
    recipe = replace(ADAPT, stages=(), small=SmallConfig("static"), augment=AugmentConfig(copies=3))
    train_model(str(rows), tmp_path / "static", recipe, None, QUIET, str(tmp_path / "teacher"))
    model = OpenedModel.from_pretrained(tmp_path / "static")
    assert model.manifest.training["copies"]["copies"] > 100
    assert {answer.label for answer in model.answer(list(zip(["ba ki"], ["stone"], strict=True)))} <= set(LABELS)
