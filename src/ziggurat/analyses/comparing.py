"""`report methods`: several models in one figure, accuracy against FLOPs and against time measured in one run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from ziggurat.analyses.measured import summary
from ziggurat.analyses.papers import accuracy_series
from ziggurat.analyses.reporting import Report, Request, Subject, caveats, write_report
from ziggurat.analyses.settings import FULL_DEPTH, PRUNING
from ziggurat.calibrate.choose import candidate_thresholds
from ziggurat.errors import UserError
from ziggurat.measure.clock import interleave, paired_ratio
from ziggurat.measure.subject import sample
from ziggurat.policies.rules import ExitRule
from ziggurat.report.plots import Panel, Series

_CURVE = "threshold"  # name of the settings on a model's curve
_MARKERS = {FULL_DEPTH: "*", PRUNING: "s"}  # of single settings; operating points have diamonds


@dataclass(frozen=True, eq=False)
class Candidate:
    """One setting of one model."""

    subject: Subject
    setting: str
    rule: ExitRule
    threshold: float | None = None  # of a setting on the curve


def methods(
    request: Request,
    n_thresholds: int = 8,
    timed_texts: int | None = 256,
    repeats: int = 5,
    progress: Callable[[str], None] | None = None,
) -> Report:
    """A table and a figure of all models: full depth, pruning alone, operating points, a curve over exit thresholds.

    The curve uses the model's own pruning; operating points have their own strength. All settings of all models are timed in one
    interleaved run on the same `timed_texts` rows; None = no timing.
    """
    if n_thresholds < 2:
        raise UserError(f"--curve {n_thresholds}: a curve needs at least 2 thresholds")
    subjects = list(request.subjects())
    candidates = [candidate for subject in subjects for candidate in _candidates(subject, n_thresholds)]
    rows = [_row(candidate) for candidate in candidates]
    notes = [note for subject in subjects for note in caveats(subject)]
    panels = [Panel("GFLOPs per text", _series(rows, "gflops_mean"))]
    if timed_texts is not None:
        times = _times(candidates, timed_texts, repeats, progress)
        rows = [{**row, **time} for row, time in zip(rows, times, strict=True)]
        panels.insert(0, Panel("measured time per text (ms)", _series(rows, "milliseconds_per_text")))
        notes.append(_timing_note(subjects[0], request, timed_texts, repeats))
    notes.append("Ratios are over the same model's own full depth, in which no token is pruned.")
    title = f"Methods: {request.data}. Star: full depth, square: pruning alone, diamonds: operating points"
    return write_report(request.out, "methods", title, rows, notes, panels)


def _candidates(subject: Subject, n_thresholds: int) -> list[Candidate]:
    classifier = subject.classifier
    full_depth, tokens = ExitRule.full_depth(subject.n_rungs), classifier.token_rule
    found = [Candidate(subject, FULL_DEPTH, full_depth)]
    if tokens is not None:
        found.append(Candidate(subject, PRUNING, replace(full_depth, tokens=tokens)))
    if subject.n_rungs == 1 and tokens is None:
        return found  # all other settings equal full depth
    for point in classifier.manifest.operating_points:
        found.append(Candidate(subject, f"point {point.name}", classifier.rule_of(point)))
    thresholds = candidate_thresholds(subject.every_rung(tokens).readings, "entropy")
    for place in (
        np.unique(np.linspace(0, len(thresholds) - 1, n_thresholds).round().astype(int)) if len(thresholds) else ()
    ):
        threshold = float(thresholds[place])
        found.append(Candidate(subject, _CURVE, classifier.rule("entropy", threshold), threshold))
    return found


def _row(candidate: Candidate) -> dict[str, Any]:
    subject = candidate.subject
    quality = summary(subject.measured(candidate.rule), subject.full)
    return {"model": subject.name, "setting": candidate.setting, "threshold": candidate.threshold, **quality}


def _times(
    candidates: Sequence[Candidate], size: int, repeats: int, progress: Callable[[str], None] | None
) -> list[dict[str, float]]:
    """Time per text of each candidate, and the ratio of its model's full depth to it."""
    calls, full = {}, {}
    for index, candidate in enumerate(candidates):
        subject = candidate.subject
        encoded = subject.encoded.take(sample(len(subject.rows), size))
        name = f"{index} {subject.name} {candidate.setting}"
        calls[name] = partial(subject.classifier.run, encoded, candidate.rule, subject.batch_size)
        if candidate.setting == FULL_DEPTH:
            full[subject.name] = name
    timings = interleave(calls, repeats, progress=progress)
    times = []
    for name, candidate in zip(calls, candidates, strict=True):
        ratio = paired_ratio(timings[full[candidate.subject.name]], timings[name])
        milliseconds = 1e3 * timings[name].p50 / len(sample(len(candidate.subject.rows), size))
        ratios = {"time_ratio": ratio.median, "time_ratio_low": ratio.low, "time_ratio_high": ratio.high}
        times.append({"milliseconds_per_text": milliseconds, **ratios})
    return times


def _series(rows: Sequence[dict[str, Any]], x: str) -> list[Series]:
    """A curve for each model, with its single settings in the same colour."""
    series = []
    for model in dict.fromkeys(row["model"] for row in rows):
        model_rows = [row for row in rows if row["model"] == model]
        curve = [row for row in model_rows if row["setting"] == _CURVE]
        if curve:
            series.append(replace(accuracy_series(model, [row[x] for row in curve], curve), marker=""))
        for row in model_rows:
            if row["setting"] != _CURVE:
                marker = _MARKERS.get(row["setting"], "D")
                series.append(Series(model, [row[x]], [row["accuracy"]], line="", marker=marker))
    return series


def _timing_note(subject: Subject, request: Request, timed_texts: int, repeats: int) -> str:
    backend = subject.classifier.backend
    threads = f", {backend.threads} threads" if backend.device == "cpu" else ""
    return (
        f"Times: {min(timed_texts, len(subject.rows))} texts, batch {request.options.batch_size}, {backend.device}"
        f"{threads}, {backend.dtype}, {repeats} interleaved rounds, the model alone; median, least and most of the "
        "rounds' ratios."
    )
