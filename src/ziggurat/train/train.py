"""`train` and `adapt`: rows and a backbone in, a model folder out."""

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
from ziggurat.train.cascade import learn_deferral
from ziggurat.train.fit import (
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
from ziggurat.train.result import Training, training_of
from ziggurat.train.small import train_small
from ziggurat.train.teachers import (
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

    `teacher`, a model folder of ours, is what the recipe's student is made from, or its small model, and learns from;
    its `regular` stage is then left out, and rows need no labels where no stage does. Goes on where an earlier,
    interrupted call with the same arguments stopped. None in all processes of `accelerate launch` but one.
    """
    source = as_rows(source)
    out = Path(out)
    refuse_full_folder(out)
    options = _asked(source, options)
    recipe = _recipe(recipe, options, teacher is not None)
    if recipe.small is not None:
        return _make_small(source, recipe, out, options, model, teacher)
    if teacher is not None:
        return _taught(teacher, source, out, recipe, model, options)
    refuse_untaught(recipe)
    backbone = packaged_encoder() if model is None else checkpoint_folder(model)
    refuse_random_answers(recipe, backbone, partial(has_head, head=_problem(options).head))
    recipe = shared_like(recipe, backbone, options)
    if recipe.tiers:
        return _make_cascade(source, recipe, backbone, out, options)
    return fit_roles(backbone, recipe, _rows_for(backbone, source, recipe, options), out, options)


def _rows_for(backbone: Path, source: Source, recipe: Recipe, options: TrainOptions) -> Roles:
    """Rows in their roles, with classes in the order in which the backbone's classifier, if it has one, has them.

    Where a stage learns from its answers no row may have another class; else the classifier of others starts fresh.
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


def _taught(
    teacher: str, source: Source, out: Path, recipe: Recipe, model: str | None, options: TrainOptions
) -> Training | None:
    folder = checkpoint_folder(teacher)
    recipe, roles = _taught_rows(teacher, folder, source, with_teacher(recipe), model, options)
    return fit_roles(folder, recipe, roles, out, options)


def _taught_rows(
    teacher: str, folder: Path, source: Source, recipe: Recipe, model: str | None, options: TrainOptions
) -> tuple[Recipe, Roles]:
    """The recipe with the teacher's shares of rows, and the rows; UserError where they are not what it can teach."""
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
    """Trains only exit heads for a fine-tuned Hugging Face classifier, whose full-depth answers stay as they are.

    Rows need no labels; where they have some, these must be the checkpoint's.
    """
    source = as_rows(source)
    out = Path(out)
    refuse_full_folder(out)
    # A checkpoint's answers stay as they are, so it reads what it always did, whatever length a recipe trains with.
    options = _asked(source, options)
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
        message = "%s: sentence-transformers puts a %s on its scores; here they are without, as in transformers"
        logging.getLogger(__name__).warning(message, checkpoint, become)
    recipe = shared_like(recipe, folder, options)
    return fit_roles(folder, recipe, read_roles(source, recipe, options.columns, names, problem), out, options)


def _asked(source: Source, options: TrainOptions) -> TrainOptions:
    """With the problem, where the form of the rows says it."""
    questions = asks_questions(source, options.problem, options.columns)
    return replace(options, problem=ProblemType.QUESTION_ANSWERING) if questions else options


def _problem(options: TrainOptions) -> Problem:
    """The record of what is asked, as far as it is known before the rows are read."""
    return problem_named(options.problem or ProblemType.SINGLE_LABEL)


def _recipe(recipe: str | Recipe, options: TrainOptions, teacher: bool = False, keep_length: bool = True) -> Recipe:
    """With the options' share, length and student; UserError for a share or length that leaves nothing, or for a part
    that the problem cannot have. Not `keep_length`: without the recipe's own length.
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
    """A value that a recipe cannot have as a UserError that names the option."""
    try:
        yield
    except ValueError as error:
        raise UserError(f"{option}: {error}") from None


def _make_small(
    source: Source, recipe: Recipe, out: Path, options: TrainOptions, model: str | None, teacher: str | None
) -> Training | None:
    """A small model, with the tokenizer and the rows' roles of its teacher, if it has one."""
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
    """The last tier by the recipe's stages, then each first tier with the last one for a teacher, then the cascade.

    All of them are in OUT.tiers until the cascade is there; what is finished stays, so that a stopped run goes on.
    """
    parts = out.with_name(out.name + ".tiers")
    if options.keep_stages:
        refuse_full_folder(out.with_name(out.name + ".stages"))
    require_training(recipe)
    from ziggurat.train.unfinished import exclusive_folder

    roles = _rows_for(backbone, source, recipe, options)
    check_recipe(recipe, roles[Role.TRAIN].problem)
    _refuse_tiers(recipe, roles[Role.SELECT], options)
    with exclusive_folder(parts):
        refuse_full_folder(out)  # another training may have ended meanwhile
        return _make_tiers(parts, source, recipe, backbone, roles, out, options)


def _make_tiers(
    parts: Path, source: Source, recipe: Recipe, backbone: Path, roles: Roles, out: Path, options: TrainOptions
) -> Training | None:
    from ziggurat.train.unfinished import claim, identity_of, refuse_other_run

    last, stages = parts / "last", out.with_name(out.name + ".stages")
    alone = replace(recipe, tiers=())  # other first tiers may take what is there of the last one
    digests = [rows.digest for rows in roles.values()]
    identity = {"model": identity_of(backbone), "recipe": asdict(alone), "data": digests}
    refuse_other_run(parts, identity)
    if not last.exists():
        fit_roles(backbone, alone, roles, last, options)
    claim(parts, identity)
    folders = []
    for place, name in enumerate(recipe.tiers, start=1):
        folders.append(parts / f"{place}-{name}")
        if not folders[-1].exists():
            train_model(source, folders[-1], name, None, replace(options, keep_stages=False), str(last))
    whole = parts / "cascade"
    shutil.rmtree(whole, ignore_errors=True)
    write_cascade([*folders, last], whole)
    if LEARNED in problem_named(roles[Role.SELECT].problem).scores:
        learn_deferral(whole, roles[Role.SELECT], ModelOptions(options.device), options.progress)
    manifest = add_operating_points(whole, roles[Role.SELECT], recipe, options)
    put(whole, out)
    if options.keep_stages:
        put(last.with_name("last.stages"), stages)
    shutil.rmtree(parts)
    return training_of(manifest, sizes_of(roles), out)


def _refuse_tiers(recipe: Recipe, select: Dataset, options: TrainOptions) -> None:
    """UserError for a first tier that could not be made: before the large model trains, not after it."""
    for name in recipe.tiers:
        tier = load_recipe(name)
        refuse_early(tier if tier.small is not None else with_teacher(tier), select, options)
