"""What pruning costs is tried on select rows before two more stages learn with it, and taken back where that is much.

The papers find their pruning's strength by hand, for each data set anew. Where word order or grammar decides, that of
another one leaves too little to answer from, in which no later stage finds its way back.
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
from ziggurat.train.batches import Examples, in_batches, spread
from ziggurat.train.loop import Run
from ziggurat.train.losses import CRITERIA

_FILE = "trials.json"
_ROWS = 1024  # select rows that are asked, at most
_PRICE = 4.0  # what a share of the model's knowledge costs, a share of its tokens being 1
_STRENGTHS = (1.0, 0.75, 0.5, 0.25, 0.0)  # factors on the thresholds; the first of those that are worth the same counts


@dataclass(frozen=True)
class Tried:
    """What the select rows say of one way of pruning."""

    metric: float  # of the problem: accuracy, …
    cost: float  # share of what the model knows that is lost: of its metric above that of its mean answer to every row
    given: float  # share of tokens that leave, mean over the layers

    @property
    def worth(self) -> float:
        """Above 0 = it gives more than it costs."""
        return self.given - _PRICE * self.cost


def try_vocabulary(model: EncoderModel, select: Examples, run: Run) -> None:
    """Tries the scores with which the vocabulary starts; the model goes on without where they cost more than they give.

    Where nothing else prunes they stay. The outcome is kept in the stage's folder, and a run that is taken up again
    goes by it.
    """
    pruning = model.require_pruning()
    if "vocabulary" not in trials_in(run.folder):
        reads = replace(pruning.rule(), values=np.full(model.spec.layers, np.nan))
        plain, [tried] = _tried(model, select, [reads])
        said = {"share": pruning.config.vocabulary, "plain": plain, "read": tried.metric}
        _keep(run, "vocabulary", said | {"kept": tried.worth > 0 or not _has_thresholds(model)})
    if not trials_in(run.folder)["vocabulary"]["kept"]:
        pruning.drop_vocabulary()


def settle(model: EncoderModel, select: Examples, run: Run) -> None:
    """Of what a soft stage has learned, keeps as much as gives most for what it costs.

    That is a factor on its thresholds, mostly 1, and the vocabulary, unless that has learned to read too little. The
    outcome is kept as `try_vocabulary`'s is.
    """
    if not _has_thresholds(model):
        return
    pruning = model.require_pruning()
    rule = pruning.rule()
    if "settled" not in trials_in(run.folder):
        forms = [(factor, read) for read in dict.fromkeys([True, rule.vocabulary is None]) for factor in _STRENGTHS]
        scaled = [replace(rule, values=factor * rule.values) for factor, _ in forms]
        rules = [one if read else replace(one, vocabulary=None) for one, (_, read) in zip(scaled, forms, strict=True)]
        plain, every = _tried(model, select, rules)
        best = int(np.argmax([tried.worth for tried in every]))
        factor, read = forms[best]
        said = {"plain": plain, "learned": every[0].metric, "settled": every[best].metric}
        _keep(run, "settled", {"factor": factor, "vocabulary": read and rule.vocabulary is not None} | said)
    settled = trials_in(run.folder)["settled"]
    with torch.no_grad():
        pruning.values.mul_(settled["factor"])
    if rule.vocabulary is not None and not settled["vocabulary"]:
        pruning.drop_vocabulary()


def trials_in(folder: Path) -> dict[str, Any]:
    """What was tried in this stage's folder and with which outcome, as JSON values; empty = nothing."""
    file = folder / _FILE
    return dict(json.loads(file.read_text("utf-8"))) if file.exists() else {}


def _keep(run: Run, what: str, outcome: dict[str, Any]) -> None:
    with whole_file(run.folder / _FILE) as path:
        path.write_text(json.dumps(trials_in(run.folder) | {what: outcome}, indent=2) + "\n", "utf-8")


def _has_thresholds(model: EncoderModel) -> bool:
    return any(model.require_pruning().fades(layer) for layer in range(1, model.spec.layers + 1))


@torch.no_grad()
def _tried(model: EncoderModel, select: Examples, rules: Sequence[TokenRule]) -> tuple[float, list[Tried]]:
    """The metric with nothing pruned, and what each of the rules makes of it."""
    rows, metric = select.labelled(), CRITERIA[model.problem].metric
    rows = Examples(rows.encoded.take(spread(len(rows), _ROWS)), rows.labels[spread(len(rows), _ROWS)])
    model.eval()
    plain = _answers(model, rows, None)
    nothing = metric(np.broadcast_to(plain.mean(axis=0), plain.shape), rows.labels)
    known = metric(plain, rows.labels)
    every = []
    for rule in rules:
        found = metric(_answers(model, rows, rule), rows.labels)
        # A model that knows nothing has nothing to lose.
        cost = max(known - found, 0) / (known - nothing) if known > nothing else 0.0
        every.append(Tried(found, cost, _given(model, rows, rule)))
    return known, every


def _answers(model: EncoderModel, rows: Examples, rule: TokenRule | None) -> np.ndarray:
    batches = in_batches(rows.encoded.tokens)
    return np.concatenate([model.full_logits(batch, rule).float().cpu().numpy() for batch in batches])


def _given(model: EncoderModel, rows: Examples, rule: TokenRule) -> float:
    left = 0
    for batch in in_batches(rows.encoded.tokens):
        states = model.embed(batch, rule)
        for layer in range(1, model.spec.layers + 1):
            states = model.layer(layer, states, rule)
            left += len(states.positions)
    return 1 - left / (model.spec.layers * sum(map(len, rows.encoded.tokens)))
