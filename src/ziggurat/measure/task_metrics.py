"""Chooses the measures of a model: those of the task that it is measured on, or was trained on."""

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
    """The task of a source, else of the model's training data; None = neither is a known task."""
    return task_of(source) or task_of(str(manifest.training.get("data", {}).get("source", "")))


def metrics_for(manifest: Manifest, source: Source, wanted: Sequence[str] | None = None) -> tuple[str, ...]:
    """Measures to report besides accuracy: `wanted`, or the task's.

    UserError for an unknown measure, one of another problem, or one for two classes if the model has more.
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
    """Measures of class indices (n) with their intervals, as `measures`."""
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
    """As `task_measures`, and measures of full depth's class indices (n) as full_NAME."""
    order = _order(manifest, source)
    full_values = values(names, order(full), order(truth))
    found = task_measures(manifest, source, names, predictions, truth)
    return found | {f"full_{key}": value for key, value in full_values.items()}


def _order(manifest: Manifest, source: Source) -> Callable[[np.ndarray], np.ndarray]:
    """Maps the model's class indices to the task's, because F1 is about the task's second class."""
    task = task_for(manifest, source)
    order = None if task is None else class_order(task.names, manifest.labels)
    return lambda classes: classes if order is None else order[classes]


def class_order(names: Sequence[str], labels: Sequence[int | str]) -> np.ndarray | None:
    """The task's index of each class of the model, (n); None if the names differ."""
    places = {name.casefold(): place for place, name in enumerate(names)}
    if sorted(places) != sorted(str(label).casefold() for label in labels):
        return None
    return np.array([places[str(label).casefold()] for label in labels])


def uncertified(manifest: Manifest, source: Source, criterion: str) -> str | None:
    """A line if the task's measures cannot be certified, with the loss that replaces them; None if they can."""
    task = task_for(manifest, source)
    names = [] if task is None else [name for name in task.metrics if name not in MEANS]
    if task is None or not names:
        return None
    mean = "which is no mean" if len(names) == 1 else "which are no means"
    return (
        f"{task.name} is judged by {' and '.join(names)}, {mean} of losses of single texts and cannot be certified; "
        f"what is, in place of that, is the loss {criterion!r}"
    )
