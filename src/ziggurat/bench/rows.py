"""Result rows of `bench --peers`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ziggurat.bench.competition import SORTED, Entry, Latencies
from ziggurat.data.dataset import Dataset
from ziggurat.data.encoded import Encoded
from ziggurat.engine.classifier import FULL, AdaptiveClassifier
from ziggurat.measure.clock import Timing, flops_fields, paired_ratio, timing_fields
from ziggurat.measure.subject import data_and_split, lengths_summary
from ziggurat.measure.task_metrics import metrics_for, task_measures
from ziggurat.problems.problem import main_figure


@dataclass(frozen=True)
class Setting:
    """What all systems are measured on."""

    model: str
    source: str
    classifier: AdaptiveClassifier  # our first engine: knows lengths, labels and FLOPs
    scored: Dataset  # for accuracy
    encoded: Encoded  # the same
    timed_rows: Dataset
    timed: Encoded  # the same
    calibration: str | None  # which texts int8 peers have seen

    def encode(self, rows: Sequence[int]) -> Encoded:
        """Tokenises timed texts: part of what "process" times."""
        texts, pairs = self.timed_rows.texts, self.timed_rows.pairs
        chosen = None if pairs is None else [pairs[row] for row in rows]
        return self.classifier.problem.encode(self.classifier.tokenizer, [texts[row] for row in rows], chosen)


def judged(
    classifier: AdaptiveClassifier, source: str, predictions: np.ndarray, rows: Dataset, spent: np.ndarray, full: Any
) -> dict[str, Any]:
    """How good predictions of rows (n, …) are in the figures of their problem; their FLOPs and full depth's, (n)."""
    names, figures = metrics_for(classifier.manifest, source), classifier.problem.figures(predictions, rows.truth)
    own = task_measures(classifier.manifest, source, names, predictions, rows.truth)
    return {"n_accuracy": len(rows)} | main_figure(figures) | figures | own | flops_fields(spent, full)


def quality(setting: Setting, entry: Entry) -> dict[str, Any]:
    """`judged` of all scored rows as this entry answers them."""
    classifier, rows = setting.classifier, setting.scored
    rungs = np.full(len(rows), len(classifier.rungs) - 1)
    readings = entry.prepared(setting.encoded)()
    full = classifier.whole(setting.encoded)
    spent = full
    if entry.contestant.point not in (None, FULL):
        # Of the first engine: another dtype may leave elsewhere where a score is at its threshold.
        rule = classifier.rule_of(str(entry.contestant.point))
        outcomes = classifier.run(setting.encoded, rule)
        rungs = outcomes.rungs
        spent = classifier.spent(setting.encoded, outcomes.kept, rule)[np.arange(len(rows)), rungs]
    predictions = classifier.problem.predictions(readings, setting.encoded, rungs)
    return judged(classifier, setting.source, predictions, rows, spent, full)


def row_of_batches(
    setting: Setting, entry: Entry, timed: str, entries: Sequence[Entry], timings: Mapping[str, Timing]
) -> dict[str, Any]:
    """A row of a race over all texts."""
    return _row(setting, entry, timed, entries, timings) | _over(entry, entries, timings)


def row_of_singles(
    setting: Setting, entry: Entry, timed: str, entries: Sequence[Entry], latencies: Mapping[str, Latencies]
) -> dict[str, Any]:
    """A row of a race of single texts: latencies too, and ratios of their medians."""
    totals = {label: Timing(tuple(one.seconds.sum(axis=1).tolist())) for label, one in latencies.items()}
    medians = {label: one.medians for label, one in latencies.items()}
    per_text = 1e3 * latencies[entry.label].per_text
    return (
        _row(setting, entry, timed, entries, totals)
        | {
            "latency_ms_p50": float(np.percentile(per_text, 50)),
            "latency_ms_p95": float(np.percentile(per_text, 95)),
        }
        | _over(entry, entries, medians)
    )


def _over(entry: Entry, entries: Sequence[Entry], timings: Mapping[str, Timing]) -> dict[str, Any]:
    """For our rows: how many times as fast as each peer, [median, least, most] of the rounds."""
    if entry.contestant.is_peer:
        return {}
    ratios = {
        peer.label: paired_ratio(timings[peer.label], timings[entry.label])
        for peer in entries
        if peer.contestant.is_peer
    }
    return {"over": {label: [ratio.median, ratio.low, ratio.high] for label, ratio in ratios.items()}}


def _row(
    setting: Setting, entry: Entry, timed: str, entries: Sequence[Entry], timings: Mapping[str, Timing]
) -> dict[str, Any]:
    one, timing, n = entry.contestant, timings[entry.label], len(setting.timed)
    baseline = next(other for other in entries if other.contestant.point == FULL and other.order == SORTED)
    gain = paired_ratio(timings[baseline.label], timing)
    data, split = data_and_split(setting.source)
    seen = {"calibration": setting.calibration} if one.is_peer and one.dtype == "int8" else {}
    return {
        "what": one.what,
        "peer": one.is_peer,
        "engine": one.engine,
        "data": data,
        "split": split,
        "model": Path(setting.model).name,
        "device": "cpu",
        "threads": setting.classifier.backend.threads,
        "streams": one.streams,
        "batch": entry.batch,
        "dtype": one.dtype,
        "order": entry.order,
        "padding": entry.order if one.is_peer else "packed",
        "timed": timed,
        **timing_fields(timing, n, gain),
        **seen,
        **lengths_summary(setting.timed),
    }
