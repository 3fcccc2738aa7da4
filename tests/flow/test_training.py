import dataclasses
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from ziggurat.calibrate.choose import with_operating_points
from ziggurat.cli.training import training_text
from ziggurat.data import DEFAULT_COLUMNS, Fractions, Role, load, split_roles
from ziggurat.encoder import has_classifier, load_hf, read_manifest, trained_rows
from ziggurat.engine import OpenedModel
from ziggurat.errors import UserError
from ziggurat.recipe import PruningConfig, StageConfig, load_recipe
from ziggurat.training import TrainOptions, loop, read_roles, refuse_misfits, train_model
from ziggurat.training import fit as fitting
from ziggurat.training.pipeline import Fit, fit_folder
from ziggurat.training.teachers import refuse_random_answers

QUIET = TrainOptions(device="cpu", progress=False, mixed_precision=False)
SOFT, HARD, HEADS, REGULAR = (StageConfig(kind, 1.0, 1e-3) for kind in ("soft", "hard", "heads", "regular"))


@pytest.fixture(scope="module")
def trained(rows_file, tiny_recipe, tiny_checkpoint, tmp_path_factory):
    out = tmp_path_factory.mktemp("trained") / "model"
    return out, train_model(str(rows_file), out, str(tiny_recipe), str(tiny_checkpoint), QUIET)


def roles_of(rows_file):
    return split_roles(load(str(rows_file)), Fractions())


def test_a_trained_folder_classifies_rows_that_trained_nothing(trained, rows_file):
    held_out = roles_of(rows_file)[Role.CERTIFY]
    answers = OpenedModel.from_pretrained(trained[0]).answer(held_out.texts, "full")
    right = [
        answer.label == held_out.label_names[label] for answer, label in zip(answers, held_out.labels, strict=True)
    ]
    assert np.mean(right) > 0.8


def test_every_target_has_an_operating_point_of_these_weights(trained):
    manifest = read_manifest(trained[0])
    assert [point.name for point in manifest.operating_points] == ["exact", "balanced", "fast"]
    assert {point.fingerprint for point in manifest.operating_points} == {manifest.fingerprint}
    assert {point.confidence for point in manifest.operating_points} == {None}


def test_points_are_chosen_on_select_rows(trained, rows_file):
    digest = roles_of(rows_file)[Role.SELECT].digest
    assert {point.data for point in read_manifest(trained[0]).operating_points} == {digest}


def test_the_folder_knows_which_rows_it_has_seen(trained, rows_file):
    roles, seen = roles_of(rows_file), trained_rows(trained[0])
    assert np.isin(roles[Role.TRAIN].hashes, seen).all()
    assert np.isin(roles[Role.SELECT].hashes, seen).all()
    assert not np.isin(roles[Role.CERTIFY].hashes, seen).any()


def test_nothing_is_left_beside_the_model(trained):
    assert [path.name for path in trained[0].parent.iterdir()] == ["model"]


def test_the_same_call_gives_the_same_model(trained, rows_file, tiny_recipe, tiny_checkpoint, tmp_path):
    again = train_model(str(rows_file), tmp_path / "model", str(tiny_recipe), str(tiny_checkpoint), QUIET)
    assert again.operating_points == trained[1].operating_points
    assert read_manifest(tmp_path / "model").fingerprint == read_manifest(trained[0]).fingerprint


def test_a_full_folder_is_never_written_over(trained, rows_file, tiny_recipe, tiny_checkpoint):
    before = sorted((path.name, path.stat().st_mtime_ns) for path in trained[0].iterdir())
    with pytest.raises(UserError, match="not empty"):
        train_model(str(rows_file), trained[0], str(tiny_recipe), str(tiny_checkpoint), QUIET)
    assert sorted((path.name, path.stat().st_mtime_ns) for path in trained[0].iterdir()) == before


def interrupted(rows_file, recipe, checkpoint, out, monkeypatch):
    """Stops a run before its second stage."""
    finish = loop._finish

    def stop(module, finished):
        finish(module, finished)
        raise UserError("stopped")

    with monkeypatch.context() as patch, pytest.raises(UserError, match="stopped"):
        patch.setattr(loop, "_finish", stop)
        train_model(str(rows_file), out, str(recipe), str(checkpoint), QUIET)
    assert not out.exists()


def test_an_interrupted_run_ends_like_an_unbroken_one(
    trained, rows_file, tiny_recipe, tiny_checkpoint, tmp_path, monkeypatch
):
    out = tmp_path / "model"
    interrupted(rows_file, tiny_recipe, tiny_checkpoint, out, monkeypatch)
    train_model(str(rows_file), out, str(tiny_recipe), str(tiny_checkpoint), QUIET)
    assert read_manifest(out).fingerprint == read_manifest(trained[0]).fingerprint


def test_an_unfinished_run_of_another_recipe_is_refused(rows_file, tiny_recipe, tiny_checkpoint, tmp_path, monkeypatch):
    interrupted(rows_file, tiny_recipe, tiny_checkpoint, tmp_path / "model", monkeypatch)
    with pytest.raises(UserError, match="another recipe"):
        train_model(str(rows_file), tmp_path / "model", "early-exit", str(tiny_checkpoint), QUIET)


def published_late(rows_file, recipe, checkpoint, out, monkeypatch, options=QUIET):
    """Stops a run when its model is finished and its operating points are not chosen yet."""
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(fitting, "add_operating_points", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        train_model(str(rows_file), out, str(recipe), str(checkpoint), options)
    assert (out.with_name("model.training") / "model").exists() and not out.exists()


def test_a_finished_model_without_points_is_no_other_runs(
    trained, rows_file, tiny_recipe, tiny_checkpoint, tmp_path, monkeypatch
):
    published_late(rows_file, tiny_recipe, tiny_checkpoint, tmp_path / "model", monkeypatch)
    with pytest.raises(UserError, match="another recipe"):
        train_model(str(rows_file), tmp_path / "model", "early-exit", str(tiny_checkpoint), QUIET)
    train_model(str(rows_file), tmp_path / "model", str(tiny_recipe), str(tiny_checkpoint), QUIET)
    assert read_manifest(tmp_path / "model").fingerprint == read_manifest(trained[0]).fingerprint


def test_kept_stages_are_finished_models_without_points(rows_file, tiny_recipe, tiny_checkpoint, tmp_path, monkeypatch):
    published_late(rows_file, tiny_recipe, tiny_checkpoint, tmp_path / "model", monkeypatch)
    keep = dataclasses.replace(QUIET, keep_stages=True)
    train_model(str(rows_file), tmp_path / "model", str(tiny_recipe), str(tiny_checkpoint), keep)
    assert sorted(path.name for path in (tmp_path / "model.stages").iterdir()) == ["1-regular", "2-heads"]


def test_a_warning_says_that_pruning_unlearned_the_task(trained, rows_file, tmp_path):
    _, soft, hard = load_recipe("ltp").stages
    brief = {"epochs": 0.1, "learning_rate": 1e-6}
    stages = (dataclasses.replace(soft, regularisation=0.0, trial=False, **brief), dataclasses.replace(hard, **brief))
    said = {}
    for words in (0.01, None):
        pruning = dataclasses.replace(load_recipe("ltp").pruning, final=0.01, vocabulary=words)
        recipe = dataclasses.replace(load_recipe("ltp"), stages=stages, pruning=pruning)
        made = train_model(str(rows_file), tmp_path / str(words), recipe, str(trained[0]), QUIET)
        said[words] = training_text(made)
        assert made.pruned_accuracy == read_manifest(tmp_path / str(words)).training["pruned_accuracy"]
        assert (made.pruned_accuracy < 0.85) == ("warning: pruning" in said[words])
    plain = read_manifest(trained[0]).training["regular_accuracy"]  # it is known of the folder that is gone on from
    assert f"the plain model had {plain:.1%}" in said[0.01] and "warning:" not in said[None]


def test_a_vocabulary_that_costs_too_much_is_taken_back(trained, rows_file, tmp_path):
    _, soft, hard = load_recipe("ltp").stages
    brief = {"epochs": 0.1, "learning_rate": 1e-6}
    stages = (dataclasses.replace(soft, regularisation=0.0, **brief), dataclasses.replace(hard, **brief))
    pruning = dataclasses.replace(load_recipe("ltp").pruning, final=0.01, vocabulary=0.01)
    recipe = dataclasses.replace(load_recipe("ltp"), stages=stages, pruning=pruning)
    made = train_model(str(rows_file), tmp_path / "model", recipe, str(trained[0]), QUIET)
    manifest = read_manifest(tmp_path / "model")
    assert not made.trials.vocabulary.accepted and manifest.training["trials"] == made.to_dict()["trials"]
    assert "no word is left out: by 1% of the tokens" in training_text(made) and "warning:" not in training_text(made)
    assert manifest.pruning == dataclasses.replace(pruning, vocabulary=None)
    assert "pruning.vocabulary" not in load_file(tmp_path / "model" / "ziggurat.safetensors")
    further = dataclasses.replace(recipe, stages=stages[1:])
    for source, out in (("model", "further"), ("further", "still")):
        train_model(str(rows_file), tmp_path / out, further, str(tmp_path / source), QUIET)
        assert read_manifest(tmp_path / out).pruning == manifest.pruning
        assert read_manifest(tmp_path / out).training["trials"] == made.to_dict()["trials"]


def test_points_use_entropy_without_temperatures_by_default(trained):
    points = read_manifest(trained[0]).operating_points
    assert {(point.score, point.temperatures) for point in points} == {("entropy", None)}


@pytest.mark.parametrize(
    "stages",
    [
        (HEADS,),
        (dataclasses.replace(HARD, distillation=0.5), HEADS),
        (HARD, dataclasses.replace(HEADS, distillation=1.0)),
    ],
)
def test_train_refuses_to_learn_from_random_answers(stages, tiny_checkpoint, rows_file, tmp_path):
    encoder = shutil.copytree(tiny_checkpoint, tmp_path / "encoder")
    tensors = load_file(encoder / "model.safetensors")
    save_file(
        {name: tensor for name, tensor in tensors.items() if not name.startswith("classifier")},
        encoder / "model.safetensors",
        metadata={"format": "pt"},
    )
    recipe = dataclasses.replace(load_recipe("manual-thresholds"), stages=stages, head_layers=None)
    taught = dataclasses.replace(recipe, stages=(REGULAR, *stages))
    refuse_random_answers(recipe, tiny_checkpoint, has_classifier)  # it has a classifier
    refuse_random_answers(taught, encoder, has_classifier)
    with pytest.raises(UserError, match="put a stage 'regular' first"):
        train_model(str(rows_file), tmp_path / "model", recipe, str(encoder), QUIET)
    assert not (tmp_path / "model.training").exists()


@pytest.mark.parametrize("kinds", [("heads", "regular"), ("heads", "int8"), ("heads", "joint", "hard")])
def test_train_refuses_heads_before_a_stage_that_trains_on(kinds, tiny_checkpoint, rows_file, tmp_path):
    stages = tuple(StageConfig(kind, 1, 1e-3) for kind in kinds)
    recipe = dataclasses.replace(load_recipe("early-exit"), stages=stages, pruning=PruningConfig())
    with pytest.raises(UserError, match=f"'{kinds[-1]}' stands behind '{kinds[-2]}'"):
        train_model(str(rows_file), tmp_path / "model", recipe, str(tiny_checkpoint), QUIET)


def test_heads_may_follow_a_stage_that_changed_their_input(tiny_checkpoint):
    spec, stale = load_hf(tiny_checkpoint, 3, "fastbert", None).spec, []
    for kinds in (("heads", "regular", "heads"), ("heads", "joint"), ("heads", "regular")):
        stages = tuple(StageConfig(kind, 1, 1e-3) for kind in kinds)
        try:
            refuse_misfits(dataclasses.replace(load_recipe("early-exit"), stages=stages), spec)
        except UserError:
            stale.append(kinds)
    assert stale == [("heads", "regular")]


def test_a_score_that_no_stage_fits_is_refused_before_training(rows_file, tiny_checkpoint, tmp_path):
    recipe = dataclasses.replace(load_recipe("early-exit"), exit_score="learned")
    with pytest.raises(UserError, match="`ziggurat calibrate` tries it automatically"):
        train_model(str(rows_file), tmp_path / "model", recipe, str(tiny_checkpoint), QUIET)
    assert not list(tmp_path.iterdir())


def test_the_built_in_rows_keep_their_roles_under_other_labels(rows_file, monkeypatch):
    """Else rows that are kept to certify, or to test, would train a teacher's student or an adapted checkpoint."""
    rows, recipe = load(str(rows_file)), load_recipe("early-exit")
    monkeypatch.setattr(fitting, "load", lambda *_, **__: rows)
    own, named = (
        read_roles("stdlib-docs", recipe, DEFAULT_COLUMNS, names) for names in (None, ("river", "stone", "tower"))
    )
    assert own.keys() == named.keys() == set(Role)
    assert all(own[role].texts == named[role].texts for role in Role)


def test_a_stages_folder_continues_with_its_learned_pruning(tiny_checkpoint, rows_file, tmp_path):
    def train(name, model, *stages, **pruning):
        recipe = dataclasses.replace(load_recipe("early-exit"), stages=stages, pruning=PruningConfig(**pruning))
        train_model(str(rows_file), tmp_path / name, recipe, str(model), QUIET)
        return load_file(tmp_path / name / "ziggurat.safetensors")["pruning.values"]

    soft = dataclasses.replace(SOFT, threshold_learning_rate=0.05, trial=False)
    learned = train("soft", tiny_checkpoint, soft, final=0.6, vocabulary=0.9)
    assert not torch.allclose(learned, torch.tensor([0.15, 0.3, 0.45, 0.6]), atol=0.01)
    # Nor is it asked to learn a vocabulary that it knows.
    assert torch.equal(train("hard", tmp_path / "soft", HARD, final=0.6, vocabulary=0.9), learned)
    assert torch.equal(train("heads", tmp_path / "hard", HEADS, final=0.6, vocabulary=0.9), learned)
    other = train("other", tmp_path / "soft", HARD, final=0.8)
    assert torch.allclose(other, torch.tensor([0.2, 0.4, 0.6, 0.8]))
    with pytest.raises(UserError, match="nothing has learned the vocabulary"):
        train("unlearned", tmp_path / "soft", HARD, final=0.8, vocabulary=0.9)


def test_train_refuses_rows_without_labels(tiny_checkpoint, tiny_recipe, tmp_path):
    bare = tmp_path / "bare.jsonl"
    bare.write_text('{"text": "bat kin"}\n' * 3)
    with pytest.raises(UserError, match="label"):
        train_model(str(bare), tmp_path / "model", str(tiny_recipe), str(tiny_checkpoint), QUIET)


@pytest.mark.parametrize("role", [Role.SELECT, Role.CERTIFY, Role.TEST])
def test_only_train_rows_train(role, rows_file, tiny_recipe, tiny_checkpoint, tmp_path):
    roles = split_roles(load(str(rows_file)), Fractions(0.4, 0.2, 0.2, 0.2))
    fit = Fit(tiny_checkpoint, load_recipe(str(tiny_recipe)), tmp_path / "work", tmp_path / "made", "cpu")
    with pytest.raises(UserError, match="may not train"):
        fit_folder(fit, roles[role], roles[Role.SELECT])
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize("role", [Role.TRAIN, Role.CERTIFY, Role.TEST])
def test_only_select_rows_choose(role, rows_file, tiny_recipe, tiny_checkpoint, model_folder, tmp_path):
    roles = split_roles(load(str(rows_file)), Fractions(0.4, 0.2, 0.2, 0.2))
    fit = Fit(tiny_checkpoint, load_recipe(str(tiny_recipe)), tmp_path / "work", tmp_path / "made", "cpu")
    with pytest.raises(UserError, match="takes select rows"):
        fit_folder(fit, roles[Role.TRAIN], roles[role])
    with pytest.raises(UserError, match="takes select rows"):
        with_operating_points(OpenedModel.from_pretrained(model_folder), roles[role], fit.recipe, progress=False)


def test_shipped_recipes_that_train_take_every_stage_in_order():
    assert [stage.kind for stage in load_recipe("early-exit").stages] == ["regular", "heads"]
    assert [stage.kind for stage in load_recipe("adapt").stages] == ["heads"]


def test_the_share_that_is_kept_out_may_be_asked_for(rows_file, tiny_recipe, tiny_checkpoint, tmp_path):
    quick = dataclasses.replace(load_recipe(str(tiny_recipe)), stages=load_recipe(str(tiny_recipe)).stages[1:])
    options = dataclasses.replace(QUIET, certify=0.4)
    made = train_model(str(rows_file), tmp_path / "out", quick, str(tiny_checkpoint), options)
    assert 0.3 < made.rows["certify"] / 240 < 0.5
    assert read_manifest(tmp_path / "out").training["recipe"]["certify"] == 0.4
    with pytest.raises(UserError, match="--certify"):
        train_model(
            str(rows_file), tmp_path / "no", quick, str(tiny_checkpoint), dataclasses.replace(options, certify=0.95)
        )
