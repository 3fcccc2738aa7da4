"""From rows to a student's folder, with a teacher trained on the way or brought along."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from tests.kit.questions import save_span_folder
from ziggurat import native
from ziggurat.data import Fractions, Role, load, split_roles
from ziggurat.encoder import fingerprint, read_manifest, trained_rows, write_manifest
from ziggurat.engine import OpenedModel
from ziggurat.errors import UserError
from ziggurat.recipe import PruningConfig, Recipe, StageConfig, StudentConfig, load_recipe
from ziggurat.training import TrainOptions, adapt_model, train_model
from ziggurat.training.teachers import with_teacher

QUIET = TrainOptions(device="cpu", progress=False, mixed_precision=False)
STUDENTS = ("distil", "pkd", "pkd-last", "theseus", "truncated", "tinybert", "dynamic-tinybert")
TINY = StudentConfig(2, "skip", hidden=24, intermediate=40)


def quick(name, **changes):
    """A shipped recipe in seconds, its student no wider than the tiny checkpoint."""
    recipe = load_recipe(name)
    stages = [dataclasses.replace(stage, epochs=2, learning_rate=3e-3, evaluations=1) for stage in recipe.stages]
    student = recipe.student if recipe.student.hidden is None else TINY
    search = recipe.search and dataclasses.replace(recipe.search, iterations=1, population=3, mutations=2, crossovers=2)
    settings = {"stages": tuple(stages), "student": student, "search": search, "max_length": 24}
    return dataclasses.replace(recipe, **settings | changes)


@pytest.fixture(scope="module")
def teacher(rows_file, tiny_recipe, tiny_checkpoint, tmp_path_factory):
    out = tmp_path_factory.mktemp("teacher") / "model"
    train_model(str(rows_file), out, str(tiny_recipe), str(tiny_checkpoint), QUIET)
    return out


@pytest.fixture(scope="module")
def students(rows_file, tiny_checkpoint, tmp_path_factory):
    """The folder of every shipped recipe's student, made when it is first asked for."""
    made = {}

    def make(name):
        if name not in made:
            made[name] = tmp_path_factory.mktemp("students") / name
            train_model(str(rows_file), made[name], quick(name), str(tiny_checkpoint), QUIET)
        return made[name]

    return make


@pytest.mark.parametrize("name", STUDENTS)
def test_a_shipped_student_recipe_fits_plain_transformers(name, students, texts):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder, config = students(name), quick(name).student
    said = json.loads((folder / "config.json").read_text())
    assert said["num_hidden_layers"] == config.layers
    assert (said["hidden_size"], said["intermediate_size"]) == (config.hidden or 32, config.intermediate or 64)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokens = AutoTokenizer.from_pretrained(folder)(
        texts, truncation=True, max_length=24, padding=True, return_tensors="pt"
    )
    with torch.no_grad():
        wanted = model(**tokens).logits.softmax(-1).numpy()
    for engine in ("torch", "native") if not native.why_missing() else ("torch",):
        classifier = OpenedModel.from_pretrained(folder, backend=engine)
        answers = classifier.answer(texts, "full")
        assert np.abs(np.stack([answer.probabilities for answer in answers]) - wanted).max() < 1e-4
        assert all(answer.trace.layers == config.layers for answer in answers)


def test_a_student_learns_its_task(teacher, rows_file, tmp_path):
    recipe = quick("truncated")
    recipe = dataclasses.replace(recipe, stages=[dataclasses.replace(stage, epochs=8) for stage in recipe.stages])
    train_model(str(rows_file), tmp_path / "model", recipe, None, QUIET, teacher=str(teacher))
    held_out = split_roles(load(str(rows_file)), Fractions())[Role.CERTIFY]
    answers = OpenedModel.from_pretrained(tmp_path / "model").answer(held_out.texts, "full")
    right = [
        answer.label == held_out.label_names[label] for answer, label in zip(answers, held_out.labels, strict=True)
    ]
    assert np.mean(right) > 0.8


def test_a_dynamic_students_shares_were_searched_for(students):
    manifest = read_manifest(students("dynamic-tinybert"))
    assert manifest.training["search"]["chosen"]["shares"]
    assert len(manifest.training["search"]["chosen"]["shares"]) == 2


def test_a_student_may_get_exit_heads_in_a_later_stage(teacher, rows_file, tmp_path):
    heads = StageConfig("heads", 1, 5e-3)
    recipe = quick("truncated", head_layers=None)
    recipe = dataclasses.replace(recipe, stages=(*recipe.stages, heads))
    train_model(str(rows_file), tmp_path / "model", recipe, None, QUIET, teacher=str(teacher))
    assert read_manifest(tmp_path / "model").head_layers == (1,)
    assert len(OpenedModel.from_pretrained(tmp_path / "model").rungs) == 2


def test_a_teacher_is_unchanged_and_its_rows_count_as_seen(teacher, rows_file, tmp_path):
    before = {path.name: path.read_bytes() for path in teacher.iterdir()}
    # Half of the rows: the teacher's others are none of the student's own.
    lines = rows_file.read_text().splitlines()[:120]
    half = tmp_path / "half.jsonl"
    half.write_text("\n".join(lines) + "\n")
    train_model(str(half), tmp_path / "model", quick("truncated"), None, QUIET, teacher=str(teacher))
    assert {path.name: path.read_bytes() for path in teacher.iterdir()} == before
    manifest, seen = read_manifest(tmp_path / "model"), trained_rows(tmp_path / "model")
    assert manifest.training["stages"] == ["distil"]
    assert manifest.labels == read_manifest(teacher).labels
    assert np.isin(trained_rows(teacher), seen).all() and len(np.unique(seen)) == len(seen)
    roles = split_roles(load(str(half)), Fractions())
    assert all(np.isin(roles[role].hashes, seen).all() for role in (Role.TRAIN, Role.SELECT))
    assert not np.isin(roles[Role.CERTIFY].hashes, seen).any()


def test_rows_of_a_folder_that_is_trained_further_count_too(teacher, rows_file, tmp_path):
    half = tmp_path / "half.jsonl"
    half.write_text("\n".join(rows_file.read_text().splitlines()[:120]) + "\n")
    adapt_model(str(teacher), str(half), tmp_path / "model", options=QUIET)
    assert np.isin(trained_rows(teacher), trained_rows(tmp_path / "model")).all()


def test_a_teacher_makes_labels_needless(teacher, rows_file, tmp_path):
    rows = [json.loads(line) for line in rows_file.read_text().splitlines()]
    bare = tmp_path / "bare.jsonl"
    bare.write_text("".join(json.dumps({"text": row["text"]}) + "\n" for row in rows))
    train_model(str(bare), tmp_path / "model", quick("truncated"), None, QUIET, teacher=str(teacher))
    manifest = read_manifest(tmp_path / "model")
    assert manifest.labels == read_manifest(teacher).labels
    with pytest.raises(UserError, match="has no labels, which stage 'theseus' needs; label rows, or take distil"):
        train_model(str(bare), tmp_path / "other", quick("theseus"), None, QUIET, teacher=str(teacher))


def test_an_interrupted_student_ends_like_an_unbroken_one(teacher, rows_file, tmp_path, monkeypatch):
    from ziggurat.training import pipeline

    recipe, save = quick("tinybert"), pipeline.save_model
    train_model(str(rows_file), tmp_path / "unbroken", recipe, None, QUIET, teacher=str(teacher))
    with monkeypatch.context() as patch, pytest.raises(UserError, match="stopped"):
        patch.setattr(pipeline, "save_model", stop)
        train_model(str(rows_file), tmp_path / "model", recipe, None, QUIET, teacher=str(teacher))
    assert pipeline.save_model is save
    train_model(str(rows_file), tmp_path / "model", recipe, None, QUIET, teacher=str(teacher))
    prints = {read_manifest(tmp_path / name).fingerprint for name in ("unbroken", "model")}
    assert len(prints) == 1


def stop(*_):
    raise UserError("stopped")


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ([{"text": "bat", "label": "sea"}] * 9, "unknown label 'sea'; the known ones are 'river', 'stone', 'tower'"),
        (
            [{"text": f"bat {i}", "text_pair": "kin", "label": "river"} for i in range(60)],
            "has pairs of texts, the teacher .* reads single texts; give it rows of single texts",
        ),
    ],
)
def test_rows_of_another_task_are_refused_with_the_fix(lines, says, teacher, tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(UserError, match=says):
        train_model(str(rows), tmp_path / "model", quick("distil"), None, QUIET, teacher=str(teacher))


def test_the_built_in_rows_of_another_task_are_refused(teacher, tmp_path):
    with pytest.raises(UserError, match=r"unknown label .*; the known ones are .river., .stone., .tower."):
        train_model("stdlib-docs", tmp_path / "model", quick("distil"), None, QUIET, teacher=str(teacher))


@pytest.mark.parametrize(
    ("recipe", "model", "says"),
    [
        ("early-exit", None, "'early-exit': makes no student.*take one with a .student. table, such as distil"),
        ("distil", "some/encoder", "a student starts from its teacher; leave --model out"),
        ("static", "some/encoder", "a student starts from its teacher; leave --model out"),
    ],
)
def test_a_teacher_without_a_student_or_with_a_model_is_refused(recipe, model, says, teacher, rows_file, tmp_path):
    with pytest.raises(UserError, match=says):
        train_model(str(rows_file), tmp_path / "model", recipe, model, QUIET, teacher=str(teacher))


def test_a_teacher_that_nobody_trained_is_refused(rows_file, tiny_checkpoint, tmp_path):
    recipe = with_teacher(load_recipe("distil"))
    assert [stage.kind for stage in recipe.stages] == ["distil"]
    with pytest.raises(UserError, match="put a stage 'regular' first, or give a trained one with --teacher"):
        train_model(str(rows_file), tmp_path / "model", recipe, str(tiny_checkpoint), QUIET)
    with pytest.raises(UserError, match="make one from a fine-tuned checkpoint with `ziggurat adapt`"):
        train_model(str(rows_file), tmp_path / "model", recipe, None, QUIET, teacher=str(tiny_checkpoint))


def test_only_the_regular_stages_of_the_teacher_are_left_out():
    regular, distil = StageConfig("regular", 1, 1e-3), StageConfig("distil", 1, 1e-3)
    recipe = Recipe("mine", "a test", (regular, distil, regular), student=StudentConfig(2))
    assert with_teacher(recipe).stages == (distil, regular)


def test_a_small_model_has_its_teachers_roles_and_no_stages(teacher, rows_file, tmp_path):
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text(rows_file.read_text().replace('"label"', '"text_pair": "kit", "label"'))
    with pytest.raises(UserError, match=r"the teacher .* reads single texts"):
        train_model(str(pairs), tmp_path / "model", "static", None, QUIET, teacher=str(teacher))
    keep = dataclasses.replace(QUIET, keep_stages=True)
    with pytest.raises(UserError, match="--keep-stages: recipe 'static' has no stages"):
        train_model(str(rows_file), tmp_path / "model", "static", None, keep, teacher=str(teacher))


@pytest.mark.parametrize("recipe", ["static", "bilstm"])
def test_adapt_makes_no_small_model(recipe, rows_file, tiny_checkpoint, tmp_path):
    with pytest.raises(UserError, match="makes a small model and no exits; use `ziggurat train --teacher"):
        adapt_model(str(tiny_checkpoint), str(rows_file), tmp_path / "model", recipe, QUIET)


def test_adapt_makes_no_student(rows_file, tiny_checkpoint, tmp_path):
    with pytest.raises(UserError, match="would change the checkpoint"):
        adapt_model(str(tiny_checkpoint), str(rows_file), tmp_path / "model", "truncated", QUIET)


def test_a_student_starts_from_the_checkpoint_that_is_named(teacher, rows_file, make_bert, make_checkpoint, tmp_path):
    small = make_checkpoint(make_bert(num_hidden_layers=2, hidden_size=24, intermediate_size=40), tmp_path / "small")
    options = dataclasses.replace(QUIET, student=str(small))
    train_model(str(rows_file), tmp_path / "model", quick("tinybert"), None, options, teacher=str(teacher))
    assert read_manifest(tmp_path / "model").training["recipe"]["student"]["checkpoint"] == str(small)
    with pytest.raises(UserError, match="makes no student, so --student has no use"):
        train_model(str(rows_file), tmp_path / "other", "early-exit", None, options)


def test_a_run_does_not_resume_with_a_retrained_teacher(teacher, rows_file, copied, tmp_path, monkeypatch):
    from ziggurat.training import pipeline

    mine, recipe = copied(teacher), quick("truncated")
    with monkeypatch.context() as patch, pytest.raises(UserError, match="stopped"):
        patch.setattr(pipeline, "save_model", stop)
        train_model(str(rows_file), tmp_path / "model", recipe, None, QUIET, teacher=str(mine))
    write_manifest(dataclasses.replace(read_manifest(mine), max_length=20, fingerprint=""), mine)
    manifest = read_manifest(mine)
    write_manifest(dataclasses.replace(manifest, fingerprint=fingerprint(mine, manifest)), mine)
    with pytest.raises(UserError, match="unfinished run with another model"):
        train_model(str(rows_file), tmp_path / "model", recipe, None, QUIET, teacher=str(mine))


def test_every_stage_of_a_student_can_be_kept(rows_file, tiny_checkpoint, tmp_path):
    options = dataclasses.replace(QUIET, keep_stages=True)
    pruned = quick("truncated", pruning=PruningConfig(kind="share", schedule="flat", final=0.9))
    train_model(str(rows_file), tmp_path / "model", pruned, str(tiny_checkpoint), options)
    layers = {
        path.name: json.loads((path / "config.json").read_text())["num_hidden_layers"]
        for path in (tmp_path / "model.stages").iterdir()
    }
    assert layers == {"1-regular": 4, "2-distil": 2}


def test_a_model_of_spans_teaches_no_student(rows_file, make_checkpoint, tmp_path):
    teacher = save_span_folder(tmp_path / "spans", make_checkpoint)
    with pytest.raises(UserError, match="stage 'distil' is not for question_answering"):
        train_model(str(rows_file), tmp_path / "model", quick("truncated"), None, QUIET, teacher=str(teacher))
