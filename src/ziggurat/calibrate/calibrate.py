"""Operating points whose loss is bounded with confidence; of all that are, the fastest as measured."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ziggurat.calibrate.page.picture import picture, write_page
from ziggurat.calibrate.paths import Tried
from ziggurat.calibrate.points import (
    Chosen,
    Promise,
    Terms,
    certified,
    chosen_points,
    refuse_too_few,
    searched,
    usable_rungs,
)
from ziggurat.calibrate.result import Calibration, RowsUsed, TargetResult
from ziggurat.calibrate.risks import Risk, risk_by_name
from ziggurat.calibrate.rows import CalibrationRows, calibration_rows, seen
from ziggurat.calibrate.times import PredictedTime, best_batch_sizes, costs_of
from ziggurat.data.memory import RowsLike, as_rows
from ziggurat.data.sources import DEFAULT_COLUMNS, Columns
from ziggurat.data.tables import Source
from ziggurat.encoder.folder import OTHER_SCALE, write_manifest
from ziggurat.encoder.hub import local_folder
from ziggurat.engine.opened import OpenedModel
from ziggurat.errors import UserError, install
from ziggurat.measure.subject import ModelOptions
from ziggurat.measure.targets import require_result
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

    Whatever is asked of the rows is checked first: on an error nothing is written. Where no setting that is faster
    keeps a target, its point is full depth, and the result says how many rows would be needed.
    """
    source = as_rows(source)
    _require_scipy()
    if html is not None:
        require_result(html, model, source)
    if html is not None:
        require_matplotlib()
    classifier = options.open(model)
    risk, scores = _asked(classifier, promise)
    promise = replace(promise, criterion=risk.name, scores=scores)
    reference = None if promise.reference is None else _opened_reference(promise.reference, classifier, options)
    usable_rungs(classifier, promise)
    rows = calibration_rows(model, classifier, source, columns, risk)
    refuse_too_few(rows, promise, risk)
    order, witness = (
        seen(classifier, part, risk, reference, options.batch_size, progress) for part in (rows.order, rows.certify)
    )
    witness = replace(witness, groups=rows.drawn)
    costs = costs_of(classifier, order.encoded, options.batch_size, tick)
    time = PredictedTime(classifier, costs, order.encoded, order.runs, options.batch_size)
    paths = searched(classifier, order, time, promise)
    found = certified(paths, witness, risk, promise)
    terms = Terms(
        risk.name,
        promise.reference,
        time.key or None,
        always_full=promise.reference is None and usable_rungs(classifier, promise) == len(classifier.rungs),
        batch_sizes=best_batch_sizes(classifier, order.encoded, tick) if len(classifier.tiers) > 1 else None,
    )
    chosen = chosen_points(classifier, found, order, witness, terms, options, tick)
    _write(model, classifier, chosen)
    result = _summary(classifier, model, source, promise, rows, chosen, paths, time.key or None, options)
    if html is not None:
        write_page(html, result, picture(result, classifier, chosen, paths, order, witness, time))
    return replace(result, html=html)


def _asked(model: OpenedModel, promise: Promise) -> tuple[Risk, Sequence[str]]:
    """What may be lost, and the exit scores that are tried; UserError for what the model does not have."""
    scores = promise.scores or model.problem.compared_scores
    for score in scores:
        model.problem.check_score(score)
    # Against labels on another scale than the scores nothing can be lost or kept: what counts is full depth.
    usual = "agreement" if model.manifest.training.get(OTHER_SCALE) else None
    return risk_by_name(promise.criterion or usual, model.problem), scores


def _require_scipy() -> None:
    try:
        importlib.import_module("scipy.stats")
    except ModuleNotFoundError as error:
        raise UserError(f"calibration needs {error.name}; {install('calibrate')}") from None


def _opened_reference(model: str, classifier: OpenedModel, options: ModelOptions) -> OpenedModel:
    reference = options.open(model)
    mine, theirs = ((one.labels, one.pairs, one.problem_type) for one in (classifier.manifest, reference.manifest))
    if mine != theirs:
        raise UserError(f"{model}: answers another question than the model (other labels, or pairs); give its original")
    return reference


def _write(model: str, classifier: OpenedModel, chosen: Sequence[Chosen]) -> None:
    """The points into the folder's manifest, in the place of those of the same name, which also go where none is."""
    made = {one.name: one.point for one in chosen}
    manifest = classifier.manifest
    found = [made.pop(point.name, point) for point in manifest.operating_points]
    points = tuple(point for point in (*found, *made.values()) if point is not None)
    write_manifest(replace(manifest, operating_points=points), local_folder(model))


def _summary(
    classifier: OpenedModel,
    model: str,
    source: Source,
    promise: Promise,
    rows: CalibrationRows,
    chosen: Sequence[Chosen],
    paths: Sequence[Sequence[Tried]],
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
        rows=RowsUsed(len(rows.order), len(rows.certify), rows.left_out),
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
    """What is promised where people measure something that is no mean of losses per row; None = the same."""
    if problem.surrogate is None:
        return None
    return (
        f"{problem.surrogate} is no mean of losses per row, so no bound holds for it; what is promised is {criterion}"
    )


def _target(one: Chosen) -> TargetResult:
    return TargetResult(
        name=one.name,
        target=one.certified.target,
        certified=len(one.certified.settings),
        tightest=one.certified.tightest,
        rows_needed=one.certified.rows_needed,
        note=one.note,
        point=one.point,
    )
