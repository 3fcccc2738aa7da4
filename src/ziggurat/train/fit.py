"""What every training does: rows in their roles, stages, operating points, the folder in its place."""

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
from ziggurat.train.cascade import learn_deferral
from ziggurat.train.lengths.search import searched_folder
from ziggurat.train.result import Training, training_of
from ziggurat.types import Label, ProblemType

Roles = Mapping[Role, Dataset]


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
    problem: ProblemType | None = None  # what the labels ask; None = what rows look like, or the checkpoint answers
    label_range: tuple[float, float] | None = None  # of a regression; None = least and largest label of the rows
    max_length: int | None = None  # tokens that are read of an input; None = as the recipe or else the checkpoint says


def read_roles(
    source: Source,
    recipe: Recipe,
    columns: Columns,
    names: tuple[Label, ...] | None = None,
    problem: ProblemType | None = None,
) -> Roles:
    """Rows in their roles: the built-in data in its own, others as the recipe shares them out."""
    builtin = source == STDLIB_DOCS
    shared = Fractions(1 - recipe.select - recipe.certify, recipe.select, recipe.certify, 0.0)
    fractions, grouped = (STDLIB_FRACTIONS, False) if builtin else (shared, recipe.grouped)
    task = task_of(source)
    problem = task.problem if problem is None and task is not None else problem
    rows = load(source, columns, labels_required=names is None, problem=problem)
    named = rows if names is None else called_like(rows, names)
    roles = split_roles(named, fractions, names, problem, grouped)
    if names is None:  # else they are those of a model, which has learned them from other rows
        for slip in slips(named, roles):
            logging.getLogger(__name__).warning(slip)
    return roles


def shared_like(recipe: Recipe, teacher: Path, options: TrainOptions) -> Recipe:
    """The recipe with the shares of rows of a folder of ours, so that what it never saw stays unseen; --certify goes
    first.
    """
    theirs = read_manifest(teacher).training.get("recipe") if (teacher / MANIFEST).is_file() else None
    if not isinstance(theirs, Mapping):
        return recipe
    certify = float(theirs["certify"]) if options.certify is None else options.certify
    grouped = bool(theirs.get("grouped", False))  # older folders shared rows out one by one
    return replace(recipe, select=float(theirs["select"]), certify=certify, grouped=grouped)


def fit_roles(source: Path, recipe: Recipe, roles: Roles, out: Path, options: TrainOptions) -> Training | None:
    """Runs the recipe's stages and chooses operating points; the finished folder is moved to `out`.

    None in all processes of `accelerate launch` but one.
    """
    require_training(recipe)
    from ziggurat.train.unfinished import exclusive_folder

    refuse_early(recipe, roles[Role.SELECT], options)
    _refuse_too_long(source, options.max_length)
    work = out.with_name(out.name + ".training")
    with exclusive_folder(work):
        refuse_full_folder(out)  # another training may have ended meanwhile
        return _fit_in(work, source, recipe, roles, out, options)


def _fit_in(
    work: Path, source: Path, recipe: Recipe, roles: Roles, out: Path, options: TrainOptions
) -> Training | None:
    from ziggurat.train.pipeline import STAGES_FOLDER, Fit, fit_folder

    train_rows, select_rows = roles[Role.TRAIN], roles[Role.SELECT]
    made = work / "model"
    stages = out.with_name(out.name + ".stages")
    if options.keep_stages:
        refuse_full_folder(stages)
    shared = options.device, options.progress, options.mixed_precision, options.keep_stages, options.label_range
    fit = Fit(source, recipe, work, made, *shared)
    if not fit_folder(fit, train_rows, select_rows):
        return None  # another process of `accelerate launch` writes and reports
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
    """UserError for a --max-length that the encoder has no positions for."""
    spec = read_spec(read_json(source / CONFIG, f"{source}: no {CONFIG}; give a folder made by save_pretrained"))
    if max_length is not None and max_length > spec.positions:
        raise UserError(
            f"--max-length {max_length}: {source} reads at most {spec.positions} tokens; give {spec.positions} or less"
        )


def require_training(recipe: Recipe) -> None:
    """UserError where a package is not installed that the recipe needs."""
    try:
        importlib.import_module("ziggurat.train.pipeline")
        if recipe.temperatures:
            importlib.import_module("scipy.optimize")
    except ModuleNotFoundError as error:
        raise UserError(f"training needs {error.name}; {install('train')}") from None


def refuse_early(recipe: Recipe, select: Dataset, options: TrainOptions) -> None:
    """UserError for what would otherwise be noticed when training is over and its operating points are chosen."""
    check_recipe(recipe, select.problem)
    if options.label_range is not None and select.problem is not ProblemType.REGRESSION:
        raise UserError(f"--label-range: is of a regression's numbers; {select.source} has {select.problem}")
    if recipe.exit_score == LEARNED:
        raise UserError(
            f"recipe {recipe.name!r}: exit_score {LEARNED!r} is fitted to a finished model, and `ziggurat calibrate` "
            "tries it by itself; leave it out"
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
    """To the folder's manifest; before that, what select rows say of its rungs where answers or exits depend on it."""
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
    """How many rows each role has."""
    return {role: len(rows) for role, rows in roles.items()}
