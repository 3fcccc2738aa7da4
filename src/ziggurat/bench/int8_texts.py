"""Texts that int8 peers may look at: never those that are timed or scored."""

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
    """Which texts calibrate, and which are left to measure."""

    rows: Dataset  # that calibrate
    measured: Dataset  # the data without them
    origin: str  # where they come from, for result rows and people


def calibration_of(
    model: str, classifier: OpenedModel, data: Dataset, size: int, source: str | None, columns: Columns
) -> Calibration:
    """At most `size` texts of `source`; without one, of the rows that trained the model, where they can be read again.

    Where not, rows of the data (at most a quarter) that are then neither timed nor scored, for any system. Texts that
    the data has too are never taken. UserError if `source` has no others.
    """
    if source is not None:
        rows = load(source, replace(columns, label=None), problem=classifier.problem.kind)
        check_pairs(classifier, rows)
        given = _unlike(_unlabelled(rows, classifier), data)
        if not len(given):
            raise UserError(f"{source}: has no text that the data has not; calibrate with other rows than are measured")
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
    """The rows that trained the model or chose something for it, if their source is still there."""
    source = str(classifier.manifest.training.get("data", {}).get("source", ""))
    if source == STDLIB_DOCS:
        return load_builtin()[Role.TRAIN]
    if not source:
        return None
    try:
        rows = load(source, replace(columns, label=None), problem=classifier.problem.kind)
        check_pairs(classifier, rows)
    except UserError:  # moved, other columns, no network: any of these means that it cannot be had
        return None
    found = _unlabelled(rows, classifier)
    return found.take(np.flatnonzero(np.isin(found.hashes, trained_rows(local_folder(model)))))


def _unlabelled(rows: Rows, classifier: OpenedModel) -> Dataset:
    return as_dataset(rows, Role.TRAIN, classifier.manifest.labels, classifier.problem.kind)


def _unlike(rows: Dataset, others: Dataset) -> Dataset:
    """The rows whose texts the others have not."""
    return rows.take(np.flatnonzero(~np.isin(rows.hashes, others.hashes)))
