"""Training a small model, a cascade's first tier, towards a teacher or towards labels."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ziggurat.config import Recipe
from ziggurat.data.tasks import Dataset, Role
from ziggurat.data.tokenize import Encoded, TextTokenizer
from ziggurat.encoder.folder import Manifest, trained_rows, write_manifest
from ziggurat.encoder.small import SmallTier, save_small
from ziggurat.engine import rules
from ziggurat.engine.classifier import AdaptiveClassifier
from ziggurat.errors import UserError
from ziggurat.jobs.choosing import with_operating_points

_TRAINER = {"static": "ziggurat.train.static", "bilstm": "ziggurat.train.bilstm"}  # modules, by kind


@dataclass(frozen=True)
class Lesson:
    """What a small model learns from."""

    train: Encoded
    targets: np.ndarray  # (n, n_classes) probabilities
    select: Encoded
    labels: np.ndarray  # (m) of the select texts
    kinds: np.ndarray  # (vocabulary) uint8, see `data.pieces`


def train_small(
    source: Path, recipe: Recipe, roles: Mapping[Role, Dataset], out: Path, teacher: Path | None, progress: bool
) -> Manifest:
    """Trains a small model into the folder `out`, with the tokenizer of `source`; returns its manifest.

    Rows without labels need a teacher. UserError where there is neither, or something is not installed.
    """
    assert recipe.small is not None
    try:
        trainer = importlib.import_module(_TRAINER[recipe.small.kind])
        importlib.import_module("scipy.sparse")
    except ModuleNotFoundError as error:
        raise UserError(f"training needs {error.name}; pip install 'ziggurat[train]'") from None
    rows, select = roles[Role.TRAIN].require(Role.TRAIN), roles[Role.SELECT].require(Role.SELECT)
    opened = None if teacher is None else AdaptiveClassifier.from_pretrained(teacher)
    max_length = recipe.max_length if opened is None else opened.manifest.max_length
    tokenizer = TextTokenizer(source, max_length)
    lesson = lesson_of(recipe, rows, select, tokenizer, opened, progress)
    tier = _LEARN[recipe.small.kind](trainer, lesson, recipe, progress)
    seen = [rows.hashes, select.hashes, *([] if teacher is None else [trained_rows(teacher)])]
    training = {
        "recipe": dataclasses.asdict(recipe),
        "teacher": None if opened is None else opened.manifest.fingerprint,
        "data": {"source": rows.source, "digest": rows.digest, "rows": len(rows)},
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
    )
    save_small(tier, manifest, np.unique(np.concatenate(seen)), source, out)
    manifest = with_operating_points(AdaptiveClassifier.from_pretrained(out), select, recipe, progress=False)
    write_manifest(manifest, out)
    return manifest


def lesson_of(
    recipe: Recipe,
    rows: Dataset,
    select: Dataset,
    tokenizer: TextTokenizer,
    teacher: AdaptiveClassifier | None,
    progress: bool,
) -> Lesson:
    """Texts and what to say to them: the teacher's full depth, mixed with labels as the recipe says."""
    train, chosen = (tokenizer.encode(part.texts, part.pairs) for part in (rows, select))
    targets = _targets(recipe, rows, teacher, train, progress)
    if select.labels is not None:
        labels = select.labels
    elif teacher is not None:
        labels = _full_logits(teacher, select, chosen, progress).argmax(axis=1)
    else:
        raise UserError(f"{select.source}: has no labels; label its rows, or name a model to learn from with --teacher")
    return Lesson(train, targets, chosen, labels, tokenizer.piece_kinds())


def _targets(
    recipe: Recipe, rows: Dataset, teacher: AdaptiveClassifier | None, train: Encoded, progress: bool
) -> np.ndarray:
    from ziggurat.train.static import one_hot, teacher_targets

    assert recipe.small is not None
    if teacher is None:
        return one_hot(rows.classes, len(rows.label_names))
    soft = teacher_targets(_full_logits(teacher, rows, train, progress), recipe.small.temperature)
    if rows.labels is None or recipe.small.label_weight == 0:
        return soft
    share = recipe.small.label_weight
    return (1 - share) * soft + share * one_hot(rows.labels, soft.shape[1])


def _full_logits(teacher: AdaptiveClassifier, rows: Dataset, encoded: Encoded, progress: bool) -> np.ndarray:
    return teacher.run(encoded, rules.never(len(teacher.rungs)), progress=progress).logits


def _learn_static(trainer: Any, lesson: Lesson, recipe: Recipe, progress: bool) -> SmallTier:
    return trainer.train_static(lesson.train, lesson.targets, lesson.select, lesson.labels, lesson.kinds)


_LEARN: Mapping[str, Callable[[Any, Lesson, Recipe, bool], SmallTier]] = {"static": _learn_static}
