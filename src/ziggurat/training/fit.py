"""Steps that all trainings share: splitting rows, running stages, choosing operating points, moving the folder."""

from __future__ import annotations

import importlib
import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ziggurat.calibrate.choose import fitted_offsets, with_operating_points
from ziggurat.data.builtin import STDLIB_DOCS
from ziggurat.data.catalogue import task_of
from ziggurat.data.dataset import STDLIB_FRACTIONS, Dataset, Fractions, Role, load, split_roles
from ziggurat.data.slips import slips
from ziggurat.data.sources import DEFAULT_COLUMNS, Columns
from ziggurat.data.tables import Source
from ziggurat.data.task_rows import called_like
from ziggurat.encoder.folder import (
    CONFIG,
    MANIFEST,
    OTHER_SCALE,
    Manifest,
    read_json,
    read_manifest,
    seal,
    write_manifest,
)
from ziggurat.encoder.spec import read_spec
from ziggurat.engine.opened import OpenedModel
from ziggurat.errors import UserError, install
from ziggurat.files import put, refuse_full_folder
from ziggurat.measure.subject import ModelOptions, check_recipe
from ziggurat.policies.exits import LEARNED, exit_score
from ziggurat.problems.registry import problem_named
from ziggurat.recipe import Recipe
from ziggurat.training.cascade import learn_deferral
from ziggurat.training.lengths.search import searched_folder
from ziggurat.training.result import Training, training_of
from ziggurat.types import Label, ProblemType

Roles = Mapping[Role, Dataset]


@dataclass(frozen=True)
class TrainOptions:
    """Options of a training besides its recipe."""

    columns: Columns = DEFAULT_COLUMNS
    device: str = "auto"
    progress: bool = True
    mixed_precision: bool = True
    certify: float | None = None  # share of rows reserved for `calibrate`; None = the recipe's
    keep_stages: bool = False  # also save a model folder for each stage, in OUT.stages
    student: str | None = None  # encoder that the recipe's student starts from; None = the recipe's
    problem: ProblemType | None = None  # what the labels mean; None = from the rows, or the checkpoint
    label_range: tuple[float, float] | None = None  # of a regression; None = least and largest label of the rows
    max_length: int | None = None  # inputs are cut to this many tokens; None = the recipe's, or the checkpoint's


def read_roles(
    source: Source,
    recipe: Recipe,
    columns: Columns,
    names: tuple[Label, ...] | None = None,
    problem: ProblemType | None = None,
) -> Roles:
    """Reads rows and splits them into roles: built-in data as shipped, others by the recipe's shares."""
    builtin = source == STDLIB_DOCS
    shared = Fractions(1 - recipe.select - recipe.certify, recipe.select, recipe.certify, 0.0)
    fractions, grouped = (STDLIB_FRACTIONS, False) if builtin else (shared, recipe.grouped)
    task = task_of(source)
    problem = task.problem if problem is None and task is not None else problem
    rows = load(source, columns, labels_required=names is None, problem=problem)
    named = rows if names is None else called_like(rows, names)
    roles = split_roles(named, fractions, names, problem, grouped)
    if names is None:  # given names come from a model, which learned them from other rows
        for slip in slips(named, roles):
            logging.getLogger(__name__).warning(slip)
    return roles


def shared_like(recipe: Recipe, teacher: Path, options: TrainOptions) -> Recipe:
    """The recipe with the split shares of the teacher's folder, so its unseen rows stay unseen; --certify overrides."""
    stated = read_manifest(teacher).training.get("recipe") if (teacher / MANIFEST).is_file() else None
    if not isinstance(stated, Mapping):
        return recipe
    certify = float(stated["certify"]) if options.certify is None else options.certify
    grouped = bool(stated.get("grouped", False))  # older folders split rows one by one
    return replace(recipe, select=float(stated["select"]), certify=certify, grouped=grouped)


def fit_roles(source: Path, recipe: Recipe, roles: Roles, out: Path, options: TrainOptions) -> Training | None:
    """Runs the recipe's stages and chooses operating points; the finished folder is moved to `out`.

    Returns None in all processes of `accelerate launch` except the first.
    """
    require_training(recipe)
    from ziggurat.training.unfinished import exclusive_folder

    refuse_early(recipe, roles[Role.SELECT], options)
    _refuse_too_long(source, options.max_length)
    work = out.with_name(out.name + ".training")
    with exclusive_folder(work):
        refuse_full_folder(out)  # another training may have ended meanwhile
        return _fit_in(work, source, recipe, roles, out, options)


def _fit_in(
    work: Path, source: Path, recipe: Recipe, roles: Roles, out: Path, options: TrainOptions
) -> Training | None:
    from ziggurat.training.pipeline import STAGES_FOLDER, Fit, fit_folder

    train_rows, select_rows = roles[Role.TRAIN], roles[Role.SELECT]
    made = work / "model"
    stages = out.with_name(out.name + ".stages")
    if options.keep_stages:
        refuse_full_folder(stages)
    shared = options.device, options.progress, options.mixed_precision, options.keep_stages, options.label_range
    fit = Fit(source, recipe, work, made, *shared)
    if not fit_folder(fit, train_rows, select_rows):
        return None  # the first process of `accelerate launch` writes and reports
    made = searched_folder(made, work / "searched", select_rows, recipe, options.device, options.progress)
    for folder in sorted((work / STAGES_FOLDER).glob("*")):
        add_operating_points(folder, select_rows, recipe, options)
    manifest = add_operating_points(made, select_rows, recipe, options)
    if options.keep_stages:
        put(work / STAGES_FOLDER, stages)
    put(made, out)
    shutil.rmtree(work)
    return training_of(manifest, sizes_of(roles), out)


def _refuse_too_long(source: Path, max_length: int | None) -> None:
    """UserError for a --max-length beyond the encoder's positions."""
    spec = read_spec(read_json(source / CONFIG, f"{source}: no {CONFIG}; give a folder made by save_pretrained"))
    if max_length is not None and max_length > spec.positions:
        raise UserError(
            f"--max-length {max_length}: {source} reads at most {spec.positions} tokens; give {spec.positions} or less"
        )


def require_training(recipe: Recipe) -> None:
    """UserError if a package that the recipe needs is not installed."""
    try:
        importlib.import_module("ziggurat.training.pipeline")
        if recipe.temperatures:
            importlib.import_module("scipy.optimize")
    except ModuleNotFoundError as error:
        raise UserError(f"training needs {error.name}; {install('train')}") from None


def refuse_early(recipe: Recipe, select: Dataset, options: TrainOptions) -> None:
    """Checks, before training, the settings that are used when operating points are chosen after it (UserError)."""
    check_recipe(recipe, select.problem)
    if options.label_range is not None and select.problem is not ProblemType.REGRESSION:
        raise UserError(f"--label-range: only for a regression; {select.source} has {select.problem}")
    if recipe.exit_score == LEARNED:
        raise UserError(
            f"recipe {recipe.name!r}: exit_score {LEARNED!r} is fitted to a finished model, and `ziggurat calibrate` "
            "tries it automatically; leave it out"
        )
    if recipe.exit_score is not None:
        exit_score(recipe.exit_score)
        problem_named(select.problem).check_score(recipe.exit_score)
    if recipe.temperatures and select.labels is None:
        raise UserError(
            f"{select.source}: temperatures are fitted to labels and it has none; "
            f"label its rows, or set temperatures = false in recipe {recipe.name!r}"
        )


def add_operating_points(folder: Path, select: Dataset, recipe: Recipe, options: TrainOptions) -> Manifest:
    """Chooses operating points on the select rows and writes them into the manifest.

    Before that, fits what answers or exits depend on: offsets of "no answer", the learned exit score.
    """
    manifest = read_manifest(folder)
    if manifest.training.get(OTHER_SCALE):
        select = replace(select, labels=None)
    classifier = OpenedModel.from_pretrained(folder, options.device)
    if (offsets := fitted_offsets(classifier, select, options.progress)) is not None:
        classifier = classifier.with_manifest(seal(folder, replace(manifest, no_answer=offsets)))
    if classifier.problem.learns_certainty and manifest.head_layers:
        learn_deferral(folder, select, ModelOptions(options.device), options.progress)
        classifier = OpenedModel.from_pretrained(folder, options.device)
    manifest = with_operating_points(classifier, select, recipe, options.progress)
    write_manifest(manifest, folder)
    return manifest


def sizes_of(roles: Roles) -> Mapping[Role, int]:
    """Number of rows of each role."""
    return {role: len(rows) for role, rows in roles.items()}
