"""What a checkpoint that keeps its weights says of the rows that adapt it: whether their labels fit its answers."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np

from ziggurat.data.dataset import Dataset
from ziggurat.data.labels import labelled
from ziggurat.encoder.torch.model import EncoderModel
from ziggurat.problems.registry import problem_named
from ziggurat.recipe import BACKBONE_STAGES, Recipe
from ziggurat.train.batches import Examples
from ziggurat.train.loop import Run
from ziggurat.train.precomputed import with_teacher_logits
from ziggurat.types import ProblemType

Range = tuple[float, float]
_FEW = 5  # rows say nothing of a class


def own_answers(model: EncoderModel, select: Examples, recipe: Recipe, run: Run) -> np.ndarray | None:
    """Predictions (n) of the select rows at full depth; None where a stage changes them, or nobody asks for them."""
    changes = any(stage.kind in BACKBONE_STAGES for stage in recipe.stages)
    asked = model.problem is ProblemType.REGRESSION or (
        model.problem is ProblemType.SINGLE_LABEL and bool(labelled(select.labels).any())
    )
    if changes or not asked:
        return None
    logits = with_teacher_logits(model, select, run, "full depth").teacher_logits
    assert logits is not None
    return problem_named(model.problem).predictions(logits)


def label_range(stated: Range | None, own: np.ndarray | None, *parts: Dataset) -> Range | None:
    """In which numbers a regression's losses are counted: as the user states it, else least and largest label.

    Of a checkpoint that keeps its weights its own answers count, too: a reranker's scores go beyond its labels. None =
    the model is none of numbers. UserError where nothing says the range, there is but one number, or a label is outside
    of what is stated.
    """
    known = [part.labels[labelled(part.labels)] for part in parts if part.labels is not None]
    if stated is None and own is not None:
        known.append(own)
    return problem_named(parts[0].problem).range_of(stated, known, parts[0].source)


def on_labels_scale(own: np.ndarray | None, select: Dataset) -> bool:
    """Whether a checkpoint's numbers (n) are nearer to the rows' labels than the labels' mean is; else warns.

    A reranker's logits beside labels of 0 and 1 are not. True where there is nothing to compare.
    """
    if own is None or select.problem is not ProblemType.REGRESSION or select.labels is None:
        return True
    rows = labelled(select.labels)
    said, true = own[rows], select.labels[rows]
    if not len(true) or ((said - true) ** 2).mean() < true.var():
        return True
    logging.getLogger(__name__).warning(
        "%s: labels go from %g to %g, the checkpoint's scores from %g to %g and are on another scale: exits learn and "
        "are chosen by its scores alone",
        *(select.source, true.min(), true.max(), said.min(), said.max()),
    )
    return False


def warn_of_exchanged(own: np.ndarray | None, select: Dataset) -> None:
    """Warns where a checkpoint's answers (n) give each of some classes the name of another: B for C, and C for B.

    Its names for them, or the rows', are then most likely in another order than its outputs.
    """
    if own is None or select.problem is not ProblemType.SINGLE_LABEL or select.labels is None:
        return
    rows = labelled(select.labels)
    found = exchanged(own[rows], select.labels[rows], len(select.label_names))
    if found:
        names = [select.label_names[place] for place in found]
        pairs = ", ".join(f"{one!r} are {other!r}" for one, other in zip(names, names[1:] + names[:1], strict=True))
        logging.getLogger(__name__).warning(
            "%s: most rows have other labels than the checkpoint's answers: of those that it calls %s; see that its "
            "names for classes (id2label) are in the right order",
            *(select.source, pairs),
        )


def exchanged(said: np.ndarray, true: np.ndarray, n_classes: int) -> list[int]:
    """Classes k, l, …, m of which the answers k are mostly labelled l, and so on, and the answers m mostly k.

    `said` and `true` (n) are class indices. A weak classifier takes rare classes for a frequent one, which it knows, so
    that no such circle closes. None of a few rows.
    """
    table = np.zeros((n_classes, n_classes), dtype=np.int64)
    np.add.at(table, (said, true), 1)
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
    """The same rows, of a regression, with labels that nobody reads."""
    return replace(rows, labels=np.full(len(rows), np.nan))
