"""Compares a checkpoint's answers with the labels of the rows that adapt it."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np

from ziggurat.data.dataset import Dataset
from ziggurat.data.labels import labelled
from ziggurat.encoder.torch.model import EncoderModel
from ziggurat.problems.registry import problem_named
from ziggurat.recipe import BACKBONE_STAGES, Recipe
from ziggurat.training.batches import Examples
from ziggurat.training.loop import Run
from ziggurat.training.precomputed import with_teacher_logits
from ziggurat.types import ProblemType

Range = tuple[float, float]
_FEW = 5  # classes with fewer such rows are not judged


def own_answers(model: EncoderModel, select: Examples, recipe: Recipe, run: Run) -> np.ndarray | None:
    """Predictions (n) of the select rows at full depth; None if a stage changes them, or if they are not needed."""
    changes = any(stage.kind in BACKBONE_STAGES for stage in recipe.stages)
    needed = model.problem is ProblemType.REGRESSION or (
        model.problem is ProblemType.SINGLE_LABEL and bool(labelled(select.labels).any())
    )
    if changes or not needed:
        return None
    logits = with_teacher_logits(model, select, run, "full depth").teacher_logits
    assert logits is not None
    return problem_named(model.problem).predictions(logits)


def label_range(stated: Range | None, answers: np.ndarray | None, *parts: Dataset) -> Range | None:
    """The range that a regression's losses are relative to: the stated one, else least and largest label.

    A checkpoint's `answers` are included, since a reranker's scores exceed its labels. None = no regression. UserError
    if there is nothing to compute the range from, only one number, or a label outside the stated range.
    """
    known = [part.labels[labelled(part.labels)] for part in parts if part.labels is not None]
    if stated is None and answers is not None:
        known.append(answers)
    return problem_named(parts[0].problem).range_of(stated, known, parts[0].source)


def on_labels_scale(answers: np.ndarray | None, select: Dataset) -> bool:
    """Whether a checkpoint's numbers (n) are closer to the labels than the labels' mean is; else warns.

    False for a reranker's logits with labels 0 and 1. True if there is nothing to compare.
    """
    if answers is None or select.problem is not ProblemType.REGRESSION or select.labels is None:
        return True
    rows = labelled(select.labels)
    found, true = answers[rows], select.labels[rows]
    if not len(true) or ((found - true) ** 2).mean() < true.var():
        return True
    logging.getLogger(__name__).warning(
        "%s: labels go from %g to %g, the checkpoint's scores from %g to %g and are on another scale: exits learn and "
        "are chosen by its scores alone",
        *(select.source, true.min(), true.max(), found.min(), found.max()),
    )
    return False


def warn_of_exchanged(answers: np.ndarray | None, select: Dataset) -> None:
    """Warns if a checkpoint's answers (n) systematically swap classes: B for C, and C for B.

    Then the names in the checkpoint, or in the rows, are probably in the wrong order.
    """
    if answers is None or select.problem is not ProblemType.SINGLE_LABEL or select.labels is None:
        return
    rows = labelled(select.labels)
    found = exchanged(answers[rows], select.labels[rows], len(select.label_names))
    if found:
        names = [select.label_names[index] for index in found]
        pairs = ", ".join(f"{name!r} are {other!r}" for name, other in zip(names, names[1:] + names[:1], strict=True))
        logging.getLogger(__name__).warning(
            "%s: most rows have other labels than the checkpoint's answers: of those that it calls %s; see that its "
            "names for classes (id2label) are in the right order",
            *(select.source, pairs),
        )


def exchanged(predicted: np.ndarray, true: np.ndarray, n_classes: int) -> list[int]:
    """A cycle of classes k, l, …, m: rows predicted k are mostly labelled l, and so on; rows predicted m mostly k.

    `predicted` and `true` (n) are class indices. Empty = no cycle. A weak classifier only mistakes rare classes for
    frequent ones, which gives no cycle. Classes with few such rows are ignored.
    """
    table = np.zeros((n_classes, n_classes), dtype=np.int64)
    np.add.at(table, (predicted, true), 1)
    mostly, most = table.argmax(axis=1), table.max(axis=1)
    mostly = np.where((most > table.diagonal()) & (most >= _FEW), mostly, np.arange(n_classes))
    for start in range(n_classes):
        circle = [start]
        while (following := int(mostly[circle[-1]])) not in circle:
            circle.append(following)
        if following == start and len(circle) > 1:
            return circle
    return []


def without_labels(rows: Examples) -> Examples:
    """The same rows without labels, for a regression."""
    return replace(rows, labels=np.full(len(rows), np.nan))
