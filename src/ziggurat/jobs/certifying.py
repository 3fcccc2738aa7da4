"""`calibrate`: operating points whose loss is bounded with confidence; of all that are, the fastest as measured."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ziggurat.calibrate.candidates import extended, families
from ziggurat.calibrate.certify import Certified, certify, least_rows
from ziggurat.calibrate.choose import TARGETS
from ziggurat.calibrate.paths import Tried, path_of, starts, tried
from ziggurat.calibrate.risks import Risk, risk_by_name
from ziggurat.data.sources import DEFAULT_COLUMNS, Columns
from ziggurat.encoder.folder import write_manifest
from ziggurat.encoder.hub import local_folder
from ziggurat.engine.classifier import FULL, AdaptiveClassifier
from ziggurat.errors import UserError
from ziggurat.jobs.calibration_picture import write_picture
from ziggurat.jobs.calibration_points import Chosen, Terms, chosen_points
from ziggurat.jobs.calibration_rows import CalibrationRows, calibration_rows
from ziggurat.jobs.calibration_runs import Seen, seen
from ziggurat.jobs.calibration_time import PredictedTime, best_batch_sizes, costs_of
from ziggurat.jobs.opening import ModelOptions
from ziggurat.jobs.refusals import refuse_but_classes
from ziggurat.policies.outputs import Output
from ziggurat.report.competition import Progress
from ziggurat.report.plots import require_matplotlib


@dataclass(frozen=True)
class Promise:
    """What the user asks for."""

    targets: Mapping[str, float] = dataclasses.field(default_factory=lambda: dict(TARGETS))  # by point: largest loss
    confidence: float = 0.95  # of each point by itself
    criterion: str | None = None  # see ziggurat.calibrate.risks; None = the problem's default: of classes accuracy
    scores: Sequence[str] | None = None  # exit scores that are tried; None = the problem's
    reference: str | None = None  # model folder that losses are counted from; None = the model itself at full depth
    max_layers: int | None = None  # after which every answer must have come, a cap on what an input can cost

    def __post_init__(self) -> None:
        for name, target in self.targets.items():
            if not 0 <= target < 1 or (target == 0 and name != "exact"):
                raise UserError(f"drop {target:g} of {name!r}: must be more than 0 and less than 1; 0.01 is one point")
            if name == FULL:
                raise UserError(f"operating point {FULL!r}: the name of full depth is taken; choose another")
        if not 0 < self.confidence < 1:
            raise UserError(f"confidence {self.confidence:g}: must be between 0 and 1, such as 0.95")


def calibrate(
    model: str,
    source: str,
    promise: Promise = Promise(),
    columns: Columns = DEFAULT_COLUMNS,
    options: ModelOptions = ModelOptions(),
    html: Path | None = None,
    progress: bool = False,
    tick: Progress = None,
) -> dict[str, Any]:
    """Certifies operating points on a source's rows and writes them into the model folder.

    Whatever is asked of the rows is checked first: on an error nothing is written. Where no setting that is faster
    keeps a target, its point is full depth, and the result says how many rows would be needed.
    """
    _require_scipy()
    if html is not None:
        require_matplotlib()
    classifier = options.open(model)
    if html is not None:
        refuse_but_classes(classifier, model, "calibrate --html")
    risk, scores = risk_by_name(promise.criterion, classifier.output), promise.scores or classifier.output.tried
    for score in scores:
        classifier.output.refuse_score(score)
    promise = replace(promise, criterion=risk.name, scores=scores)
    reference = None if promise.reference is None else _opened_reference(promise.reference, classifier, options)
    usable_rungs(classifier, promise)
    rows = calibration_rows(model, classifier, source, columns, risk)
    _refuse_too_few(rows, promise, risk)
    order, witness = (
        seen(classifier, part, risk, reference, options.batch_size, progress) for part in (rows.order, rows.certify)
    )
    costs = costs_of(classifier, order.encoded, options.batch_size, tick)
    time = PredictedTime(classifier, costs, order.encoded, order.runs, options.batch_size)
    paths = searched(classifier, order, time, promise)
    certified = {name: _certified(paths, witness, risk, target, promise) for name, target in promise.targets.items()}
    terms = Terms(
        risk.name,
        promise.reference,
        time.key,
        always_full=promise.reference is None and usable_rungs(classifier, promise) == len(classifier.rungs),
        batch_sizes=best_batch_sizes(classifier, order.encoded, tick) if len(classifier.tiers) > 1 else None,
    )
    chosen = chosen_points(classifier, certified, order, witness, terms, options, tick)
    _write(model, classifier, chosen)
    result = _summary(classifier, model, source, promise, rows, chosen, paths, time.key, options)
    if html is not None:
        write_picture(html, result, classifier, chosen, paths, order, witness, time)
        result["html"] = str(html)
    return result


def _require_scipy() -> None:
    try:
        importlib.import_module("scipy.stats")
    except ModuleNotFoundError as error:
        raise UserError(f"calibration needs {error.name}; pip install 'ziggurat[calibrate]'") from None


def searched(
    classifier: AdaptiveClassifier, order: Seen, time: PredictedTime, promise: Promise
) -> list[tuple[Tried, ...]]:
    """The paths of all families, at every strength of pruning, that have anything faster than full depth.

    Full depth of the model itself needs no test. Where losses are counted from another model, or answers must come
    sooner, the slowest setting is on a path too.
    """
    n_rungs = len(classifier.rungs)
    usable = usable_rungs(classifier, promise)
    saved, sizes = time.saved, [tier.n_rungs for tier in classifier.tiers]
    loses_nothing = promise.reference is None and usable == n_rungs
    slowest = time.of_full_depth(n_rungs) if loses_nothing else np.inf
    paths = []
    for strength, run in order.runs.items():
        losses = order.losses[strength]
        for family in families(
            run.cut(usable), losses[:, :usable], saved[:usable], promise.scores or classifier.output.tried, sizes
        ):
            settings = (tried(extended(one, n_rungs), losses, time) for one in family)
            paths.append(path_of(settings, slowest))
    return [path for path in paths if path]


def usable_rungs(classifier: AdaptiveClassifier, promise: Promise) -> int:
    """How many rungs are within the promise's cap; UserError if none is."""
    depths = classifier.depths.tolist()
    usable = sum(promise.max_layers is None or depth <= promise.max_layers for depth in depths)
    if usable == 0:
        raise UserError(
            f"--max-layers {promise.max_layers}: the first answer comes after layer {depths[0]}; allow that"
        )
    return usable


def _certified(
    paths: Sequence[Sequence[Tried]], witness: Seen, risk: Risk, target: float, promise: Promise
) -> Certified:
    tested = starts(paths, target, promise.confidence, len(witness.rows))
    return certify(tested, witness.evidence(risk), target, promise.confidence)


def _opened_reference(model: str, classifier: AdaptiveClassifier, options: ModelOptions) -> AdaptiveClassifier:
    reference = options.open(model)
    mine, theirs = ((one.labels, one.pairs, one.problem_type) for one in (classifier.manifest, reference.manifest))
    if mine != theirs:
        raise UserError(f"{model}: answers another question than the model (other labels, or pairs); give its original")
    return reference


def _refuse_too_few(rows: CalibrationRows, promise: Promise, risk: Risk) -> None:
    """UserError where even rows without a single loss would certify none of the targets."""
    wanted = [target for target in promise.targets.values() if target > 0]
    n = len(rows.certify)
    if not wanted or n >= least_rows(max(wanted), promise.confidence):
        return
    share = f"{100 * promise.confidence:g} %"
    raise UserError(
        f"{rows.certify.source}: {n:,} rows are left to certify with, and even without a mistake {max(wanted):g} needs "
        f"{least_rows(max(wanted), promise.confidence):,} at {share} confidence; give more rows, or a larger --max-drop"
    )


def _write(model: str, classifier: AdaptiveClassifier, chosen: Sequence[Chosen]) -> None:
    """The points into the folder's manifest, in the place of those of the same name."""
    made = {one.name: one.point for one in chosen if one.point is not None}
    manifest = classifier.manifest
    kept = [made.pop(point.name, point) for point in manifest.operating_points]
    write_manifest(replace(manifest, operating_points=(*kept, *made.values())), local_folder(model))


def _summary(
    classifier: AdaptiveClassifier,
    model: str,
    source: str,
    promise: Promise,
    rows: CalibrationRows,
    chosen: Sequence[Chosen],
    paths: Sequence[Sequence[Tried]],
    profile: str,
    options: ModelOptions,
) -> dict[str, Any]:
    return {
        "model": model,
        "data": source,
        "criterion": promise.criterion,
        "confidence": promise.confidence,
        "reference": promise.reference,
        "rows": {"order": len(rows.order), "certify": len(rows.certify), "left_out": rows.left_out},
        "overlap": rows.overlap,
        "settings": sum(len(path) for path in paths),
        "batch_size": options.batch_size,
        "profile": profile,
        "note": surrogate_note(classifier.output, str(promise.criterion)),
        "unit": classifier.output.unit_of(promise.criterion),
        "points": [_entry(one) for one in chosen],
    }


def surrogate_note(output: Output, criterion: str) -> str | None:
    """What is promised where people measure something that is no mean of losses per row; None = the same."""
    if output.surrogate is None:
        return None
    return f"{output.surrogate} is no mean of losses per row, so no bound holds for it; what is promised is {criterion}"


def _entry(one: Chosen) -> dict[str, Any]:
    """One target, as JSON values."""
    return {
        "name": one.name,
        "target": one.certified.target,
        "certified": len(one.certified.settings),
        "tightest": one.certified.tightest,
        "rows_needed": one.certified.rows_needed,
        "note": one.note,
        "point": None if one.point is None else one.point.to_dict(),
    }
