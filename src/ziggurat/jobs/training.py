"""`train` and `adapt`: rows and a backbone in, a model folder out."""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from ziggurat.data.named import task_of
from ziggurat.data.named_rows import called_like
from ziggurat.data.sources import DEFAULT_COLUMNS, Columns
from ziggurat.data.squad import Questions
from ziggurat.data.stdlib_docs import STDLIB_DOCS
from ziggurat.data.tasks import Dataset, Fractions, Role, load, load_builtin, split_roles
from ziggurat.encoder.cascade import write_cascade
from ziggurat.encoder.folder import (
    LABEL_RANGE,
    Manifest,
    check_fingerprint,
    checkpoint_labels,
    checkpoint_problem,
    read_manifest,
    write_manifest,
)
from ziggurat.encoder.hub import local_folder, packaged_encoder
from ziggurat.encoder.mapped import require_classifier
from ziggurat.engine.classifier import AdaptiveClassifier
from ziggurat.errors import UserError
from ziggurat.files import refuse_full_folder
from ziggurat.jobs.cascading import learn_deferral
from ziggurat.jobs.choosing import with_operating_points
from ziggurat.jobs.length_search import searched_folder
from ziggurat.jobs.opening import ModelOptions
from ziggurat.jobs.question_choosing import add_question_points, plain_f1
from ziggurat.jobs.question_rows import asks_questions, question_recipe, question_roles, require_spans
from ziggurat.jobs.refusals import refuse_other_problem
from ziggurat.jobs.small_training import train_small
from ziggurat.jobs.teachers import refuse_other_task, refuse_untaught, with_checkpoint, with_teacher
from ziggurat.policies.exits import exit_score
from ziggurat.policies.outputs import output_of
from ziggurat.recipe import BACKBONE_STAGES, Recipe, load_recipe
from ziggurat.types import Label, Problem

Roles = Mapping[Role, Dataset]
QuestionRoles = Mapping[Role, Questions]


@dataclass(frozen=True)
class TrainOptions:
    """What a training run may be told beside its recipe."""

    columns: Columns = DEFAULT_COLUMNS
    device: str = "auto"
    progress: bool = True
    mixed_precision: bool = True
    certify: float | None = None  # share of the rows that is kept out for `calibrate`; None = as the recipe says
    keep_stages: bool = False  # also a model folder for each stage, in OUT.stages
    student: str | None = None  # encoder that the recipe's student starts from; None = as the recipe says
    problem: Problem | None = None  # what the labels ask; None = what rows look like, or the checkpoint answers
    label_range: tuple[float, float] | None = None  # of a regression; None = least and largest label of the rows


def train_classifier(
    source: str,
    out: str | Path,
    recipe: str | Recipe = "early-exit",
    model: str | None = None,
    options: TrainOptions = TrainOptions(),
    teacher: str | None = None,
) -> dict[str, Any]:
    """Trains a classifier from a pre-trained encoder (default: the packaged MiniLM) into the folder `out`.

    `teacher`, a model folder of ours, is what the recipe's student is made from, or its small model, and learns from;
    its `regular` stage is then left out, and rows need no labels where no stage does. Goes on where an earlier,
    interrupted call with the same arguments stopped. Returns what was done, as JSON values.
    """
    out = Path(out)
    refuse_full_folder(out)
    recipe = _recipe(recipe, options)
    if asks_questions(source, options.problem):
        backbone = packaged_encoder() if model is None else local_folder(model)
        return _answer_questions(backbone, source, recipe, out, options, teacher)
    refuse_other_problem(recipe, options.problem)
    if recipe.small is not None:
        return _make_small(source, recipe, out, options, model, teacher)
    if teacher is not None:
        return _taught(teacher, source, out, recipe, model, options)
    refuse_untaught(recipe)
    backbone = packaged_encoder() if model is None else local_folder(model)
    if recipe.tiers:
        return _make_cascade(source, recipe, backbone, out, options)
    roles = read_roles(source, recipe, options.columns, problem=options.problem)
    return _make(backbone, recipe, roles, out, options)


def _taught(
    teacher: str, source: str, out: Path, recipe: Recipe, model: str | None, options: TrainOptions
) -> dict[str, Any]:
    if model is not None:
        raise UserError("--model and --teacher: a student starts from its teacher; leave --model out")
    folder = local_folder(teacher)
    recipe = shared_like(with_teacher(recipe), folder, options)
    manifest = read_manifest(folder)
    check_fingerprint(folder, manifest)
    # The built-in rows keep the roles that they had for the teacher: its test rows may not train a student.
    names = None if source == STDLIB_DOCS else manifest.labels
    roles = read_roles(source, recipe, options.columns, names, Problem(manifest.problem_type))
    for rows in roles.values():
        refuse_other_task(teacher, manifest, rows, recipe)
    return _make(folder, recipe, roles, out, options)


def adapt_classifier(
    checkpoint: str,
    source: str,
    out: str | Path,
    recipe: str | Recipe = "adapt",
    options: TrainOptions = TrainOptions(),
) -> dict[str, Any]:
    """Trains only exit heads for a fine-tuned Hugging Face classifier, whose full-depth answers stay as they are.

    Rows need no labels; where they have some, these must be the checkpoint's.
    """
    out = Path(out)
    refuse_full_folder(out)
    recipe = _recipe(recipe, options)
    if changing := [stage.kind for stage in recipe.stages if stage.kind in BACKBONE_STAGES]:
        raise UserError(
            f"recipe {recipe.name!r}: stage {changing[0]!r} would change the checkpoint; use `ziggurat train --model`"
        )
    folder = local_folder(checkpoint)
    if asks_questions(source, options.problem):
        require_spans(folder)
        return _answer_questions(folder, source, recipe, out, options)
    names = checkpoint_labels(folder)
    require_classifier(folder)
    problem = checkpoint_problem(folder) if options.problem is None else options.problem
    if problem is Problem.REGRESSION and len(names) > 1:
        raise UserError(f"{checkpoint}: has {len(names)} outputs, and a regression has one; give another --problem")
    return _make(folder, recipe, read_roles(source, recipe, options.columns, names, problem), out, options)


def _answer_questions(
    backbone: Path, source: str, recipe: Recipe, out: Path, options: TrainOptions, teacher: str | None = None
) -> dict[str, Any]:
    recipe = question_recipe(recipe, teacher)
    return _make(backbone, recipe, question_roles(source, recipe), out, options)


def _recipe(recipe: str | Recipe, options: TrainOptions) -> Recipe:
    """With the options' share and student; UserError for a share that leaves nothing to train on, or no student."""
    found = load_recipe(recipe) if isinstance(recipe, str) else recipe
    found = found if options.student is None else with_checkpoint(found, options.student)
    if options.certify is None:
        return found
    try:
        return replace(found, certify=options.certify)
    except ValueError as error:
        raise UserError(f"--certify: {error}") from None


def read_roles(
    source: str,
    recipe: Recipe,
    columns: Columns,
    names: tuple[Label, ...] | None = None,
    problem: Problem | None = None,
) -> Roles:
    """Rows in their roles: the built-in data in its own, others as the recipe shares them out."""
    if source == STDLIB_DOCS and names is None:
        return load_builtin()
    fractions = Fractions(1 - recipe.select - recipe.certify, recipe.select, recipe.certify, 0.0)
    task = task_of(source)
    problem = task.problem if problem is None and task is not None else problem
    rows = load(source, columns, labels_required=names is None)
    return split_roles(rows if names is None else called_like(rows, names), fractions, names, problem)


def _make_small(
    source: str, recipe: Recipe, out: Path, options: TrainOptions, model: str | None, teacher: str | None
) -> dict[str, Any]:
    """A small model, with the tokenizer and the rows' roles of its teacher, if it has one."""
    folder = None if teacher is None else local_folder(teacher)
    names = None
    if folder is not None:
        recipe, names = shared_like(recipe, folder, options), read_manifest(folder).labels
    tokenizer = folder or (packaged_encoder() if model is None else local_folder(model))
    roles = read_roles(source, recipe, options.columns, names)
    refuse_other_problem(recipe, roles[Role.TRAIN].problem)
    return _summary(train_small(tokenizer, recipe, roles, out, folder, options.progress), roles, out)


def shared_like(recipe: Recipe, teacher: Path, options: TrainOptions) -> Recipe:
    """The recipe with the teacher's shares of rows, so that what it never saw stays unseen; --certify goes first."""
    theirs = read_manifest(teacher).training.get("recipe")
    if not isinstance(theirs, Mapping):
        return recipe
    certify = float(theirs["certify"]) if options.certify is None else options.certify
    return replace(recipe, select=float(theirs["select"]), certify=certify)


def _make_cascade(source: str, recipe: Recipe, backbone: Path, out: Path, options: TrainOptions) -> dict[str, Any]:
    """The last tier by the recipe's stages, then each first tier with the last one for a teacher, then the cascade.

    All of them are in OUT.tiers until the cascade is there; what is finished stays, so that a stopped run goes on.
    """
    parts = out.with_name(out.name + ".tiers")
    last = parts / "last"
    roles = read_roles(source, recipe, options.columns)
    refuse_other_problem(recipe, roles[Role.TRAIN].problem)
    if not last.exists():
        _make(backbone, replace(recipe, tiers=()), roles, last, options)
    folders = []
    for place, name in enumerate(recipe.tiers, start=1):
        folders.append(parts / f"{place}-{name}")
        if not folders[-1].exists():
            train_classifier(source, folders[-1], name, None, options, str(last))
    whole = parts / "cascade"
    shutil.rmtree(whole, ignore_errors=True)
    write_cascade([*folders, last], whole)
    learn_deferral(whole, roles[Role.SELECT], ModelOptions(options.device), options.progress)
    manifest = _add_operating_points(whole, roles[Role.SELECT], recipe, options)
    _move(whole, out)
    shutil.rmtree(parts)
    return _summary(manifest, roles, out)


def _make(
    source: Path, recipe: Recipe, roles: Roles | QuestionRoles, out: Path, options: TrainOptions
) -> dict[str, Any]:
    try:
        from ziggurat.train.pipeline import STAGES_FOLDER, Fit, fit_folder

        if recipe.temperatures:
            importlib.import_module("scipy.optimize")
    except ModuleNotFoundError as error:
        raise UserError(f"training needs {error.name}; pip install 'ziggurat[train]'") from None
    train_rows, select_rows = roles[Role.TRAIN], roles[Role.SELECT]
    _refuse_early(recipe, select_rows, options)
    work = out.with_name(out.name + ".training")
    made = work / "model"
    stages = out.with_name(out.name + ".stages")
    if options.keep_stages:
        refuse_full_folder(stages)
    grade = partial(plain_f1, select_rows, recipe) if isinstance(select_rows, Questions) else None
    shared = options.device, options.progress, options.mixed_precision, options.keep_stages, options.label_range, grade
    fit = Fit(source, recipe, work, made, *shared)
    if not fit_folder(fit, train_rows, select_rows):
        return {}  # another process of `accelerate launch` writes and reports
    if isinstance(select_rows, Dataset):
        made = searched_folder(made, work / "searched", select_rows, recipe, options.device, options.progress)
    for folder in sorted((work / STAGES_FOLDER).glob("*")):
        _add_operating_points(folder, select_rows, recipe, options)
    manifest = _add_operating_points(made, select_rows, recipe, options)
    if options.keep_stages:
        _move(work / STAGES_FOLDER, stages)
    _move(made, out)
    shutil.rmtree(work)
    return _summary(manifest, roles, out)


def _move(made: Path, out: Path) -> None:
    if out.is_dir():
        out.rmdir()
    made.replace(out)


def _refuse_early(recipe: Recipe, select: Dataset | Questions, options: TrainOptions) -> None:
    """UserError for what would otherwise be noticed when training is over and its operating points are chosen."""
    refuse_other_problem(recipe, select.problem)
    if options.label_range is not None and select.problem is not Problem.REGRESSION:
        raise UserError(f"--label-range: is of a regression's numbers; {select.source} has {select.problem}")
    if recipe.exit_score is not None:
        exit_score(recipe.exit_score)
        output_of(select.problem).refuse_score(recipe.exit_score)
    if recipe.temperatures and select.labels is None:
        raise UserError(
            f"{select.source}: temperatures are fitted to labels and it has none; "
            f"label its rows, or set temperatures = false in recipe {recipe.name!r}"
        )


def _add_operating_points(folder: Path, select: Dataset | Questions, recipe: Recipe, options: TrainOptions) -> Manifest:
    """To the folder's manifest; before that a regression with exits learns how certain each rung is."""
    if isinstance(select, Questions):
        return add_question_points(folder, select, recipe, options.device, options.progress)
    manifest = read_manifest(folder)
    if manifest.problem_type == Problem.REGRESSION and manifest.head_layers and LABEL_RANGE in manifest.training:
        learn_deferral(folder, select, ModelOptions(options.device), options.progress)
    classifier = AdaptiveClassifier.from_pretrained(folder, options.device)
    manifest = with_operating_points(classifier, select, recipe, options.progress)
    write_manifest(manifest, folder)
    return manifest


def _summary(manifest: Manifest, roles: Roles | QuestionRoles, out: Path) -> dict[str, Any]:
    searched = {key: manifest.training[key] for key in ("search", "copies") if manifest.training.get(key)}
    return searched | {
        "out": str(out),
        "recipe": manifest.training["recipe"]["name"],
        "labels": list(manifest.labels),
        "unit": output_of(manifest.problem_type, manifest.training.get(LABEL_RANGE)).unit,
        "rows": {str(role): len(rows) for role, rows in roles.items()},
        "operating_points": [point.to_dict() for point in manifest.operating_points],
    }
