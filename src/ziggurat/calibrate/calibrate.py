"""Finds the fastest operating points whose loss is bounded with confidence."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ziggurat.calibrate.page.picture import picture, write_page
from ziggurat.calibrate.paths import Setting
from ziggurat.calibrate.points import (
    Chosen,
    Promise,
    Terms,
    certified,
    check_enough_rows,
    chosen_points,
    searched,
    usable_rungs,
)
from ziggurat.calibrate.result import Calibration, RowsUsed, TargetResult
from ziggurat.calibrate.risks import Risk, risk_by_name
from ziggurat.calibrate.rows import CalibrationRows, calibration_rows, run_all_rungs
from ziggurat.calibrate.times import PredictedTime, best_batch_sizes, costs_of
from ziggurat.data.memory import RowsLike, as_rows
from ziggurat.data.sources import DEFAULT_COLUMNS, Columns
from ziggurat.data.tables import Source
from ziggurat.encoder.folder import OTHER_SCALE, write_manifest
from ziggurat.encoder.hub import local_folder
from ziggurat.engine.opened import OpenedModel
from ziggurat.errors import UserError, install
from ziggurat.measure.subject import ModelOptions
from ziggurat.measure.targets import check_result_path
from ziggurat.measure.task_metrics import uncertified
from ziggurat.problems.problem import Problem
from ziggurat.report.plots import require_matplotlib
from ziggurat.system import Progress


def calibrate_model(
    model: str,
    source: RowsLike,
    promise: Promise = Promise(),
    columns: Columns = DEFAULT_COLUMNS,
    options: ModelOptions = ModelOptions(),
    html: Path | None = None,
    progress: bool = False,
    tick: Progress = None,
) -> Calibration:
    """Certifies operating points on a source's rows and writes them into the model folder.

    All arguments and rows are checked first: on an error nothing is written. If no faster setting keeps a target, its
    point is full depth, and the result tells how many rows would be needed.
    """
    source = as_rows(source)
    _check_scipy()
    if html is not None:
        check_result_path(html, model, source)
    if html is not None:
        require_matplotlib()
    classifier = options.open(model)
    risk, scores = _risk_and_scores(classifier, promise)
    promise = replace(promise, criterion=risk.name, scores=scores)
    reference = None if promise.reference is None else _opened_reference(promise.reference, classifier, options)
    usable_rungs(classifier, promise)
    rows = calibration_rows(model, classifier, source, columns, risk)
    check_enough_rows(rows, promise, risk)
    search_rows, certify_rows = (
        run_all_rungs(classifier, part, risk, reference, options.batch_size, progress)
        for part in (rows.search, rows.certify)
    )
    certify_rows = replace(certify_rows, groups=rows.drawn)
    costs = costs_of(classifier, search_rows.encoded, options.batch_size, tick)
    time = PredictedTime(classifier, costs, search_rows.encoded, search_rows.runs, options.batch_size)
    paths = searched(classifier, search_rows, time, promise)
    found = certified(paths, certify_rows, risk, promise)
    terms = Terms(
        risk.name,
        promise.reference,
        time.key or None,
        always_full=promise.reference is None and usable_rungs(classifier, promise) == len(classifier.rungs),
        batch_sizes=best_batch_sizes(classifier, search_rows.encoded, tick) if len(classifier.tiers) > 1 else None,
    )
    chosen = chosen_points(classifier, found, search_rows, certify_rows, terms, options, tick)
    _write(model, classifier, chosen)
    result = _summary(classifier, model, source, promise, rows, chosen, paths, time.key or None, options)
    if html is not None:
        write_page(html, result, picture(result, classifier, chosen, paths, search_rows, certify_rows, time))
    return replace(result, html=html)


def _risk_and_scores(model: OpenedModel, promise: Promise) -> tuple[Risk, Sequence[str]]:
    """The risk and the exit scores of a promise; UserError for a risk or a score that the model does not have."""
    scores = promise.scores or model.problem.compared_scores
    for score in scores:
        model.problem.check_score(score)
    # Labels on another scale than the scores give no loss, so losses are measured against full depth.
    usual = "agreement" if model.manifest.training.get(OTHER_SCALE) else None
    return risk_by_name(promise.criterion or usual, model.problem), scores


def _check_scipy() -> None:
    try:
        importlib.import_module("scipy.stats")
    except ModuleNotFoundError as error:
        raise UserError(f"calibration needs {error.name}; {install('calibrate')}") from None


def _opened_reference(model: str, classifier: OpenedModel, options: ModelOptions) -> OpenedModel:
    reference = options.open(model)
    answers = [
        (manifest.labels, manifest.pairs, manifest.problem_type)
        for manifest in (classifier.manifest, reference.manifest)
    ]
    if answers[0] != answers[1]:
        raise UserError(f"{model}: answers another question than the model (other labels, or pairs); give its original")
    return reference


def _write(model: str, classifier: OpenedModel, chosen: Sequence[Chosen]) -> None:
    """Writes the points into the folder's manifest. They replace points of the same names, or remove them."""
    points_by_name = {choice.name: choice.point for choice in chosen}
    manifest = classifier.manifest
    found = [points_by_name.pop(point.name, point) for point in manifest.operating_points]
    points = tuple(point for point in (*found, *points_by_name.values()) if point is not None)
    write_manifest(replace(manifest, operating_points=points), local_folder(model))


def _summary(
    classifier: OpenedModel,
    model: str,
    source: Source,
    promise: Promise,
    rows: CalibrationRows,
    chosen: Sequence[Chosen],
    paths: Sequence[Sequence[Setting]],
    profile: str | None,
    options: ModelOptions,
) -> Calibration:
    criterion = str(promise.criterion)
    note = uncertified(classifier.manifest, source, criterion) or surrogate_note(classifier.problem, criterion)
    return Calibration(
        model=model,
        data=str(source),
        problem=str(classifier.problem.kind),
        criterion=criterion,
        confidence=promise.confidence,
        reference=promise.reference,
        rows=RowsUsed(len(rows.search), len(rows.certify), rows.left_out),
        groups=rows.groups,
        grouped=rows.drawn is not None,
        overlap=rows.overlap,
        settings=sum(len(path) for path in paths),
        batch_size=options.batch_size,
        profile=profile,
        note=note,
        unit=classifier.problem.unit_of(promise.criterion),
        points=tuple(map(_target, chosen)),
    )


def surrogate_note(problem: Problem, criterion: str) -> str | None:
    """Explains the criterion if the problem's usual measure is not a mean of losses per row; None = it is."""
    if problem.surrogate is None:
        return None
    return (
        f"{problem.surrogate} is no mean of losses per row, so no bound holds for it; what is promised is {criterion}"
    )


def _target(choice: Chosen) -> TargetResult:
    return TargetResult(
        name=choice.name,
        target=choice.certified.target,
        certified=len(choice.certified.settings),
        tightest=choice.certified.tightest,
        rows_needed=choice.certified.rows_needed,
        note=choice.note,
        point=choice.point,
    )
