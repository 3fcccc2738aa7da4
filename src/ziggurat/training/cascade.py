"""Makes a cascade of trained model folders, from cheap to expensive."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ziggurat.calibrate.choose import fit_deferral
from ziggurat.calibrate.risks import risks_of
from ziggurat.calibrate.rows import calibration_rows
from ziggurat.data.dataset import Dataset
from ziggurat.data.memory import RowsLike, as_rows
from ziggurat.data.sources import DEFAULT_COLUMNS, Columns
from ziggurat.data.tables import Source
from ziggurat.encoder.cascade import with_deferral, write_cascade
from ziggurat.encoder.folder import Manifest, read_manifest
from ziggurat.encoder.hub import checkpoint_folder
from ziggurat.engine.opened import OpenedModel
from ziggurat.errors import UserError, install
from ziggurat.files import whole_folder
from ziggurat.measure.subject import ModelOptions
from ziggurat.policies.exits import LEARNED
from ziggurat.system import json_values
from ziggurat.types import Label


@dataclass(frozen=True)
class Cascade:
    """Result of `make_cascade`."""

    out: Path  # the model folder
    tiers: tuple[str, ...]  # kinds of the models, from cheap to expensive
    rungs: tuple[str, ...]  # names of the rungs
    labels: tuple[Label, ...]
    rows_fitted: int | None  # number of rows that the learned exit score was fitted on; None = no such score

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return dict(json_values(self))


def make_cascade(
    models: Sequence[str],
    out: str | Path,
    source: RowsLike | None = None,
    columns: Columns = DEFAULT_COLUMNS,
    options: ModelOptions = ModelOptions(),
    progress: bool = False,
) -> Cascade:
    """Writes a cascade of these models into the folder `out`; returns its parts.

    Until it is calibrated, its only operating point is "full": the last tier alone. With `source`, an exit score is
    fitted that predicts whether the next tier would answer better, on the models' select rows, else on a third of the
    unseen rows. UserError for fewer than two models, different labels, or a folder without a model.
    """
    source = None if source is None else as_rows(source)
    if not models:
        raise UserError("a cascade needs at least two models, from cheap to expensive; none given")
    out, folders = Path(out), [checkpoint_folder(model) for model in models]
    if source is not None:
        _check_fitting(folders[-1])
    fitted = None
    with whole_folder(out) as made:
        cascade = made / "cascade"
        write_cascade(folders, cascade)
        if source is not None:
            fitted = _fitted_on(cascade, source, columns, options, progress)
        for part in list(cascade.iterdir()):
            part.rename(made / part.name)
        shutil.rmtree(cascade)
    manifest = read_manifest(out)
    kinds = [read_manifest(out / tier).kind for tier in manifest.tiers]
    rungs = OpenedModel.from_pretrained(out, "cpu").rungs
    return Cascade(out, (*kinds, manifest.kind), tuple(rung.name for rung in rungs), manifest.labels, fitted)


def _check_fitting(folder: Path) -> None:
    """UserError if the model's problem has no learned exit score."""
    problem = read_manifest(folder).problem
    if LEARNED not in problem.scores:
        raise UserError(
            f"--data: a learned exit score is fitted to it, which {problem.kind} does not have; leave it out, and "
            f"`ziggurat calibrate` chooses thresholds of {problem.scores[0]}"
        )


def learn_deferral(folder: Path, rows: Dataset, options: ModelOptions, progress: bool) -> Manifest:
    """Fits the learned exit score of a model or cascade and stores it in the folder; these rows may not certify."""
    classifier = options.open(str(folder))
    encoded = classifier.encode_rows(rows)
    runs = classifier.every_rung(encoded, options.batch_size, progress, classifier.token_rule)
    try:
        answers = classifier.problem.predictions(runs.readings, encoded)
        weights = fit_deferral(runs.readings, answers, rows.labels, classifier.problem)
    except ModuleNotFoundError as error:
        raise UserError(f"a learned score needs {error.name}; {install('calibrate')}") from None
    return with_deferral(folder, weights, rows.hashes)


def _fitted_on(folder: Path, source: Source, columns: Columns, options: ModelOptions, progress: bool) -> int:
    classifier = options.open(str(folder))
    rows = calibration_rows(str(folder), classifier, source, columns, risks_of(classifier.problem)["agreement"]).search
    learn_deferral(folder, rows, options, progress)
    return len(rows)
