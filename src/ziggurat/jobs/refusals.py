"""What some commands cannot do with some models, said before anything is loaded."""

from __future__ import annotations

from ziggurat.encoder.folder import ENCODER, read_manifest, tier_folders
from ziggurat.encoder.hub import local_folder
from ziggurat.errors import UserError
from ziggurat.recipe import Recipe
from ziggurat.types import Problem


def refuse_small(model: str, command: str) -> None:
    """UserError for a small model alone: it has no layers, and answers at one place."""
    manifest = read_manifest(local_folder(model))
    if manifest.kind != ENCODER:
        raise UserError(
            f"{model}: a {manifest.kind} model alone has neither layers nor exits, which `ziggurat {command}` is "
            "about; give an encoder or a cascade (`ziggurat eval` measures a small model)"
        )


def refuse_other_problem(recipe: Recipe, problem: Problem | None, taught: bool = False) -> None:
    """UserError for a recipe with parts that only know classes, where something else is asked.

    A static model learns sets of labels, too, but only from rows and not from a teacher (`taught`).
    """
    small = recipe.small
    sets = problem is Problem.MULTI_LABEL and small is not None and small.kind == "static" and not taught
    only_classes = {
        "small models answer": small is not None and not sets,
        "cascades answer": bool(recipe.tiers),
        "temperatures are fitted": recipe.temperatures,
        "a [search] of shares is made": recipe.search is not None,
    }
    wrong = [what for what, here in only_classes.items() if here]
    if wrong and problem not in (None, Problem.SINGLE_LABEL):
        raise UserError(
            f"recipe {recipe.name!r}: {wrong[0]} for classes alone, not for {problem}; choose another recipe"
        )


def refuse_but_classes(model: str, command: str) -> None:
    """UserError for a model that answers with anything but one of its classes."""
    problem = read_manifest(local_folder(model)).problem_type
    if problem != Problem.SINGLE_LABEL:
        raise UserError(
            f"{model}: `ziggurat {command}` is about classes, and the model's problem is {problem}; `eval`, `bench`, "
            "`calibrate`, `explain`, `report lengths` and `predict` know it"
        )


def refuse_cascade(model: str, command: str) -> None:
    """UserError for a cascade: layers of several models stand side by side in it. It names folders that will do."""
    folder = local_folder(model)
    tiers = tier_folders(folder, read_manifest(folder))
    if tiers:
        encoders = [str(tier) for tier in tiers if read_manifest(tier).kind == ENCODER]
        instead = ", ".join([*encoders, "the folder that its last tier was made from"])
        raise UserError(
            f"{model}: a cascade, and `ziggurat {command}` is about one encoder's layers; "
            f"give its encoders by themselves: {instead}"
        )
