"""Checks of recipes and rows for training with a teacher, before any training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ziggurat.data.dataset import Dataset, Role
from ziggurat.encoder.folder import Manifest
from ziggurat.errors import UserError
from ziggurat.recipe import BACKBONE_STAGES, LABEL_FREE_STAGES, STUDENT_STAGES, Recipe


def with_teacher(recipe: Recipe) -> Recipe:
    """The recipe for a teacher that is trained already: without the `regular` stages before the student's.

    UserError for a recipe without a student.
    """
    if recipe.student is None:
        raise UserError(
            f"recipe {recipe.name!r}: makes no student, so --teacher has no use; "
            "take one with a [student] table, such as distil, or leave --teacher out"
        )
    kinds = [stage.kind for stage in recipe.stages]
    first = next((number for number, kind in enumerate(kinds) if kind in STUDENT_STAGES), 0)
    before = [stage for stage in recipe.stages[:first] if stage.kind != "regular"]
    return replace(recipe, stages=(*before, *recipe.stages[first:]))


def with_checkpoint(recipe: Recipe, checkpoint: str) -> Recipe:
    """The recipe with a student that starts from this encoder; UserError without a student."""
    if recipe.student is None:
        raise UserError(
            f"recipe {recipe.name!r}: makes no student, so --student has no use; take one with a [student] table, "
            "such as tinybert"
        )
    return replace(recipe, student=replace(recipe.student, checkpoint=checkpoint))


def refuse_untaught(recipe: Recipe) -> None:
    """UserError for a student if no stage trains its teacher."""
    if recipe.student is not None and recipe.stages[0].kind != "regular":
        raise UserError(
            f"recipe {recipe.name!r}: nothing trains the student's teacher; put a stage 'regular' first, "
            "or give a trained one with --teacher"
        )


def stage_of_answers(recipe: Recipe) -> str | None:
    """Kind of the first stage that learns from a model's answers before any stage has trained them; None = none."""
    trained, plain = False, False
    for stage in recipe.stages:
        needs_plain = stage.distillation > 0 and stage.kind not in STUDENT_STAGES
        if (needs_plain and not plain) or (stage.kind == "heads" and not trained):
            return stage.kind
        plain = plain or stage.kind in ("regular", *STUDENT_STAGES)
        trained = trained or stage.kind in BACKBONE_STAGES
    return None


def refuse_random_answers(recipe: Recipe, folder: Path, answers: Callable[[Path], bool]) -> None:
    """UserError for a stage that learns from a model's answers before these are trained.

    `answers(folder)` tells whether the starting checkpoint has a trained classifier.
    """
    if (kind := stage_of_answers(recipe)) is not None and not answers(folder):
        raise UserError(
            f"recipe {recipe.name!r}: stage {kind!r} learns from a model's answers, but {folder} was "
            "not fine-tuned to give any; put a stage 'regular' first, or give one that was with --model"
        )


def refuse_other_task(name: str, teacher: Manifest, rows: Dataset, recipe: Recipe) -> None:
    """UserError for rows, of any role, whose labels or inputs differ from those of the teacher `name`."""
    if [str(label) for label in rows.label_names] != [str(label) for label in teacher.labels]:
        labels, known = (", ".join(map(str, names[:20])) for names in (rows.label_names, teacher.labels))
        raise UserError(f"{rows.source}: has labels {labels}, the teacher {name} knows {known}; give it its own rows")
    if (rows.pairs is not None) != teacher.pairs:
        reads, has = ("pairs of texts", "single texts") if teacher.pairs else ("single texts", "pairs of texts")
        raise UserError(f"{rows.source}: has {has}, the teacher {name} reads {reads}; give it rows of {reads}")
    refuse_unlabelled(rows, recipe)


def refuse_unlabelled(rows: Dataset, recipe: Recipe) -> None:
    """UserError for training rows without labels, if a stage of the recipe needs them."""
    needs = [stage.kind for stage in recipe.stages if stage.kind not in LABEL_FREE_STAGES]
    if rows.labels is None and rows.role in (Role.TRAIN, Role.SELECT) and needs:
        raise UserError(f"{rows.source}: has no labels, which stage {needs[0]!r} needs; label rows, or take distil")
