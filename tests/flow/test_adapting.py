"""Going on from a classifier that is trained: its classes, its answers, its rows and its INT8 stay what they are."""

import dataclasses
import json
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ziggurat.calibrate import fit_temperatures
from ziggurat.data import Fractions, Role, load, split_roles
from ziggurat.encoder import read_manifest
from ziggurat.engine import OpenedModel
from ziggurat.errors import UserError
from ziggurat.recipe import load_recipe
from ziggurat.training import TrainOptions, adapt_model, train_model
from ziggurat.training import fit as fitting

QUIET = TrainOptions(device="cpu", progress=False, mixed_precision=False)


def adapting(**changes):
    """A recipe that trains only heads, in no time."""
    recipe = load_recipe("adapt")
    return dataclasses.replace(recipe, stages=(dataclasses.replace(recipe.stages[0], epochs=0.2),), **changes)


def test_the_recipe_chooses_the_points_score_and_temperatures(rows_file, tiny_checkpoint, tmp_path):
    recipe = adapting(exit_score="agreement-in-a-row", temperatures=True)
    adapt_model(str(tiny_checkpoint), str(rows_file), tmp_path / "model", recipe, QUIET)
    classifier = OpenedModel.from_pretrained(tmp_path / "model")
    select = split_roles(load(str(rows_file)), Fractions())[Role.SELECT]
    every = classifier.every_rung(classifier.encode(select.texts)).readings
    expected = fit_temperatures(every, select.classes)
    assert (expected != 1).any()
    for point in classifier.manifest.operating_points:
        assert point.score == "agreement-in-a-row"
        assert point.temperatures == pytest.approx(expected.tolist())
        assert len(classifier.answer(select.texts, point)) == len(select)


def test_adapt_leaves_every_tensor_of_the_checkpoint_as_it_was(rows_file, tiny_checkpoint, tmp_path):
    from safetensors.torch import load_file

    adapt_model(str(tiny_checkpoint), str(rows_file), tmp_path / "model", options=QUIET)
    before, after = (load_file(folder / "model.safetensors") for folder in (tiny_checkpoint, tmp_path / "model"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_adapt_needs_no_labels(unlabelled, tiny_checkpoint, tmp_path):
    result = adapt_model(str(tiny_checkpoint), str(unlabelled), tmp_path / "model", options=QUIET)
    assert result.rows["train"] + result.rows["select"] + result.rows["certify"] == 240
    assert len(result.operating_points) == 3
    assert read_manifest(tmp_path / "model").labels == ("river", "stone", "tower")


def test_heads_alone_learn_the_checkpoints_answers_and_names(rows_file, make_bert, make_checkpoint, tmp_path):
    """Else a class of the classifier would get the name of another: labels of rows alone are sorted."""
    names = ("tower", "river", "stone")
    checkpoint = make_checkpoint(make_bert(id2label=dict(enumerate(names))), tmp_path / "checkpoint")
    recipe, texts = adapting(), [json.loads(line)["text"] for line in rows_file.read_text().splitlines()]
    adapt_model(str(checkpoint), str(rows_file), tmp_path / "adapted", recipe, QUIET)
    train_model(str(rows_file), tmp_path / "trained", recipe, str(checkpoint), QUIET)
    adapted, trained = (OpenedModel.from_pretrained(tmp_path / name) for name in ("adapted", "trained"))
    assert trained.manifest.labels == names
    assert [found.label for found in trained.answer(texts)] == [found.label for found in adapted.answer(texts)]


@pytest.mark.parametrize("kind", ["regular", "hard"])
def test_classes_keep_their_names_in_every_training(kind, rows_file, make_bert, make_checkpoint, tmp_path):
    names = ("tower", "river", "stone")
    checkpoint = make_checkpoint(make_bert(id2label=dict(enumerate(names))), tmp_path / "checkpoint")
    recipe = load_recipe("ltp")
    stage = next(stage for stage in recipe.stages if stage.kind == kind)
    brief = dataclasses.replace(stage, epochs=0.1, learning_rate=1e-9)
    pruning = dataclasses.replace(recipe.pruning, final=0.001) if kind == "hard" else None
    recipe = dataclasses.replace(recipe, stages=(brief,), pruning=pruning)
    train_model(str(rows_file), tmp_path / "trained", recipe, str(checkpoint), QUIET)
    adapt_model(str(checkpoint), str(rows_file), tmp_path / "adapted", adapting(), QUIET)
    trained, adapted = (OpenedModel.from_pretrained(tmp_path / name) for name in ("trained", "adapted"))
    texts = [json.loads(line)["text"] for line in rows_file.read_text().splitlines()]
    said = [[answer.label for answer in one.answer(texts, "full")] for one in (trained, adapted)]
    assert trained.manifest.labels == names and np.mean([a == b for a, b in zip(*said, strict=True)]) > 0.97


def test_a_classifier_of_other_classes_starts_fresh(rows_file, make_bert, make_checkpoint, tmp_path):
    """Which of its outputs would be which, nobody has said."""
    names = ("sun", "moon", "star")
    checkpoint = make_checkpoint(make_bert(id2label=dict(enumerate(names))), tmp_path / "checkpoint")
    recipe = load_recipe("full")
    brief = dataclasses.replace(recipe.stages[0], epochs=0.1, learning_rate=1e-9)
    recipe = dataclasses.replace(recipe, stages=(brief,), seed=7)  # the checkpoint is what seed 0 draws
    train_model(str(rows_file), tmp_path / "model", recipe, str(checkpoint), QUIET)
    mine, theirs = (load_file(folder / "model.safetensors") for folder in (tmp_path / "model", checkpoint))
    assert (mine["classifier.weight"] - theirs["classifier.weight"]).abs().max() > 0.01
    assert torch.allclose(mine["bert.pooler.dense.weight"], theirs["bert.pooler.dense.weight"], atol=1e-5)


def test_a_retrained_checkpoint_is_another_run(rows_file, make_bert, make_checkpoint, tmp_path, monkeypatch):
    checkpoint = make_checkpoint(make_bert(), tmp_path / "checkpoint")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(fitting, "add_operating_points", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        adapt_model(str(checkpoint), str(rows_file), tmp_path / "model", adapting(), QUIET)
    make_checkpoint(make_bert(initializer_range=0.3), checkpoint)
    with pytest.raises(UserError, match="an unfinished run with another model"):
        adapt_model(str(checkpoint), str(rows_file), tmp_path / "model", adapting(), QUIET)


def test_what_is_adapted_of_an_int8_folder_computes_in_int8(make_folder, rows_file, tmp_path):
    source = make_folder(int8=True)
    adapt_model(str(source), str(rows_file), tmp_path / "model", adapting(), QUIET)
    assert read_manifest(tmp_path / "model").int8
    ours, theirs = (OpenedModel.from_pretrained(folder, "cpu") for folder in (tmp_path / "model", source))
    texts = [json.loads(line)["text"] for line in rows_file.read_text().splitlines()][:40]
    pairs = zip(ours.answer(texts, "full"), theirs.answer(texts, "full"), strict=True)
    assert max(np.abs(mine.probabilities - their.probabilities).max() for mine, their in pairs) < 1e-6


def test_heads_learn_from_unlabelled_rows_at_any_label_weight(unlabelled, tiny_checkpoint, tmp_path):
    recipe = adapting()
    stage = dataclasses.replace(recipe.stages[0], epochs=8, label_weight=1.0)
    recipe = dataclasses.replace(recipe, stages=(stage,))
    adapt_model(str(tiny_checkpoint), str(unlabelled), tmp_path / "model", recipe, QUIET)
    classifier = OpenedModel.from_pretrained(tmp_path / "model")
    logits = classifier.every_rung(classifier.encode(load(str(unlabelled), labels_required=False).texts)).readings
    said = logits.argmax(axis=2)
    assert (said[:, :-1] == said[:, -1:]).mean() > 0.6


@pytest.mark.parametrize("out", [".", "x" * 300])
def test_a_place_that_cannot_be_is_refused_before_training(out, rows_file, tiny_checkpoint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"the folder that you are in|choose a shorter name"):
        adapt_model(str(tiny_checkpoint), str(rows_file), out, adapting(), QUIET)


@pytest.mark.parametrize(("key", "value"), [("epochs", "inf"), ("learning_rate", "inf"), ("weight_decay", "nan")])
def test_what_is_no_finite_number_is_refused(key, value, tmp_path):
    settings = {"epochs": "1", "learning_rate": "1e-3"} | {key: value}
    lines = "\n".join(f"{name} = {number}" for name, number in settings.items())
    recipe = tmp_path / "r.toml"
    recipe.write_text(f'name = "r"\ndescription = "d"\n[[stages]]\nkind = "regular"\n{lines}\n')
    with pytest.raises(UserError, match=f"{key}.*a finite number"):
        load_recipe(str(recipe))
    with pytest.raises(UserError, match="neither a file nor one of"):
        load_recipe("x" * 300)


def test_rows_of_a_continued_folder_keep_their_roles(rows_file, tiny_checkpoint, tmp_path):
    """Else rows that trained would choose."""
    first = dataclasses.replace(load_recipe("full"), select=0.3, certify=0.2)
    brief = dataclasses.replace(first.stages[0], epochs=0.1)
    first = dataclasses.replace(first, stages=(brief,))
    train_model(str(rows_file), tmp_path / "first", first, str(tiny_checkpoint), QUIET)
    made = adapt_model(str(tmp_path / "first"), str(rows_file), tmp_path / "second", adapting(), QUIET)
    shares = split_roles(load(str(rows_file)), Fractions(0.5, 0.3, 0.2, 0.0))
    assert made.rows == {str(role): len(rows) for role, rows in shares.items()}


def test_a_link_to_an_empty_folder_is_filled(rows_file, tiny_checkpoint, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "model").symlink_to(tmp_path / "empty")
    adapt_model(str(tiny_checkpoint), str(rows_file), tmp_path / "model", adapting(), QUIET)
    assert read_manifest(tmp_path / "empty").labels == ("river", "stone", "tower")


def test_a_stage_that_needs_labels_refuses_rows_without(unlabelled, tiny_checkpoint, tmp_path):
    recipe = load_recipe("ltp")
    soft = dataclasses.replace(recipe.stages[1], distillation=0.5)
    recipe = dataclasses.replace(recipe, stages=(soft, *recipe.stages[2:]))
    with pytest.raises(UserError, match="has no labels, which stage 'soft' needs"):
        train_model(str(unlabelled), tmp_path / "model", recipe, str(tiny_checkpoint), QUIET)


def test_temperatures_without_labels_are_refused_before_training(unlabelled, tiny_checkpoint, tmp_path):
    with pytest.raises(UserError, match=r"label its rows, or set temperatures = false in recipe 'adapt'"):
        adapt_model(str(tiny_checkpoint), str(unlabelled), tmp_path / "model", adapting(temperatures=True), QUIET)
    assert not (tmp_path / "model.training").exists()


def test_temperatures_without_scipy_are_refused_before_training(rows_file, tiny_checkpoint, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    with pytest.raises(UserError, match=r"pip install '\.\[train\]' in Ziggurat's folder"):
        adapt_model(str(tiny_checkpoint), str(rows_file), tmp_path / "model", adapting(temperatures=True), QUIET)
    assert not (tmp_path / "model.training").exists()


@pytest.mark.parametrize("score", ["luck", "top-entropy@1", "confident-in-a-row@2"])
def test_an_unknown_exit_score_is_refused_before_training(score, rows_file, tiny_checkpoint, tmp_path):
    with pytest.raises(UserError, match=f"{score!r}.*known: entropy, "):
        adapt_model(str(tiny_checkpoint), str(rows_file), tmp_path / "model", adapting(exit_score=score), QUIET)
    assert not (tmp_path / "model.training").exists()


def test_adapt_refuses_labels_that_the_checkpoint_does_not_have(tiny_checkpoint, rows_file, tmp_path):
    strange = tmp_path / "strange.jsonl"
    strange.write_text(rows_file.read_text().replace('"tower"', '"castle"'))
    with pytest.raises(UserError, match="'castle'"):
        adapt_model(str(tiny_checkpoint), str(strange), tmp_path / "model", options=QUIET)
    assert not (tmp_path / "model.training").exists()


def test_adapt_refuses_a_recipe_that_would_retrain(tiny_checkpoint, rows_file, tiny_recipe, tmp_path):
    with pytest.raises(UserError, match="regular"):
        adapt_model(str(tiny_checkpoint), str(rows_file), tmp_path / "model", str(tiny_recipe), QUIET)
