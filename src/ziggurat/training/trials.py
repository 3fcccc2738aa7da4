"""Measures pruning on select rows, before later stages train with it, and weakens it if it costs too much.

The papers tune the strength of pruning by hand for each data set. With a strength from another data set, tasks that
depend on word order or grammar lose too many tokens, and later stages cannot repair that.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ziggurat.encoder.torch.model import EncoderModel
from ziggurat.files import whole_file
from ziggurat.policies.prune import TokenRule
from ziggurat.training.batches import Examples, in_batches, spread
from ziggurat.training.loop import Run
from ziggurat.training.losses import criterion_of

_FILE = "trials.json"
_ROWS = 1024  # select rows, at most
_PRICE = 4.0  # price of losing a share of the model's quality; pruning the same share of its tokens is worth 1
_STRENGTHS = (1.0, 0.75, 0.5, 0.25, 0.0)  # factors on the thresholds; among equal values the first is chosen


@dataclass(frozen=True)
class Outcome:
    """Result of one pruning rule on the select rows."""

    metric: float  # of the problem: accuracy, …
    cost: float  # lost share of the metric's gain over a constant answer (the mean of all answers)
    pruned: float  # share of tokens that are pruned, mean over the layers

    @property
    def worth(self) -> float:
        """Above 0 = pruning saves more than it costs."""
        return self.pruned - _PRICE * self.cost


def try_vocabulary(model: EncoderModel, select: Examples, run: Run) -> None:
    """Measures the initial scores of vocabulary entries, and drops them if they cost more than they save.

    They stay if the model has no other pruning. The result is saved in the stage's folder for resumed runs.
    """
    pruning = model.require_pruning()
    if "vocabulary" not in trials_in(run.folder):
        reads = replace(pruning.rule(), values=np.full(model.spec.layers, np.nan))
        plain, [outcome] = _outcomes(model, select, [reads])
        record = {"share": pruning.config.vocabulary, "plain": plain, "read": outcome.metric}
        _keep(run, "vocabulary", record | {"kept": outcome.worth > 0 or not _has_thresholds(model)})
    if not trials_in(run.folder)["vocabulary"]["kept"]:
        pruning.drop_vocabulary()


def choose_strength(model: EncoderModel, select: Examples, run: Run) -> None:
    """Chooses the strength of the learned pruning with the best balance of saving and cost.

    Candidates are factors on the thresholds (mostly 1 wins), with and without the scores of vocabulary entries. The
    result is saved in the stage's folder for resumed runs.
    """
    if not _has_thresholds(model):
        return
    pruning = model.require_pruning()
    rule = pruning.rule()
    if "settled" not in trials_in(run.folder):
        forms = [(factor, read) for read in dict.fromkeys([True, rule.vocabulary is None]) for factor in _STRENGTHS]
        scaled = [replace(rule, values=factor * rule.values) for factor, _ in forms]
        rules = [r if read else replace(r, vocabulary=None) for r, (_, read) in zip(scaled, forms, strict=True)]
        plain, outcomes = _outcomes(model, select, rules)
        best = int(np.argmax([outcome.worth for outcome in outcomes]))
        factor, read = forms[best]
        record = {"plain": plain, "learned": outcomes[0].metric, "settled": outcomes[best].metric}
        _keep(run, "settled", {"factor": factor, "vocabulary": read and rule.vocabulary is not None} | record)
    settled = trials_in(run.folder)["settled"]
    with torch.no_grad():
        pruning.values.mul_(settled["factor"])
    if rule.vocabulary is not None and not settled["vocabulary"]:
        pruning.drop_vocabulary()


def trials_in(folder: Path) -> dict[str, Any]:
    """The saved results in this stage's folder, as JSON values; empty if there are none."""
    file = folder / _FILE
    return dict(json.loads(file.read_text("utf-8"))) if file.exists() else {}


def _keep(run: Run, name: str, outcome: dict[str, Any]) -> None:
    with whole_file(run.folder / _FILE) as path:
        path.write_text(json.dumps(trials_in(run.folder) | {name: outcome}, indent=2) + "\n", "utf-8")


def _has_thresholds(model: EncoderModel) -> bool:
    return any(model.require_pruning().fades(layer) for layer in range(1, model.spec.layers + 1))


@torch.no_grad()
def _outcomes(model: EncoderModel, select: Examples, rules: Sequence[TokenRule]) -> tuple[float, list[Outcome]]:
    """The metric without pruning, and the outcome of each rule."""
    rows, metric = select.labelled(), criterion_of(model.problem).metric
    rows = Examples(rows.encoded.take(spread(len(rows), _ROWS)), rows.labels[spread(len(rows), _ROWS)])
    model.eval()
    plain = _answers(model, rows, None)
    constant = metric(np.broadcast_to(plain.mean(axis=0), plain.shape), rows.labels)
    full = metric(plain, rows.labels)
    outcomes = []
    for rule in rules:
        found = metric(_answers(model, rows, rule), rows.labels)
        # A model no better than a constant answer has nothing to lose.
        cost = max(full - found, 0) / (full - constant) if full > constant else 0.0
        outcomes.append(Outcome(found, cost, _pruned_share(model, rows, rule)))
    return full, outcomes


def _answers(model: EncoderModel, rows: Examples, rule: TokenRule | None) -> np.ndarray:
    batches = in_batches(rows.encoded.tokens)
    return np.concatenate([model.full_logits(batch, rule).float().cpu().numpy() for batch in batches])


def _pruned_share(model: EncoderModel, rows: Examples, rule: TokenRule) -> float:
    remaining = 0
    for batch in in_batches(rows.encoded.tokens):
        states = model.embed(batch, rule)
        for layer in range(1, model.spec.layers + 1):
            states = model.layer(layer, states, rule)
            remaining += len(states.positions)
    return 1 - remaining / (model.spec.layers * sum(map(len, rows.encoded.tokens)))
