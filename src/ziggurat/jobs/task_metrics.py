"""By which measures a model is judged: those of the task that it was trained on, or is measured on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ziggurat.data.catalogue import Task
from ziggurat.data.named import task_of
from ziggurat.encoder.folder import Manifest
from ziggurat.report.metrics import MEANS, MEASURES, measure_by_name, measures

_ACCURACY = "accuracy"


def task_for(manifest: Manifest, source: str) -> Task | None:
    """The task of a source, else the one that the model says it was trained on; None = neither has a name."""
    return task_of(source) or task_of(str(manifest.training.get("data", {}).get("source", "")))


def metrics_for(manifest: Manifest, source: str, wanted: Sequence[str] | None = None) -> tuple[str, ...]:
    """Measures to report beside accuracy: `wanted`, or the task's. UserError for an unknown one."""
    if wanted is None:
        task = task_for(manifest, source)
        wanted = () if task is None else [name for name in task.metrics if name in MEASURES]
    for name in wanted:
        measure_by_name(name)
    return tuple(name for name in wanted if name != _ACCURACY)


def task_measures(
    manifest: Manifest, source: str, names: Sequence[str], predictions: np.ndarray, truth: np.ndarray
) -> dict[str, float | None]:
    """Each measure of class indices (n) with its interval, as `measures`; classes in the order of the task's.

    A checkpoint may have the same classes in another order, and F1 is about the task's second.
    """
    task = task_for(manifest, source)
    order = None if task is None else class_order(task.names, manifest.labels)
    if order is not None:
        predictions, truth = order[predictions], order[truth]
    return measures(names, predictions, truth)


def class_order(names: Sequence[str], labels: Sequence[int | str]) -> np.ndarray | None:
    """The task's index of each class of the model, (n); None where the model calls them by other words."""
    places = {name.casefold(): place for place, name in enumerate(names)}
    if sorted(places) != sorted(str(label).casefold() for label in labels):
        return None
    return np.array([places[str(label).casefold()] for label in labels])


def uncertified(manifest: Manifest, source: str, criterion: str) -> str | None:
    """One line where the task is judged by what cannot be certified, and what is in its place; None where it can."""
    task = task_for(manifest, source)
    names = [] if task is None else [name for name in task.metrics if name not in MEANS]
    if task is None or not names:
        return None
    return (
        f"{task.name} is judged by {' and '.join(names)}, which is no mean of losses of single texts, so nothing can "
        f"be certified of it; in its place the loss {criterion!r} is, text by text"
    )
