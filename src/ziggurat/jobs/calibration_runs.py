"""The model run on calibration rows at every strength of pruning, and what leaving at each rung costs and loses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ziggurat.calibrate.candidates import Candidate
from ziggurat.calibrate.certify import Evidence
from ziggurat.calibrate.paths import Tried, losses_of
from ziggurat.calibrate.risks import Risk
from ziggurat.calibrate.stored import StoredRun
from ziggurat.calibrate.timing import Profile, predicted_seconds
from ziggurat.data.tasks import Dataset
from ziggurat.data.tokenize import Encoded
from ziggurat.engine import rules
from ziggurat.engine.classifier import AdaptiveClassifier
from ziggurat.engine.scheduler import by_length
from ziggurat.jobs.choosing import pruning_strengths
from ziggurat.jobs.opening import sample
from ziggurat.policies.prune import scaled

_TIMED_ROWS = 4096  # at most, that predicted times are of


@dataclass(frozen=True, eq=False)
class Seen:
    """Rows, and what all rungs said to them."""

    rows: Dataset
    encoded: Encoded
    runs: Mapping[float, StoredRun]  # by strength of pruning
    losses: Mapping[float, np.ndarray]  # (n, n_rungs) of leaving there, likewise

    def evidence(self, risk: Risk) -> Evidence:
        """For `certify`."""
        return Evidence(self.runs, self.losses, risk)

    def losses_of(self, setting: Tried) -> np.ndarray:
        """Loss of each row, (n)."""
        return losses_of(setting, self.runs, self.losses)


def seen(
    classifier: AdaptiveClassifier,
    rows: Dataset,
    risk: Risk,
    reference: AdaptiveClassifier | None,
    batch_size: int,
    progress: bool,
) -> Seen:
    """Runs the model on the rows; losses are counted from `reference` at full depth, None = the model itself."""
    encoded = classifier.tokenizer.encode(rows.texts, rows.pairs)
    runs: dict[float, StoredRun] = {}
    for strength in pruning_strengths(classifier.token_rule):
        tokens = scaled(classifier.token_rule, strength)
        every = classifier.every_rung(encoded, batch_size, progress, tokens)
        runs[strength] = StoredRun(every.logits, every.kept, strength)
    if reference is not None:
        theirs = reference.tokenizer.encode(rows.texts, rows.pairs)
        full = reference.run(theirs, rules.never(len(reference.rungs)), batch_size, progress).predictions
    else:
        full = full_run(runs).predictions()[:, -1]
    return Seen(rows, encoded, runs, {strength: _losses(run, risk, full, rows) for strength, run in runs.items()})


def full_run(runs: Mapping[float, StoredRun]) -> StoredRun:
    """The run without pruning: of a model that never prunes its only one."""
    return runs.get(0.0, next(iter(runs.values())))


def _losses(run: StoredRun, risk: Risk, full: np.ndarray, rows: Dataset) -> np.ndarray:
    labels = rows.labels if risk.needs_labels else None
    predictions = run.predictions()
    return np.stack([risk.of(predictions[:, rung], full, labels) for rung in range(run.n_rungs)], axis=1)


class PredictedTime:
    """Predicted seconds per text of settings on some rows, in batches of like lengths."""

    def __init__(self, profile: Profile, encoded: Encoded, runs: Mapping[float, StoredRun], batch_size: int) -> None:
        self._n = len(encoded.tokens)
        self._rows = sample(len(encoded.tokens), _TIMED_ROWS)
        self._kept = {strength: run.kept[self._rows] for strength, run in runs.items()}
        self._profile = profile
        self._batch_of = np.empty(len(self._rows), dtype=np.int64)
        for batch, rows in enumerate(by_length(encoded.lengths[self._rows], batch_size)):
            self._batch_of[rows] = batch

    def __call__(self, candidate: Candidate) -> float:
        """Of the rows that `candidate.rungs` is about."""
        return self.of(candidate.rungs, candidate.asked, candidate.pruning)

    def of_full_depth(self, n_rungs: int) -> float:
        """Of rows that go all the way, without pruning, no exit asked."""
        strength = 0.0 if 0.0 in self._kept else next(iter(self._kept))
        return self.of(np.full(self._n, n_rungs - 1), rules.never(n_rungs).asked, strength)

    def of(self, rungs: np.ndarray, asked: Sequence[bool], pruning: float) -> float:
        """Of rows that leave at `rungs` (n, all of them)."""
        here, kept = rungs[self._rows], self._kept[pruning]
        return float(predicted_seconds(self._profile, kept, here, tuple(asked), self._batch_of)) / len(self._rows)
