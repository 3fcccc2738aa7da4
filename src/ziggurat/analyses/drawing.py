"""The figure of `bench`: accuracy against measured time and against FLOPs, with controls."""

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
from ziggurat.measure.subject import ModelOptions, data_and_split, refuse_but_classes, rows_to_measure, sample
from ziggurat.measure.targets import require_result
from ziggurat.policies.rules import ExitRule
from ziggurat.problems.metrics import accuracy_interval
from ziggurat.report.plots import Panel, Series, accuracy_figure, figure_paths

_THRESHOLDS = 24  # of the curve against FLOPs
_TIMED_THRESHOLDS = 6  # number of timed ones
_RANDOM_SHARES = (0.3, 0.6, 0.9)  # probability to exit at each rung, of the timed random controls


@dataclass(frozen=True)
class Timed:
    """A rule whose time is measured, and the rungs at which all rows exit under it."""

    label: str
    rule: ExitRule  # for the timed rows
    rungs: np.ndarray  # (n) of all rows, for accuracy


def refuse_undrawable(model: str, out: Path) -> None:
    """UserError for a model or a path that `draw` would refuse, so that it can be raised before other work."""
    refuse_but_classes(model, "bench --figure")
    for path in figure_paths(out):
        require_result(path, model)


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

    Random and oracle exits compute the heads on the way, as the adaptive model must. Fixed depth computes only its own
    head. Times are of `timed_texts` rows, accuracy and FLOPs of all.
    """
    refuse_undrawable(model, out)
    classifier, batch_size = options.open(model), options.batch_size
    rows = rows_to_measure(classifier, source, columns)
    encoded = classifier.tokenizer.encode(rows.texts, rows.pairs)
    all_rungs = classifier.every_rung(encoded, batch_size, tokens=classifier.token_rule)
    right = right_answers(all_rungs.readings, rows.classes)
    full_right = right[:, -1] if classifier.token_rule is None else _full_right(classifier, encoded, rows, batch_size)
    chosen = sample(len(rows), timed_texts)
    to_time = _rules_to_time(classifier, all_rungs.readings, right, chosen)
    seconds = _time(classifier, encoded.take(chosen), to_time, batch_size, repeats, progress)
    flops_panel = Panel("GFLOPs per text", _flops_series(classifier, encoded, all_rungs, right, full_right))
    time_panel = Panel(
        f"measured time per text (ms), batch {batch_size}",
        _time_series(to_time, right, full_right, 1e3 * seconds / len(chosen)),
    )
    backend = classifier.backend
    place = f"{backend.device}, {backend.threads} threads" if backend.device == "cpu" else backend.device
    title = f"{' '.join(data_and_split(source))}: {len(rows):,} texts, {place}, {backend.dtype}"
    return accuracy_figure([time_panel, flops_panel], title, out)


def _thresholds(all_readings: np.ndarray, count: int) -> np.ndarray:
    candidates = candidate_thresholds(all_readings, "entropy")
    if not len(candidates):  # a model without exits
        return candidates
    return candidates[np.linspace(0, len(candidates) - 1, count).round().astype(int)]


def _full_right(classifier: OpenedModel, encoded: Encoded, rows: Dataset, batch_size: int) -> np.ndarray:
    outcomes = classifier.run(encoded, ExitRule.full_depth(len(classifier.rungs)), batch_size)
    return outcomes.predictions == rows.classes


def _flops_series(
    classifier: OpenedModel, encoded: Encoded, all_rungs: AllRungs, right: np.ndarray, full_right: np.ndarray
) -> list[Series]:
    n_rungs = len(classifier.rungs)
    full = classifier.whole(encoded)
    adaptive_flops = classifier.spent(encoded, all_rungs.kept, classifier.rule("entropy", 0.0))
    alone = np.stack(
        [
            classifier.spent(encoded, all_rungs.kept, ExitRule.fixed_depth(rung, n_rungs))[:, rung]
            for rung in range(n_rungs)
        ],
        axis=1,
    )

    def answered(threshold: float) -> np.ndarray:
        return replay(all_rungs.readings, ExitRule.uniform("entropy", threshold, n_rungs))

    gflops = full.mean() / 1e9
    adaptive = sweep(right, adaptive_flops, full, answered, _thresholds(all_rungs.readings, _THRESHOLDS).tolist())
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


def _rules_to_time(
    classifier: OpenedModel, all_readings: np.ndarray, right: np.ndarray, chosen: np.ndarray
) -> list[Timed]:
    n_rungs = all_readings.shape[1]
    timed = [Timed("full model", ExitRule.full_depth(n_rungs), np.full(len(all_readings), n_rungs - 1))]
    for threshold in _thresholds(all_readings, _TIMED_THRESHOLDS):
        rule = ExitRule.uniform("entropy", float(threshold), n_rungs)
        timed.append(Timed("adaptive", rule, replay(all_readings, rule)))
    for rung in range(n_rungs):
        timed.append(Timed("fixed depth", ExitRule.fixed_depth(rung, n_rungs), np.full(len(all_readings), rung)))
    draws = np.random.default_rng(0)
    forced = [
        ("random exit", np.minimum(draws.geometric(p, len(all_readings)) - 1, n_rungs - 1)) for p in _RANDOM_SHARES
    ]
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
    all_rows = np.arange(len(right))
    series = []
    for label in ("adaptive", "random exit", "oracle exit", "fixed depth", "full model"):
        indices = [index for index, timed in enumerate(to_time) if timed.label == label]
        if not indices:
            continue
        accuracy = [float(right[all_rows, to_time[index].rungs].mean()) for index in indices]
        if label == "full model":
            accuracy = [float(full_right.mean())]
        points = [Point(label, share, 1.0) for share in accuracy]
        curve = _curve(label, milliseconds[indices].tolist(), points, len(right))
        single = label in ("full model", "oracle exit")
        series.append(
            Series(label, curve.x, curve.y, line="", marker="*" if label == "full model" else "v") if single else curve
        )
    return series
