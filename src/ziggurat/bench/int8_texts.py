"""Calibration texts of int8 peers: never texts that are timed or scored."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ziggurat.data.builtin import STDLIB_DOCS
from ziggurat.data.dataset import Dataset, Role, as_dataset, load, load_builtin
from ziggurat.data.sources import Columns, Rows
from ziggurat.encoder.folder import trained_rows
from ziggurat.encoder.hub import local_folder
from ziggurat.engine.opened import OpenedModel
from ziggurat.errors import UserError
from ziggurat.measure.subject import check_pairs, sample


@dataclass(frozen=True)
class Calibration:
    """Rows to calibrate on, and rows to measure."""

    rows: Dataset  # for calibration
    measured: Dataset  # the data without these rows
    origin: str  # where calibration rows come from, for result rows and messages


def calibration_of(
    model: str, classifier: OpenedModel, data: Dataset, size: int, source: str | None, columns: Columns
) -> Calibration:
    """At most `size` texts of `source`; without a source, of the model's training rows, if they can still be read.

    Else rows of the data (at most a quarter), which are then neither timed nor scored for any system. Texts that occur
    in the data are excluded. UserError if `source` has no other texts.
    """
    if source is not None:
        rows = load(source, replace(columns, label=None), problem=classifier.problem.kind)
        check_pairs(classifier, rows)
        given = _unlike(_unlabelled(rows, classifier), data)
        if not len(given):
            raise UserError(f"{source}: all its texts are in the data; calibrate with other rows than are measured")
        return _chosen(given, data, size, f"rows of {source}")
    trained = _trained(model, classifier, columns)
    found = None if trained is None else _unlike(trained, data)
    if found is not None and len(found):
        return _chosen(found, data, size, f"rows of {found.source} that trained the model or chose for it")
    held = data.take(sample(len(data), max(1, min(size, len(data) // 4))))
    measured = _unlike(data, held)
    if not len(measured):
        raise UserError(f"{data.source}: too few rows to set some aside for calibration; give --calibration")
    return Calibration(held, measured, f"{len(held)} rows of {data.source}, neither timed nor scored")


def _chosen(found: Dataset, data: Dataset, size: int, origin: str) -> Calibration:
    rows = found.take(sample(len(found), size))
    return Calibration(rows, data, f"{len(rows)} {origin}")


def _trained(model: str, classifier: OpenedModel, columns: Columns) -> Dataset | None:
    """The model's training and select rows, if their source still exists."""
    source = str(classifier.manifest.training.get("data", {}).get("source", ""))
    if source == STDLIB_DOCS:
        return load_builtin()[Role.TRAIN]
    if not source:
        return None
    try:
        rows = load(source, replace(columns, label=None), problem=classifier.problem.kind)
        check_pairs(classifier, rows)
    except UserError:  # moved, other columns, no network: the rows are not available
        return None
    found = _unlabelled(rows, classifier)
    return found.take(np.flatnonzero(np.isin(found.hashes, trained_rows(local_folder(model)))))


def _unlabelled(rows: Rows, classifier: OpenedModel) -> Dataset:
    return as_dataset(rows, Role.TRAIN, classifier.manifest.labels, classifier.problem.kind)


def _unlike(rows: Dataset, excluded: Dataset) -> Dataset:
    """The rows whose texts are not among the excluded rows."""
    return rows.take(np.flatnonzero(~np.isin(rows.hashes, excluded.hashes)))
