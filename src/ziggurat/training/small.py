"""Trains a small model, a cascade's first tier, on a teacher's answers or on labels."""

from __future__ import annotations

import dataclasses
import importlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ziggurat.calibrate.choose import with_operating_points
from ziggurat.data.augment import Rate, augmented, neighbours
from ziggurat.data.dataset import Dataset, Role
from ziggurat.data.labels import labelled
from ziggurat.data.tokenizer import Encoded, TextTokenizer
from ziggurat.encoder.folder import CONFIG, CUT, LABEL_RANGE, Manifest, read_json, trained_rows, write_manifest
from ziggurat.encoder.model_files import word_embeddings
from ziggurat.encoder.spec import read_spec
from ziggurat.encoder.tokenizer_files import own_length, read_tokenizer
from ziggurat.engine.opened import OpenedModel
from ziggurat.errors import UserError, install
from ziggurat.files import whole_folder
from ziggurat.policies.rules import ExitRule
from ziggurat.problems.problem import Problem
from ziggurat.problems.registry import problem_named
from ziggurat.recipe import AugmentConfig, Recipe
from ziggurat.small.folder import SmallTier, save_small
from ziggurat.small.train_static import train_static
from ziggurat.training.fit import TrainOptions


@dataclass(frozen=True)
class Teacher:
    """The model whose answers a small model learns."""

    folder: Path
    model: OpenedModel


@dataclass(frozen=True)
class Lesson:
    """Training data of a small model."""

    train: Encoded
    targets: np.ndarray  # (n, n_outputs), see `train_static`
    select: Encoded
    labels: np.ndarray  # (m, …) of the select texts
    loss: str  # name of the loss, see `Problem.training_loss`
    kinds: np.ndarray  # (vocabulary) uint8, see `TextTokenizer.piece_kinds`
    copies: Mapping[str, int] | None = None  # statistics of augmentation; None = no augmentation


def train_small(
    source: Path, recipe: Recipe, roles: Mapping[Role, Dataset], out: Path, teacher: Path | None, options: TrainOptions
) -> Manifest:
    """Trains a small model into the folder `out`, with the tokenizer of `source`; returns its manifest.

    Rows without labels need a teacher. UserError if there is neither, or a package is missing.
    """
    assert recipe.small is not None
    try:
        for package in ("scipy.sparse", _NEEDS[recipe.small.kind]):
            importlib.import_module(package)
    except ModuleNotFoundError as error:
        raise UserError(f"training needs {error.name}; {install('train')}") from None
    rows, select = roles[Role.TRAIN].require(Role.TRAIN), roles[Role.SELECT].require(Role.SELECT)
    progress = options.progress
    opened = None if teacher is None else Teacher(teacher, OpenedModel.from_pretrained(teacher, options.device))
    max_length = _read_length(source, recipe, opened, options)
    tokenizer = read_tokenizer(source, max_length, rows.texts, rows.pairs)
    problem = problem_named(rows.problem, rows.label_names)
    lesson = lesson_of(recipe, rows, select, tokenizer, opened, problem, progress)
    tier = _LEARN[recipe.small.kind](lesson, recipe, progress)
    trained = [rows.hashes, select.hashes, *([] if teacher is None else [trained_rows(teacher)])]
    training = {
        "recipe": dataclasses.asdict(recipe),
        "teacher": None if opened is None else opened.model.manifest.fingerprint,
        "data": {"source": rows.source, "digest": rows.digest, "rows": len(rows)},
        "copies": lesson.copies,
        **_range(problem, rows, select, opened, options),
        CUT: int(lesson.train.truncated[: len(rows)].sum() + lesson.select.truncated.sum()),
    }
    manifest = Manifest(
        labels=rows.label_names,
        pairs=rows.pairs is not None,
        max_length=max_length,
        head_kind="none",
        head_layers=(),
        fingerprint="",
        training=training,
        kind=recipe.small.kind,
        problem_type=rows.problem,
    )
    with whole_folder(out) as made:
        save_small(tier, manifest, np.unique(np.concatenate(trained)), source, made)
        manifest = with_operating_points(OpenedModel.from_pretrained(made), select, recipe, progress=False)
        write_manifest(manifest, made)
    return manifest


def _read_length(source: Path, recipe: Recipe, teacher: Teacher | None, options: TrainOptions) -> int:
    """Maximum length in tokens: the stated one, else the teacher's, else that of the tokenizer's encoder."""
    if teacher is None:
        spec = read_spec(read_json(source / CONFIG, f"{source}: no {CONFIG}; give a folder made by save_pretrained"))
        return own_length(source, spec.positions) if recipe.max_length is None else recipe.max_length
    most = teacher.model.manifest.max_length
    if options.max_length is not None and options.max_length > most:
        raise UserError(
            f"--max-length {options.max_length}: its teacher reads at most {most} tokens; give {most} or less"
        )
    return most if options.max_length is None else options.max_length


def lesson_of(
    recipe: Recipe,
    rows: Dataset,
    select: Dataset,
    tokenizer: TextTokenizer,
    teacher: Teacher | None,
    problem: Problem,
    progress: bool,
) -> Lesson:
    """Texts and targets: the teacher's answers at full depth, mixed with labels by the recipe's weight."""
    train, chosen = (tokenizer.encode(part.texts, part.pairs) for part in (rows, select))
    targets = _targets(recipe, rows, teacher, train, problem, progress)
    if select.labels is not None:
        labels = select.labels
    elif teacher is not None:
        labels = problem.predictions(_full_outputs(teacher, chosen, progress))
    else:
        raise UserError(f"{select.source}: has no labels; label its rows, or name a model to learn from with --teacher")
    lesson = Lesson(train, targets, chosen, labels, problem.training_loss, tokenizer.piece_kinds())
    return lesson if recipe.augment is None else _with_copies(lesson, recipe, recipe.augment, teacher, progress)


def _with_copies(
    lesson: Lesson, recipe: Recipe, augment: AugmentConfig, teacher: Teacher | None, progress: bool
) -> Lesson:
    """Adds augmented copies of the train texts, which the teacher labels."""
    if teacher is None:
        raise UserError(f"recipe {recipe.name!r}: augmented texts have no labels; name a model with --teacher")
    assert recipe.small is not None
    tokenizer = teacher.model.tokenizer
    mask = tokenizer.mask_id()
    if mask is None:
        raise UserError(f"{teacher.folder}: its tokenizer has no mask token and no unknown one; leave out [augment]")
    table = neighbours(word_embeddings(teacher.folder), lesson.kinds, augment.neighbours, tokenizer.no_words())
    made = list(augmented(lesson.train, augment, lesson.kinds, table, mask, progress=progress))
    rate, dropped = sum((part.rate for part in made), Rate()), sum(part.dropped for part in made)
    copies = Encoded(
        [tokens for part in made for tokens in part.encoded.tokens],
        np.concatenate([part.encoded.truncated for part in made]),
    )
    message = "%d copies of %d texts, %.0f per second, %d duplicates dropped"
    logging.getLogger(__name__).info(message, len(copies), len(lesson.train), rate.per_second, dropped)
    outputs = _full_outputs(teacher, copies, progress)
    taught = teacher.model.problem.taught_targets(outputs, recipe.small.temperature)
    texts = Encoded([*lesson.train.tokens, *copies.tokens], np.append(lesson.train.truncated, copies.truncated))
    note = {"copies": len(copies), "dropped": dropped, "per_second": round(rate.per_second)}
    return replace(lesson, train=texts, targets=np.concatenate([lesson.targets, taught]), copies=note)


def _range(
    problem: Problem, rows: Dataset, select: Dataset, teacher: Teacher | None, options: TrainOptions
) -> dict[str, list[float]]:
    """The label range of a regression: the teacher's, else that of the labels; empty for other problems."""
    known = None if teacher is None else teacher.model.manifest.training.get(LABEL_RANGE)
    parts = [part.labels[labelled(part.labels)] for part in (rows, select) if part.labels is not None]
    found = known or problem.range_of(options.label_range, parts, rows.source)
    return {} if found is None else {LABEL_RANGE: list(found)}


def _targets(
    recipe: Recipe, rows: Dataset, teacher: Teacher | None, train: Encoded, problem: Problem, progress: bool
) -> np.ndarray:
    assert recipe.small is not None
    if teacher is None:
        return problem.label_targets(rows.truth)
    taught = problem.taught_targets(_full_outputs(teacher, train, progress), recipe.small.temperature)
    if rows.labels is None or recipe.small.label_weight == 0:
        return taught
    known = labelled(rows.labels)
    mixed: np.ndarray = taught.copy()  # rows without a label keep the teacher's targets
    weight = recipe.small.label_weight
    mixed[known] = (1 - weight) * taught[known] + weight * problem.label_targets(rows.labels[known])
    return mixed


def _full_outputs(teacher: Teacher, encoded: Encoded, progress: bool) -> np.ndarray:
    return teacher.model.run(encoded, ExitRule.full_depth(len(teacher.model.rungs)), progress=progress).readings


def _learn_static(lesson: Lesson, recipe: Recipe, progress: bool) -> SmallTier:
    parts = lesson.train, lesson.targets, lesson.select, lesson.labels, lesson.kinds
    return train_static(*parts, loss=lesson.loss)


def _learn_bilstm(lesson: Lesson, recipe: Recipe, progress: bool) -> SmallTier:
    from ziggurat.small.train_bilstm import BilstmSettings, train_bilstm

    assert recipe.small is not None
    settings = BilstmSettings(epochs=recipe.small.epochs)
    parts = lesson.train, lesson.targets, lesson.select, lesson.labels, lesson.kinds
    return train_bilstm(*parts, settings, loss=lesson.loss, seed=recipe.seed, progress=progress)


_LEARN: Mapping[str, Callable[[Lesson, Recipe, bool], SmallTier]] = {"static": _learn_static, "bilstm": _learn_bilstm}
_NEEDS = {"static": "scipy.sparse", "bilstm": "torch"}
