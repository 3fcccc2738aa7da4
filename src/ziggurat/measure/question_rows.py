"""Question answering: which files and recipes are for it, and the roles of questions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from ziggurat.data.dataset import Fractions, Role
from ziggurat.data.sources import DEFAULT_COLUMNS, FAIL, Columns
from ziggurat.data.squad import Questions, holds_questions, read_questions, split_questions
from ziggurat.encoder.folder import CONFIG, read_json, read_manifest
from ziggurat.encoder.hub import local_folder
from ziggurat.errors import UserError
from ziggurat.policies.exits import SPAN_ENTROPY
from ziggurat.recipe import Recipe
from ziggurat.types import ProblemType

STAGES = ("regular", "guess", "soft", "hard", "heads", "joint")  # that know spans


def asks_questions(source: str, problem: ProblemType | None = None, columns: Columns = DEFAULT_COLUMNS) -> bool:
    """Whether rows are questions about texts: as `problem` says, None = by the form of the file.

    UserError where `columns` say of them what is for other rows alone.
    """
    return _told(holds_questions(source) if problem is None else problem is ProblemType.QUESTION_ANSWERING, columns)


def answers_questions(model: str, columns: Columns = DEFAULT_COLUMNS) -> bool:
    """Whether a model folder answers with spans; UserError as `asks_questions`."""
    return _told(read_manifest(local_folder(model)).answers_spans, columns)


def _told(questions: bool, columns: Columns) -> bool:
    if questions and (columns.encoding is not None or columns.on_error != FAIL):
        raise UserError("--encoding, --on-error: not for questions, which are read whole and as UTF-8; leave them out")
    return questions


def question_roles(source: str, recipe: Recipe) -> Mapping[Role, Questions]:
    """Questions in the roles that a recipe wants, disjoint by article."""
    fractions = Fractions(1 - recipe.select - recipe.certify, recipe.select, recipe.certify, 0.0)
    return split_questions(read_questions(source, Role.TRAIN), fractions)


def question_recipe(recipe: Recipe, teacher: str | None = None) -> Recipe:
    """The recipe as it is for questions; UserError for what questions cannot have yet."""
    unknown = [stage.kind for stage in recipe.stages if stage.kind not in STAGES]
    extras = {
        f"stage {unknown[0]!r}" if unknown else "": bool(unknown),
        "--teacher": teacher is not None,
        "[small]": recipe.small is not None,
        "[search]": recipe.search is not None,
        "tiers": bool(recipe.tiers),
        "temperatures": recipe.temperatures,
    }
    for name, there in extras.items():
        if there:
            raise UserError(
                f"recipe {recipe.name!r}: {name} is for classifiers; questions take recipes of the stages "
                f"{', '.join(STAGES)}, such as full, ltp, early-exit and magic-pyramid"
            )
    return replace(recipe, max_length=recipe.spans.window, exit_score=SPAN_ENTROPY)


def has_spans(folder: Path) -> bool:
    """Whether a checkpoint was fine-tuned for questions."""
    config = read_json(folder / CONFIG, f"{folder}: no {CONFIG}; give a folder made by save_pretrained")
    return any(str(name).endswith("ForQuestionAnswering") for name in config.get("architectures") or ())


def require_spans(folder: Path) -> None:
    """UserError unless a checkpoint was fine-tuned for questions."""
    if not has_spans(folder):
        raise UserError(
            f"{folder}: not fine-tuned for questions (no …ForQuestionAnswering in {CONFIG}); use `ziggurat train`"
        )
