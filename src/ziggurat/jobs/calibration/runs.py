"""The model run on calibration rows at every strength of pruning, and what leaving at each rung costs and loses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ziggurat.calibrate.certify import Evidence
from ziggurat.calibrate.grouping import Groups, per_draw
from ziggurat.calibrate.risks import Risk
from ziggurat.calibrate.stored import StoredRun
from ziggurat.data.tasks import Dataset
from ziggurat.engine import rules
from ziggurat.engine.classifier import AdaptiveClassifier
from ziggurat.jobs.training.choosing import pruning_strengths
from ziggurat.policies.prune import scaled


@dataclass(frozen=True, eq=False)
class Seen:
    """Rows, and what all rungs said to them."""

    rows: Any  # a Dataset, or Questions
    encoded: Any  # what the model reads of them: Encoded, or Windows
    runs: Mapping[float, StoredRun]  # by strength of pruning
    losses: Mapping[float, np.ndarray]  # (n, n_rungs) of leaving there, likewise
    groups: Groups | None = None  # that the rows were drawn in; None = each was drawn by itself

    @property
    def draws(self) -> int:
        """How many independent ones the rows are."""
        return len(self.rows) if self.groups is None else len(self.groups)

    def evidence(self, risk: Risk) -> Evidence:
        """For `certify`."""
        return Evidence(self.runs, self.losses, risk, self.groups)

    def per_draw(self, losses: np.ndarray, risk: Risk) -> np.ndarray:
        """Losses of rows, (n), as a bound takes them: (draws)."""
        return per_draw(losses, self.groups, risk)


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
        runs[strength] = StoredRun(every.logits, every.kept, strength, classifier.deferral, classifier.output)
    if reference is not None:
        theirs = reference.tokenizer.encode(rows.texts, rows.pairs)
        outcomes = reference.run(theirs, rules.never(len(reference.rungs)), batch_size, progress)
        full = classifier.output.predictions(outcomes.logits)
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
