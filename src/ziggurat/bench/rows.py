"""Makes the result rows of a comparison from its timings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ziggurat.bench.competition import SORTED, Entry, Latencies
from ziggurat.bench.result import BenchRow, ComparisonRow, Entered
from ziggurat.data.dataset import Dataset
from ziggurat.data.tables import Source
from ziggurat.data.tokenizer import Encoded
from ziggurat.engine.opened import FULL, OpenedModel
from ziggurat.measure.clock import Ratio, Timing, flops_fields, paired_ratio, speed_of
from ziggurat.measure.subject import data_and_split, lengths_summary
from ziggurat.measure.task_metrics import metrics_for, task_measures
from ziggurat.problems.problem import main_figure


@dataclass(frozen=True)
class Setting:
    """Model and rows that all systems are measured on."""

    model: str
    source: Source
    classifier: OpenedModel  # Ziggurat with its first engine: for lengths, labels and FLOPs
    scored: Dataset  # rows for accuracy
    encoded: Encoded  # these rows
    timed_rows: Dataset
    timed: Encoded  # these rows
    calibration: str | None  # calibration texts of int8 peers
    origin: Mapping[str, Any]  # of all rows: date, commit, machine and versions

    def encode(self, rows: Sequence[int]) -> Encoded:
        """Tokenises timed texts, for times of "process"."""
        texts, pairs = self.timed_rows.texts, self.timed_rows.pairs
        chosen = None if pairs is None else [pairs[row] for row in rows]
        return self.classifier.problem.encode(self.classifier.tokenizer, [texts[row] for row in rows], chosen)


def judged(
    classifier: OpenedModel, source: Source, predictions: np.ndarray, rows: Dataset, flops: np.ndarray, full: Any
) -> dict[str, Any]:
    """Quality of predictions (n, …) in the figures of their problem; `flops` and full depth's `full`, (n) each."""
    names, figures = metrics_for(classifier.manifest, source), classifier.problem.figures(predictions, rows.truth)
    task = task_measures(classifier.manifest, source, names, predictions, rows.truth)
    return {"n_accuracy": len(rows)} | main_figure(figures) | figures | task | flops_fields(flops, full)


def quality(setting: Setting, entry: Entry) -> dict[str, Any]:
    """Quality (`judged`) of this entry on all scored rows."""
    classifier, rows = setting.classifier, setting.scored
    rungs = np.full(len(rows), len(classifier.rungs) - 1)
    readings = entry.prepared(setting.encoded)()
    full = classifier.full_flops(setting.encoded)
    flops = full
    if entry.contestant.point not in (None, FULL):
        # Of the first engine: with another dtype, inputs with scores near a threshold may exit elsewhere.
        rule = classifier.rule_of(str(entry.contestant.point))
        outcomes = classifier.run(setting.encoded, rule)
        rungs = outcomes.rungs
        flops = classifier.flops(setting.encoded, outcomes.token_counts, rule)[np.arange(len(rows)), rungs]
    predictions = classifier.problem.predictions(readings, setting.encoded, rungs)
    return judged(classifier, setting.source, predictions, rows, flops, full)


def row_of_batches(
    setting: Setting,
    entry: Entry,
    timed: str,
    entries: Sequence[Entry],
    timings: Mapping[str, Timing],
    quality: Mapping[str, Any],
) -> ComparisonRow:
    """The row of an entry in a race over all texts."""
    row = _row(setting, entry, timed, timings, timings[_baseline(entries)], quality)
    return ComparisonRow(row, _entered(setting, entry, _over(entry, entries, timings)))


def row_of_singles(
    setting: Setting,
    entry: Entry,
    timed: str,
    entries: Sequence[Entry],
    latencies: Mapping[str, Latencies],
    quality: Mapping[str, Any],
) -> ComparisonRow:
    """The row of an entry in a race of single texts: with latencies, and ratios of median latencies."""
    totals = {label: Timing(tuple(times.seconds.sum(axis=1).tolist())) for label, times in latencies.items()}
    medians = {label: times.medians for label, times in latencies.items()}
    per_text = 1e3 * latencies[entry.label].per_text
    shown = float(np.percentile(per_text, 50)), float(np.percentile(per_text, 95))
    row = _row(setting, entry, timed, totals, totals[_baseline(entries)], quality)
    return ComparisonRow(row, _entered(setting, entry, _over(entry, entries, medians), shown))


def _over(entry: Entry, entries: Sequence[Entry], timings: Mapping[str, Timing]) -> Mapping[str, Ratio] | None:
    """For Ziggurat's systems: how many times as fast as each peer; None for a peer."""
    if entry.contestant.is_peer:
        return None
    return {
        peer.label: paired_ratio(timings[peer.label], timings[entry.label])
        for peer in entries
        if peer.contestant.is_peer
    }


def _baseline(entries: Sequence[Entry]) -> str:
    """Label of Ziggurat's full depth on sorted texts, the baseline of every gain."""
    return next(entry.label for entry in entries if entry.contestant.point == FULL and entry.order == SORTED)


def _entered(
    setting: Setting,
    entry: Entry,
    over: Mapping[str, Ratio] | None,
    latencies: tuple[float, float] | None = None,
) -> Entered:
    system = entry.contestant
    calibration = setting.calibration if system.is_peer and system.dtype == "int8" else None
    return Entered(system.engine, system.is_peer, entry.order, system.streams, calibration, latencies, over)


def _row(
    setting: Setting,
    entry: Entry,
    timed: str,
    timings: Mapping[str, Timing],
    baseline: Timing,
    quality: Mapping[str, Any],
) -> BenchRow:
    system, timing = entry.contestant, timings[entry.label]
    data, split = data_and_split(setting.source)
    return BenchRow(
        system=system.name,
        data=data,
        split=split,
        model=Path(setting.model).name,
        device="cpu",
        threads=setting.classifier.backend.threads,
        batch=entry.batch,
        dtype=system.dtype,
        padding=entry.order if system.is_peer else "packed",
        timed=timed,
        speed=speed_of(timing, len(setting.timed), paired_ratio(baseline, timing)),
        tokens=lengths_summary(setting.timed),
        quality=quality,
        origin=setting.origin,
    )
