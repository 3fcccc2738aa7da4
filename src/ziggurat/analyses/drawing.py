"""Figure of accuracy against measured time and FLOPs, with controls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from ziggurat.analyses.curves import Point, fixed_depth, oracle, random_exit, right_answers, sweep
from ziggurat.calibrate.choose import candidate_thresholds
from ziggurat.data.dataset import Dataset
from ziggurat.data.sources import DEFAULT_COLUMNS, Columns
from ziggurat.data.tokenizer import Encoded
from ziggurat.engine.backend import AllRungs
from ziggurat.engine.opened import OpenedModel
from ziggurat.engine.replay import replay
from ziggurat.measure.clock import interleave
from ziggurat.measure.subject import ModelOptions, check_classifies, data_and_split, rows_to_measure, sample
from ziggurat.measure.targets import check_result_path
from ziggurat.policies.rules import ExitRule
from ziggurat.problems.metrics import accuracy_interval
from ziggurat.report.plots import Panel, Series, accuracy_figure, figure_paths

_THRESHOLDS = 24  # points of the curve against FLOPs
_TIMED_THRESHOLDS = 6  # points that are timed
_RANDOM_SHARES = (0.3, 0.6, 0.9)  # exit probabilities at each rung, for timed random controls


@dataclass(frozen=True)
class Timed:
    """A rule that is timed, and the rungs at which all rows exit."""

    label: str
    rule: ExitRule  # for the timed rows
    rungs: np.ndarray  # (n) for all rows, for accuracy


def check_drawable(model: str, out: Path) -> None:
    """Checks model and output path before other work (UserError)."""
    check_classifies(model, "bench --figure")
    for path in figure_paths(out):
        check_result_path(path, model)


def draw(
    model: str,
    source: str,
    out: Path,
    columns: Columns = DEFAULT_COLUMNS,
    options: ModelOptions = ModelOptions(),
    timed_texts: int = 256,
    repeats: int = 5,
    progress: Callable[[str], None] | None = None,
) -> tuple[Path, Path]:
    """Writes `out`.png and `out`.svg: the adaptive model between random exit, fixed depth and the oracle.

    Controls that exit at given rungs compute all heads before, like the adaptive model; fixed depth computes only one
    head. Times are of `timed_texts` rows, accuracy and FLOPs of all.
    """
    check_drawable(model, out)
    classifier, batch_size = options.open(model), options.batch_size
    rows = rows_to_measure(classifier, source, columns)
    encoded = classifier.tokenizer.encode(rows.texts, rows.pairs)
    runs = classifier.every_rung(encoded, batch_size, tokens=classifier.token_rule)
    right = right_answers(runs.readings, rows.classes)
    full_right = right[:, -1] if classifier.token_rule is None else _full_right(classifier, encoded, rows, batch_size)
    chosen = sample(len(rows), timed_texts)
    to_time = _rules_to_time(classifier, runs.readings, right, chosen)
    seconds = _time(classifier, encoded.take(chosen), to_time, batch_size, repeats, progress)
    flops_panel = Panel("GFLOPs per text", _flops_series(classifier, encoded, runs, right, full_right))
    time_panel = Panel(
        f"measured time per text (ms), batch {batch_size}",
        _time_series(to_time, right, full_right, 1e3 * seconds / len(chosen)),
    )
    backend = classifier.backend
    device = f"{backend.device}, {backend.threads} threads" if backend.device == "cpu" else backend.device
    title = f"{' '.join(data_and_split(source))}: {len(rows):,} texts, {device}, {backend.dtype}"
    return accuracy_figure([time_panel, flops_panel], title, out)


def _thresholds(readings: np.ndarray, count: int) -> np.ndarray:
    candidates = candidate_thresholds(readings, "entropy")
    if not len(candidates):  # the model has no exits
        return candidates
    return candidates[np.linspace(0, len(candidates) - 1, count).round().astype(int)]


def _full_right(classifier: OpenedModel, encoded: Encoded, rows: Dataset, batch_size: int) -> np.ndarray:
    outcomes = classifier.run(encoded, ExitRule.full_depth(len(classifier.rungs)), batch_size)
    return outcomes.predictions == rows.classes


def _flops_series(
    classifier: OpenedModel, encoded: Encoded, runs: AllRungs, right: np.ndarray, full_right: np.ndarray
) -> list[Series]:
    n_rungs = len(classifier.rungs)
    full = classifier.full_flops(encoded)
    adaptive_flops = classifier.flops(encoded, runs.token_counts, classifier.rule("entropy", 0.0))
    alone = np.stack(
        [
            classifier.flops(encoded, runs.token_counts, ExitRule.fixed_depth(rung, n_rungs))[:, rung]
            for rung in range(n_rungs)
        ],
        axis=1,
    )

    def answered(threshold: float) -> np.ndarray:
        return replay(runs.readings, ExitRule.uniform("entropy", threshold, n_rungs))

    gflops = full.mean() / 1e9
    adaptive = sweep(right, adaptive_flops, full, answered, _thresholds(runs.readings, _THRESHOLDS).tolist())
    curves = {
        "adaptive": adaptive,
        "random exit": random_exit(right, adaptive_flops, full),
        "oracle exit": oracle(right, adaptive_flops, full),
        "fixed depth": fixed_depth(right, alone, full),
    }
    series = [
        _curve(label, [gflops / point.cost_ratio for point in points], points, len(right))
        for label, points in curves.items()
        if points
    ]
    return [*series, Series("full model", [gflops], [full_right.mean()], line="", marker="*")]


def _curve(label: str, x: Sequence[float], points: Sequence[Point], n: int) -> Series:
    accuracy = [point.accuracy for point in points]
    if label != "adaptive":
        return Series(label, x, accuracy, marker="o" if label == "fixed depth" else "", line="--")
    intervals = [accuracy_interval(round(share * n), n) for share in accuracy]
    return Series(label, x, accuracy, [low for low, _ in intervals], [high for _, high in intervals])


def _rules_to_time(classifier: OpenedModel, readings: np.ndarray, right: np.ndarray, chosen: np.ndarray) -> list[Timed]:
    n_rungs = readings.shape[1]
    timed = [Timed("full model", ExitRule.full_depth(n_rungs), np.full(len(readings), n_rungs - 1))]
    for threshold in _thresholds(readings, _TIMED_THRESHOLDS):
        rule = ExitRule.uniform("entropy", float(threshold), n_rungs)
        timed.append(Timed("adaptive", rule, replay(readings, rule)))
    for rung in range(n_rungs):
        timed.append(Timed("fixed depth", ExitRule.fixed_depth(rung, n_rungs), np.full(len(readings), rung)))
    draws = np.random.default_rng(0)
    forced = [("random exit", np.minimum(draws.geometric(p, len(readings)) - 1, n_rungs - 1)) for p in _RANDOM_SHARES]
    forced.append(("oracle exit", np.where(right.any(axis=1), right.argmax(axis=1), 0)))
    timed += [Timed(label, ExitRule.forced(rungs[chosen], n_rungs), rungs) for label, rungs in forced]
    prune = classifier.token_rule
    return [timed[0], *(replace(other, rule=replace(other.rule, tokens=prune)) for other in timed[1:])]


def _time(
    classifier: OpenedModel,
    encoded: Encoded,
    to_time: Sequence[Timed],
    batch_size: int,
    repeats: int,
    progress: Callable[[str], None] | None,
) -> np.ndarray:
    """Median seconds of each rule over all timed rows, interleaved."""
    calls = {
        f"{timed.label} {index}": partial(classifier.run, encoded, timed.rule, batch_size)
        for index, timed in enumerate(to_time)
    }
    timings = interleave(calls, repeats, progress=progress)
    return np.array([timings[name].p50 for name in calls])


def _time_series(
    to_time: Sequence[Timed], right: np.ndarray, full_right: np.ndarray, milliseconds: np.ndarray
) -> list[Series]:
    rows = np.arange(len(right))
    series = []
    for label in ("adaptive", "random exit", "oracle exit", "fixed depth", "full model"):
        indices = [index for index, timed in enumerate(to_time) if timed.label == label]
        if not indices:
            continue
        accuracy = [float(right[rows, to_time[index].rungs].mean()) for index in indices]
        if label == "full model":
            accuracy = [float(full_right.mean())]
        points = [Point(label, share, 1.0) for share in accuracy]
        curve = _curve(label, milliseconds[indices].tolist(), points, len(right))
        single = label in ("full model", "oracle exit")
        series.append(
            Series(label, curve.x, curve.y, line="", marker="*" if label == "full model" else "v") if single else curve
        )
    return series
