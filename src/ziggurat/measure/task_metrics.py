"""By which measures a model is judged: those of the task that it was trained on, or is measured on."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ziggurat.data.catalogue import Task, task_of
from ziggurat.data.tables import Source
from ziggurat.encoder.folder import Manifest
from ziggurat.errors import UserError
from ziggurat.problems.metrics import MEANS, measure_by_name, measures, values

_ACCURACY = "accuracy"


def task_for(manifest: Manifest, source: Source) -> Task | None:
    """The task of a source, else the one that the model says it was trained on; None = neither has a name."""
    return task_of(source) or task_of(str(manifest.training.get("data", {}).get("source", "")))


def metrics_for(manifest: Manifest, source: Source, wanted: Sequence[str] | None = None) -> tuple[str, ...]:
    """Measures to report beside accuracy: `wanted`, or the task's. UserError for an unknown one, one of another problem
    than the model's, or one of two classes where the model has more.
    """
    known = manifest.problem.measures
    if wanted is None:
        task = task_for(manifest, source)
        return () if task is None else tuple(name for name in task.metrics if name in known and name != _ACCURACY)
    if not known:
        raise UserError(f"--metric: {manifest.problem.counted} are measured by exact match and F1 alone; leave it out")
    for name in wanted:
        measure_by_name(name)
        if name not in known:
            raise UserError(f"metric {name!r}: is not of {manifest.problem_type}; choose one of {', '.join(known)}")
        if name == "f1" and len(manifest.labels) > 2:
            raise UserError(f"metric {name!r}: is of two classes, the model has {len(manifest.labels)}; take f1-macro")
    return tuple(name for name in wanted if name != _ACCURACY)


def task_measures(
    manifest: Manifest, source: Source, names: Sequence[str], predictions: np.ndarray, truth: np.ndarray
) -> dict[str, float | None]:
    """Each measure of class indices (n) with its interval, as `measures`."""
    order = _order(manifest, source)
    return measures(names, order(predictions), order(truth))


def beside_full(
    manifest: Manifest,
    source: Source,
    names: Sequence[str],
    predictions: np.ndarray,
    full: np.ndarray,
    truth: np.ndarray,
) -> dict[str, float | None]:
    """The same, and each measure of full depth's class indices (n) under full_NAME."""
    order = _order(manifest, source)
    whole = values(names, order(full), order(truth))
    found = task_measures(manifest, source, names, predictions, truth)
    return found | {f"full_{key}": value for key, value in whole.items()}


def _order(manifest: Manifest, source: Source) -> Callable[[np.ndarray], np.ndarray]:
    """Makes the model's class indices the task's: F1 is about its second class, and a checkpoint may have another."""
    task = task_for(manifest, source)
    order = None if task is None else class_order(task.names, manifest.labels)
    return lambda classes: classes if order is None else order[classes]


def class_order(names: Sequence[str], labels: Sequence[int | str]) -> np.ndarray | None:
    """The task's index of each class of the model, (n); None where the model calls them by other words."""
    places = {name.casefold(): place for place, name in enumerate(names)}
    if sorted(places) != sorted(str(label).casefold() for label in labels):
        return None
    return np.array([places[str(label).casefold()] for label in labels])


def uncertified(manifest: Manifest, source: Source, criterion: str) -> str | None:
    """One line where the task is judged by what cannot be certified, and what is in its place; None where it can."""
    task = task_for(manifest, source)
    names = [] if task is None else [name for name in task.metrics if name not in MEANS]
    if task is None or not names:
        return None
    mean = "which is no mean" if len(names) == 1 else "which are no means"
    return (
        f"{task.name} is judged by {' and '.join(names)}, {mean} of losses of single texts and cannot be certified; "
        f"what is, in place of that, is the loss {criterion!r}"
    )
