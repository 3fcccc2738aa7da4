"""Running a ladder: each tier answers what it is sure of, the next one reads only what is left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ziggurat.data.tokenizer import Encoded
from ziggurat.engine import rules
from ziggurat.engine.rules import ExitRule
from ziggurat.engine.runner import AllRungs, Outcomes, nothing_yet, run, run_batch, run_every_rung
from ziggurat.engine.tiers import Place, Tier, places
from ziggurat.policies.exits import exit_score
from ziggurat.policies.prune import TokenRule


def run_ladder(
    tiers: Sequence[Tier], encoded: Encoded, rule: ExitRule, batch_sizes: Sequence[int], progress: bool = False
) -> Outcomes:
    """Answers n inputs; `rule` is of all tiers' rungs, its pruning the last tier's: those before prune as trained.

    `kept` of the outcomes has the tiers' columns side by side, 0 in those of a tier that did not see the input. A tier
    of which no rung is asked does not run.
    """
    if len(tiers) == 1:
        return run(tiers[0].backend, tiers[0].batches(encoded, batch_sizes[0], progress), rule, len(encoded))
    total = nothing_yet(len(encoded), tiers[-1].backend.n_classes, sum(tier.columns for tier in tiers))
    live, waited = np.arange(len(encoded)), np.zeros(len(encoded))
    heard = np.empty((len(encoded), 0, tiers[-1].backend.n_classes), dtype=np.float32)
    for place, batch_size in zip(places(tiers), batch_sizes, strict=True):
        if not len(live) or place.last_asked(rule.asked) is None:
            continue
        mine = inputs_of(place.tier, tiers[-1], encoded, live)
        own = replace(_of_rows(rule, live), tokens=place.pruning(rule.tokens))
        done, heard = run_tier(place, mine, own, heard, batch_size, progress)
        left = done.rungs >= 0
        gone = live[left]
        total.logits[gone], total.rungs[gone] = done.logits[left], done.rungs[left] + place.rungs.start
        total.seconds[gone] = waited[gone] + done.seconds[left]
        total.kept[live, place.columns] = done.kept
        waited[live] += done.seconds
        live, heard = live[~left], heard[~left]
    return total


def run_every_rung_of(
    tiers: Sequence[Tier], encoded: Encoded, batch_sizes: Sequence[int], progress: bool, tokens: TokenRule | None
) -> AllRungs:
    """What every rung of every tier says to every input; `tokens` is the last tier's pruning."""
    everyone, found = np.arange(len(encoded)), []
    for place, batch_size in zip(places(tiers), batch_sizes, strict=True):
        tier = place.tier
        batches = tier.batches(inputs_of(tier, tiers[-1], encoded, everyone), batch_size, progress)
        found.append(run_every_rung(tier.backend, batches, len(encoded), place.pruning(tokens)))
    return AllRungs(
        np.concatenate([each.logits for each in found], axis=1), np.concatenate([each.kept for each in found], axis=1)
    )


def inputs_of(tier: Tier, last: Tier, encoded: Encoded, rows: np.ndarray) -> Encoded:
    """These inputs (m) as the tier reads them; `encoded` is by the last tier's tokenizer."""
    mine = encoded if len(rows) == len(encoded) else encoded.take(rows)
    if tier.tokenizer is last.tokenizer:
        return mine
    if mine.texts is None:
        raise ValueError("a tier with a tokenizer of its own needs the texts; encode them with the classifier")
    return tier.tokenizer.encode(mine.texts, mine.pairs)


def _of_rows(rule: ExitRule, rows: np.ndarray) -> ExitRule:
    """The rule for some of the inputs, (m) indices: thresholds of its own go with each input."""
    return rule if rule.thresholds.ndim == 1 else replace(rule, thresholds=rule.thresholds[rows])


def run_tier(
    place: Place, encoded: Encoded, rule: ExitRule, heard: np.ndarray, batch_size: int, progress: bool
) -> tuple[Outcomes, np.ndarray]:
    """One tier's outcomes, rungs counted from its own first, -1 = no answer here; and what has been heard by now.

    `heard` (n, asked rungs so far, n_classes): a count of agreeing rungs goes on from tier to tier, and is run step by
    step. All other scores look at one rung alone, and each backend's fastest way will do.
    """
    n, tier, first = len(encoded), place.tier, place.rungs.start
    batches = tier.batches(encoded, batch_size, progress)
    if exit_score(rule.score).looks_back:
        done = nothing_yet(n, tier.backend.n_classes, tier.columns)
        said = np.zeros((n, heard.shape[1] + sum(rule.asked[place.rungs]), heard.shape[2]), dtype=heard.dtype)
        for batch in batches:
            waiting, history = run_batch(tier.backend, batch, rule, done, first, heard[batch.rows])
            if len(waiting):  # else not all rungs were heard
                said[waiting] = history
        return done, said
    mine, last = rules.of_tier(rule, first, tier.n_rungs)
    done = run(tier.backend, batches, mine, n)
    if not place.last:
        rows = np.flatnonzero(done.rungs >= last)  # beyond it only what no score can tell: logits that are no numbers
        waiting = rows[~rule.leaves(first + last, done.logits[rows][:, None], rows)]
        done.rungs[waiting] = -1
    return done, heard
