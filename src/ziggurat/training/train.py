"""`train` and `adapt`: make a model folder from rows and a backbone."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from ziggurat.data.dataset import Dataset, Role
from ziggurat.data.labels import names_same
from ziggurat.data.memory import RowsLike, as_rows
from ziggurat.data.squad import asks_questions
from ziggurat.data.tables import Source
from ziggurat.encoder.cascade import write_cascade
from ziggurat.encoder.containers import scores_become
from ziggurat.encoder.finetuned import answers_of, has_head, known_names, same_classes
from ziggurat.encoder.folder import check_fingerprint, read_manifest
from ziggurat.encoder.hub import checkpoint_folder, packaged_encoder
from ziggurat.errors import UserError
from ziggurat.files import put, refuse_full_folder
from ziggurat.measure.subject import ModelOptions, check_recipe
from ziggurat.policies.exits import LEARNED
from ziggurat.problems.problem import Problem
from ziggurat.problems.registry import problem_named
from ziggurat.recipe import BACKBONE_STAGES, Recipe, load_recipe
from ziggurat.training.cascade import learn_deferral
from ziggurat.training.fit import (
    Roles,
    TrainOptions,
    add_operating_points,
    fit_roles,
    read_roles,
    refuse_early,
    require_training,
    shared_like,
    sizes_of,
)
from ziggurat.training.result import Training, training_of
from ziggurat.training.small import train_small
from ziggurat.training.teachers import (
    refuse_other_task,
    refuse_random_answers,
    refuse_unlabelled,
    refuse_untaught,
    stage_of_answers,
    with_checkpoint,
    with_teacher,
)
from ziggurat.types import ProblemType


def train_model(
    source: RowsLike,
    out: str | Path,
    recipe: str | Recipe = "early-exit",
    model: str | None = None,
    options: TrainOptions = TrainOptions(),
    teacher: str | None = None,
) -> Training | None:
    """Trains a classifier from a pre-trained encoder (default: the packaged MiniLM) into the folder `out`.

    `teacher` is a Ziggurat folder: the recipe's student, or small model, learns from it. Then the `regular` stage is
    skipped, and rows need no labels unless another stage does. A call with the same arguments resumes an interrupted
    one. Returns None in all processes of `accelerate launch` except the first.
    """
    source = as_rows(source)
    out = Path(out)
    refuse_full_folder(out)
    options = _with_problem(source, options)
    recipe = _recipe(recipe, options, teacher is not None)
    if recipe.small is not None:
        return _make_small(source, recipe, out, options, model, teacher)
    if teacher is not None:
        return _train_with_teacher(teacher, source, out, recipe, model, options)
    refuse_untaught(recipe)
    backbone = packaged_encoder() if model is None else checkpoint_folder(model)
    refuse_random_answers(recipe, backbone, partial(has_head, head=_problem(options).head))
    recipe = shared_like(recipe, backbone, options)
    if recipe.tiers:
        return _make_cascade(source, recipe, backbone, out, options)
    return fit_roles(backbone, recipe, _rows_for(backbone, source, recipe, options), out, options)


def _rows_for(backbone: Path, source: Source, recipe: Recipe, options: TrainOptions) -> Roles:
    """Rows by role, with classes in the order of the backbone's classifier, if it has the same classes.

    If a stage learns from the backbone's answers, other classes are an error; else its classifier is replaced.
    """
    if stage_of_answers(recipe) is None:
        roles = read_roles(source, recipe, options.columns, problem=options.problem)
        names, problem = roles[Role.TRAIN].label_names, roles[Role.TRAIN].problem
        known = known_names(backbone)
        if known is None or names_same(known, names) or not same_classes(known, names):
            return roles
        return read_roles(source, recipe, options.columns, known, problem)
    roles = read_roles(source, recipe, options.columns, *answers_of(backbone, options.problem))
    for rows in roles.values():
        refuse_unlabelled(rows, recipe)
    return roles


def _train_with_teacher(
    teacher: str, source: Source, out: Path, recipe: Recipe, model: str | None, options: TrainOptions
) -> Training | None:
    folder = checkpoint_folder(teacher)
    recipe, roles = _taught_rows(teacher, folder, source, with_teacher(recipe), model, options)
    return fit_roles(folder, recipe, roles, out, options)


def _taught_rows(
    teacher: str, folder: Path, source: Source, recipe: Recipe, model: str | None, options: TrainOptions
) -> tuple[Recipe, Roles]:
    """The recipe with the teacher's split shares, and the rows; UserError if the teacher answers another task."""
    if model is not None:
        raise UserError("--model and --teacher: a student starts from its teacher; leave --model out")
    manifest = read_manifest(folder)
    check_recipe(recipe, ProblemType(manifest.problem_type), teacher=True)
    recipe = shared_like(recipe, folder, options)
    check_fingerprint(folder, manifest)
    roles = read_roles(source, recipe, options.columns, manifest.labels, ProblemType(manifest.problem_type))
    for rows in roles.values():
        refuse_other_task(teacher, manifest, rows, recipe)
    return recipe, roles


def adapt_model(
    checkpoint: str,
    source: RowsLike,
    out: str | Path,
    recipe: str | Recipe = "adapt",
    options: TrainOptions = TrainOptions(),
) -> Training | None:
    """Trains only exit heads for a fine-tuned Hugging Face classifier; its full-depth answers do not change.

    Rows need no labels; labels that they have must be the checkpoint's.
    """
    source = as_rows(source)
    out = Path(out)
    refuse_full_folder(out)
    # The checkpoint keeps its maximum length, since its answers must not change.
    options = _with_problem(source, options)
    recipe = _recipe(recipe, options, keep_length=False)
    if recipe.small is not None:
        raise UserError(
            f"recipe {recipe.name!r}: makes a small model and no exits; use `ziggurat train --teacher FOLDER` with it"
        )
    if changing := [stage.kind for stage in recipe.stages if stage.kind in BACKBONE_STAGES]:
        raise UserError(
            f"recipe {recipe.name!r}: stage {changing[0]!r} would change the checkpoint; use `ziggurat train --model`"
        )
    folder = checkpoint_folder(checkpoint)
    names, problem = answers_of(folder, options.problem)
    if problem is ProblemType.REGRESSION and (become := scores_become(folder)) is not None:
        message = "%s: sentence-transformers applies a %s to its scores; here they are raw, as in transformers"
        logging.getLogger(__name__).warning(message, checkpoint, become)
    recipe = shared_like(recipe, folder, options)
    return fit_roles(folder, recipe, read_roles(source, recipe, options.columns, names, problem), out, options)


def _with_problem(source: Source, options: TrainOptions) -> TrainOptions:
    """Sets the problem if the form of the rows determines it."""
    questions = asks_questions(source, options.problem, options.columns)
    return replace(options, problem=ProblemType.QUESTION_ANSWERING) if questions else options


def _problem(options: TrainOptions) -> Problem:
    """The problem, as far as it is known before the rows are read."""
    return problem_named(options.problem or ProblemType.SINGLE_LABEL)


def _recipe(recipe: str | Recipe, options: TrainOptions, teacher: bool = False, keep_length: bool = True) -> Recipe:
    """The recipe with the options' share, length and student; without its own maximum length if not `keep_length`.

    UserError for a share or length that leaves nothing, or for a part that the problem does not support.
    """
    found = load_recipe(recipe) if isinstance(recipe, str) else recipe
    found = found if options.student is None else with_checkpoint(found, options.student)
    check_recipe(found, options.problem, teacher)
    with _named("--certify"):
        found = found if options.certify is None else replace(found, certify=options.certify)
    with _named("--max-length"):
        found = found if keep_length else replace(found, max_length=None)
        return _problem(options).fitted_recipe(found, options.max_length)


@contextmanager
def _named(option: str) -> Iterator[None]:
    """Turns a ValueError of a recipe into a UserError that names the option."""
    try:
        yield
    except ValueError as error:
        raise UserError(f"{option}: {error}") from None


def _make_small(
    source: Source, recipe: Recipe, out: Path, options: TrainOptions, model: str | None, teacher: str | None
) -> Training | None:
    """Trains a small model, with the tokenizer and the split of its teacher, if it has one."""
    if options.keep_stages:
        raise UserError(f"--keep-stages: recipe {recipe.name!r} has no stages; leave it out")
    folder = None if teacher is None else checkpoint_folder(teacher)
    if folder is None:
        tokenizer = packaged_encoder() if model is None else checkpoint_folder(model)
        roles = read_roles(source, recipe, options.columns, problem=options.problem)
        check_recipe(recipe, roles[Role.TRAIN].problem)
    else:
        recipe, roles = _taught_rows(str(teacher), folder, source, recipe, model, options)
        tokenizer = folder
    refuse_early(recipe, roles[Role.SELECT], options)
    return training_of(train_small(tokenizer, recipe, roles, out, folder, options), sizes_of(roles), out)


def _make_cascade(source: Source, recipe: Recipe, backbone: Path, out: Path, options: TrainOptions) -> Training | None:
    """Trains the last tier by the recipe's stages, then each first tier with the last as its teacher.

    All tiers are in OUT.tiers until the cascade is complete, so a stopped run can resume.
    """
    parts = out.with_name(out.name + ".tiers")
    if options.keep_stages:
        refuse_full_folder(out.with_name(out.name + ".stages"))
    require_training(recipe)
    from ziggurat.training.unfinished import exclusive_folder

    roles = _rows_for(backbone, source, recipe, options)
    check_recipe(recipe, roles[Role.TRAIN].problem)
    _refuse_tiers(recipe, roles[Role.SELECT], options)
    with exclusive_folder(parts):
        refuse_full_folder(out)  # another training may have ended meanwhile
        return _make_tiers(parts, source, recipe, backbone, roles, out, options)


def _make_tiers(
    parts: Path, source: Source, recipe: Recipe, backbone: Path, roles: Roles, out: Path, options: TrainOptions
) -> Training | None:
    from ziggurat.training.unfinished import claim, identity_of, refuse_other_run

    last, stages = parts / "last", out.with_name(out.name + ".stages")
    alone = replace(recipe, tiers=())  # the last tier can be reused with other first tiers
    digests = [rows.digest for rows in roles.values()]
    identity = {"model": identity_of(backbone), "recipe": asdict(alone), "data": digests}
    refuse_other_run(parts, identity)
    if not last.exists():
        fit_roles(backbone, alone, roles, last, options)
    claim(parts, identity)
    folders = []
    for number, name in enumerate(recipe.tiers, start=1):
        folders.append(parts / f"{number}-{name}")
        if not folders[-1].exists():
            train_model(source, folders[-1], name, None, replace(options, keep_stages=False), str(last))
    cascade = parts / "cascade"
    shutil.rmtree(cascade, ignore_errors=True)
    write_cascade([*folders, last], cascade)
    if LEARNED in problem_named(roles[Role.SELECT].problem).scores:
        learn_deferral(cascade, roles[Role.SELECT], ModelOptions(options.device), options.progress)
    manifest = add_operating_points(cascade, roles[Role.SELECT], recipe, options)
    put(cascade, out)
    if options.keep_stages:
        put(last.with_name("last.stages"), stages)
    shutil.rmtree(parts)
    return training_of(manifest, sizes_of(roles), out)


def _refuse_tiers(recipe: Recipe, select: Dataset, options: TrainOptions) -> None:
    """Checks the recipes of first tiers (UserError), before the large model is trained."""
    for name in recipe.tiers:
        tier = load_recipe(name)
        refuse_early(tier if tier.small is not None else with_teacher(tier), select, options)
