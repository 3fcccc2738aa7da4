"""Result rows of `bench --peers`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ziggurat.bench.competition import SORTED, Entry, Latencies
from ziggurat.data.dataset import Dataset
from ziggurat.data.tokenizer import Encoded
from ziggurat.engine.classifier import FULL, AdaptiveClassifier
from ziggurat.measure.clock import Timing, paired_ratio, quality_fields, timing_fields
from ziggurat.measure.subject import data_and_split, lengths_summary
from ziggurat.measure.task_metrics import metrics_for, task_measures


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
        return self.classifier.tokenizer.encode([texts[row] for row in rows], chosen)


def quality(setting: Setting, entry: Entry) -> dict[str, Any]:
    """Accuracy of all scored texts as this entry answers them, and FLOPs."""
    classifier, rows = setting.classifier, setting.scored
    predictions = entry.prepared(setting.encoded)().argmax(axis=1)
    full = classifier.whole(setting.encoded)
    spent = full
    if entry.contestant.point not in (None, FULL):
        # Of the first engine: another dtype may leave elsewhere where a score is at its threshold.
        rule = classifier.rule_of(str(entry.contestant.point))
        outcomes = classifier.run(setting.encoded, rule)
        spent = classifier.spent(setting.encoded, outcomes.kept, rule)[np.arange(len(rows)), outcomes.rungs]
    names = metrics_for(classifier.manifest, setting.source)
    found = task_measures(classifier.manifest, setting.source, names, predictions, rows.classes)
    return found | quality_fields(predictions == rows.classes, spent, full)


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
    one, timing, n = entry.contestant, timings[entry.label], len(setting.timed.tokens)
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
