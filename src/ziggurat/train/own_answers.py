"""What a checkpoint that keeps its weights says of the rows it is adapted with: whether labels are what it answers."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np

from ziggurat.data.labels import labelled
from ziggurat.data.squad import Questions
from ziggurat.data.tasks import Dataset
from ziggurat.encoder.model import AdaptiveModel
from ziggurat.errors import UserError
from ziggurat.policies.outputs import output_of
from ziggurat.recipe import Recipe
from ziggurat.stage import BACKBONE_STAGES
from ziggurat.train.batches import Examples
from ziggurat.train.loop import Run
from ziggurat.train.teaching import taught_by
from ziggurat.types import Problem

Range = tuple[float, float]


def own_answers(model: AdaptiveModel, select: Examples, recipe: Recipe, run: Run) -> np.ndarray | None:
    """Predictions (n, …) of the select rows at full depth; None where a stage changes them, or they are spans."""
    changes = any(stage.kind in BACKBONE_STAGES for stage in recipe.stages)
    if changes or model.problem is Problem.QUESTION_ANSWERING:
        return None
    taught = taught_by(model, select, run).taught
    assert taught is not None
    return output_of(model.problem).predictions(taught)


def label_range(stated: Range | None, own: np.ndarray | None, *parts: Dataset | Questions) -> Range | None:
    """In which numbers a regression's losses are counted: as the user states it, else least and largest label.

    Of a checkpoint that keeps its weights its own answers count, too: a reranker's scores go beyond its labels. None =
    the model is none of numbers. UserError where nothing says the range, there is but one number, or a label is outside
    of what is stated.
    """
    if parts[0].problem is not Problem.REGRESSION:
        return None
    known = [part.labels[labelled(part.labels)] for part in parts if part.labels is not None]
    if stated is None and own is not None:
        known.append(own)
    if not known and stated is None:
        raise UserError(
            f"{parts[0].source}: no labels say how far a regression's numbers go; give --label-range LOW,HIGH"
        )
    numbers = np.concatenate([*known, stated or ()])
    low, high = float(numbers.min()), float(numbers.max())
    if low == high:
        raise UserError(f"{parts[0].source}: every label is {low:g}; a regression needs different numbers")
    if stated is not None and (low, high) != stated:
        said = ",".join(f"{limit:g}" for limit in stated)
        raise UserError(f"{parts[0].source}: has labels from {low:g} to {high:g}; --label-range {said} leaves some out")
    return low, high


def explains(own: np.ndarray | None, select: Dataset | Questions) -> bool:
    """Whether a checkpoint's answers (n, …) fit the rows' labels better than one and the same answer would.

    Else a warning says so. Numbers are then on another scale, as logits of a reranker beside labels of 0 and 1; classes
    are likely in another order. True where there is nothing to compare.
    """
    if own is None or select.labels is None or not labelled(select.labels).any():
        return True
    rows = labelled(select.labels)
    said, true = own[rows], select.labels[rows]
    if select.problem is Problem.REGRESSION:
        fits = bool(((said - true) ** 2).mean() < true.var())
        doubt = (
            f"labels go from {true.min():g} to {true.max():g}, the checkpoint's scores from {said.min():g} to "
            f"{said.max():g} and are on another scale: exits learn and are chosen by its scores alone"
        )
    elif select.problem is Problem.SINGLE_LABEL:
        most = np.bincount(true).max() / len(true)
        fits = bool((said == true).mean() >= most)
        doubt = (
            f"the checkpoint answers {(said == true).mean():.0%} of the labelled rows as they are labelled, one class "
            f"for all would be right for {most:.0%}: see that its names for classes (id2label) are in the right order"
        )
    else:
        return True
    if not fits:
        logging.getLogger(__name__).warning("%s: %s", select.source, doubt)
    return fits


def without_labels(rows: Examples) -> Examples:
    """The same rows, of a regression, with labels that nobody reads."""
    return replace(rows, labels=np.full(len(rows), np.nan))
