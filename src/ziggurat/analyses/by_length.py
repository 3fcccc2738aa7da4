"""`report lengths` and `report quantiles`: savings of exits and pruning by length of the text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ziggurat.analyses.measured import bucket_names, buckets, quantile_names, span, summary
from ziggurat.analyses.papers import EDGES, accuracy_series, check_edges
from ziggurat.analyses.reporting import Report, Request, Subject, caveats, write_report
from ziggurat.analyses.settings import EXITS, EXITS_AND_PRUNING, FULL_DEPTH, PRUNING, Exits, strength_note
from ziggurat.data.builtin import STDLIB_DOCS
from ziggurat.data.dataset import Role, as_dataset, load
from ziggurat.encoder.folder import trained_rows
from ziggurat.encoder.hub import local_folder
from ziggurat.errors import UserError
from ziggurat.measure.clock import interleave, paired_ratio
from ziggurat.measure.subject import check_has_layers, sample
from ziggurat.policies.rules import ExitRule
from ziggurat.report.plots import Panel, Series

QUARTILES = (0.25, 0.5, 0.75)
# Line styles show settings, since colours can only distinguish a few curves.
_LINES: Mapping[str, str] = {FULL_DEPTH: "-.", EXITS: "--", PRUNING: ":", EXITS_AND_PRUNING: "-"}
Tick = Callable[[str], None]


def lengths(
    request: Request,
    edges: Sequence[int] = EDGES,
    exits: Exits = Exits(),
    timed_texts: int | None = None,
    repeats: int = 5,
    progress: Tick | None = None,
) -> Report:
    """Accuracy and savings by input length, with and without pruning and exits (MP Figure 1).

    For other problems than classes, their figures: F1 and exact match by length of the context, Pearson and others.
    With `timed_texts`, at most that many texts of each bucket are timed: full depth and every setting, interleaved.
    """
    check_edges(edges)
    rows: list[dict[str, Any]] = []
    notes = []
    for subject in request.of_any_problem(partial(check_has_layers, command="report lengths"), exits.check_has_point):
        groups = buckets(subject.lengths, edges)
        grouped = _grouped(subject, subject.settings(exits), groups, "bucket", bucket_names(edges))
        if timed_texts is not None:
            times = [
                _times(subject, exits, np.flatnonzero(groups == index), timed_texts, repeats, progress)
                for index in range(len(edges) + 1)
            ]
            grouped = [{**row, **times[row["group"]].get(row["setting"], {})} for row in grouped]
        rows += grouped
        notes += [*caveats(subject), *strength_note(subject.name, subject.classifier, exits)]
    notes.append(f"{subject.lengths_are} Exits: {exits.name}. Ratios are full depth of the same texts over spent.")
    panels = [_panel(rows, "flops_ratio", "FLOPs of full depth over spent (x)", percent=False), _quality_panel(rows)]
    if timed_texts is not None:
        notes.append(_timing_note(request, timed_texts, repeats))
        panels.insert(1, _panel(rows, "time_ratio", "time of full depth over spent (x)", percent=False))
    return write_report(request.out, "lengths", f"Savings by input length: {request.data}", rows, notes, panels)


def quantiles(request: Request, shares: Sequence[float] = QUARTILES, exits: Exits = Exits()) -> Report:
    """Accuracy and FLOPs relative to full depth by quantile of the rows' length (LTP Table 4.4: 0.5 and 0.75)."""
    if not shares or not all(0 < share < 1 for share in shares) or (np.diff(shares) <= 0).any():
        raise UserError("--quantiles: must rise between 0 and 1, such as 0.25,0.5,0.75")
    rows: list[dict[str, Any]] = []
    notes = []
    for subject in request.of_any_problem(partial(check_has_layers, command="report quantiles"), exits.check_has_point):
        edges = np.quantile(subject.lengths, shares)
        groups = buckets(subject.lengths, edges.tolist())
        rows += _grouped(subject, subject.settings(exits), groups, "quantile", quantile_names(shares))
        notes += [*caveats(subject), *strength_note(subject.name, subject.classifier, exits)]
        notes.append(_training_note(subject, request))
    notes.append(f"Quantiles are of these rows' lengths. {subject.lengths_are} Exits: {exits.name}.")
    panels = [_panel(rows, "relative_flops", "FLOPs of full depth's (%)"), _quality_panel(rows)]
    return write_report(request.out, "quantiles", f"Quantiles of length: {request.data}", rows, notes, panels)


def trained_lengths(subject: Subject, request: Request) -> np.ndarray | None:
    """Lengths in tokens of the model's training and select rows, read from the source in its manifest.

    None if the source no longer exists, or has other rows.
    """
    source = str(subject.classifier.manifest.training.get("data", {}).get("source", ""))
    source = STDLIB_DOCS if source.startswith(STDLIB_DOCS) else source
    if not source or (source != STDLIB_DOCS and not Path(source).expanduser().exists()):
        return None  # rows of a hub are not downloaded for a note
    try:
        manifest = subject.classifier.manifest
        loaded = load(source, request.columns, problem=manifest.problem.kind)
        rows = as_dataset(loaded, Role.TRAIN, manifest.labels, manifest.problem_type)
    except UserError:
        return None
    used = np.flatnonzero(np.isin(rows.hashes, trained_rows(local_folder(subject.model))))
    if not len(used):
        return None
    return subject.classifier.problem.lengths(subject.classifier.encode_rows(rows.take(used)))


def _training_note(subject: Subject, request: Request) -> str:
    found = trained_lengths(subject, request)
    if found is None:
        return f"How long the texts were that trained {subject.name} is not known: its rows are not where it says."
    return (
        f"{subject.name} was trained on {len(found):,} texts (those that chose its thresholds among them) of "
        f"{np.median(found):g} tokens in the median and {found.max()} at most."
    )


def _grouped(
    subject: Subject, settings: Mapping[str, ExitRule], groups: np.ndarray, key: str, names: Sequence[str]
) -> list[dict[str, Any]]:
    """A row for each setting and group; `group` is the group's index, `key` the column of its name."""
    rows = []
    for setting, rule in settings.items():
        measured = subject.measured(rule)
        for index, name in enumerate(names):
            chosen = groups == index
            place = {"model": subject.name, "setting": setting, "group": index, key: name}
            rows.append({**place, "span": span(subject.lengths[chosen]), **summary(measured, subject.full, chosen)})
    return rows


def _times(
    subject: Subject, exits: Exits, members: np.ndarray, size: int, repeats: int, progress: Tick | None
) -> dict[str, dict[str, float]]:
    """Time of each setting for the texts of one bucket, and the ratio of full depth's time to it."""
    if not len(members):
        return {}
    timed = members[sample(len(members), size)]
    calls = {setting: subject.run(timed, rule) for setting, rule in subject.settings(exits).items()}
    timings = interleave(calls, repeats, progress=progress)
    ratios = {setting: paired_ratio(timings[FULL_DEPTH], timing) for setting, timing in timings.items()}
    return {
        setting: {
            "milliseconds_per_text": 1e3 * timings[setting].p50 / len(timed),
            "time_ratio": ratio.median,
            "time_ratio_low": ratio.low,
            "time_ratio_high": ratio.high,
        }
        for setting, ratio in ratios.items()
    }


def _timing_note(request: Request, timed_texts: int, repeats: int) -> str:
    options = request.options
    return (
        f"Times: at most {timed_texts} texts of each bucket, batch {options.batch_size}, {options.dtype}, "
        f"{repeats} interleaved rounds, the model alone; median, least and most of the rounds' ratios."
    )


def _panel(rows: Sequence[dict[str, Any]], key: str, ylabel: str, percent: bool = True) -> Panel:
    series = [
        Series(label, _tokens(curve), [row[key] for row in curve], line=_LINES[curve[0]["setting"]], marker="o")
        for label, curve in _curves(rows).items()
    ]
    return Panel("tokens, mean of the group", series, log_x=False, ylabel=ylabel, percent=percent)


def _quality_panel(rows: Sequence[dict[str, Any]]) -> Panel:
    """Accuracy, or the main figure of another problem."""
    if found := next((row["metric"] for row in rows if "metric" in row), None):
        return _panel(rows, "quality", found.replace("_", " "), percent=False)
    series = [
        replace(accuracy_series(label, _tokens(curve), curve), line=_LINES[curve[0]["setting"]])
        for label, curve in _curves(rows).items()
    ]
    return Panel("tokens, mean of the group", series, log_x=False)


def _tokens(rows: Sequence[dict[str, Any]]) -> list[float]:
    return [row["tokens_mean"] for row in rows]


def _curves(rows: Sequence[dict[str, Any]]) -> Mapping[str, list[dict[str, Any]]]:
    """Rows of groups that are not empty, by model and setting."""
    curves: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if row["n"]:
            curves.setdefault(f"{row['model']}, {row['setting']}", []).append(row)
    return curves
