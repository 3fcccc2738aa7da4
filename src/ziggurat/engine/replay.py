"""Runs without early exits: readings of all rungs, and the rung where each input would exit under a rule."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import nullcontext

import numpy as np

from ziggurat.data.encoded import Encoded, pack_rows
from ziggurat.data.packing import PackedBatch
from ziggurat.engine.backend import AllRungs, Backend, Outcomes
from ziggurat.engine.queues import calls
from ziggurat.engine.tiers import Ladder
from ziggurat.policies.prune import TokenRule
from ziggurat.policies.rules import ExitRule
from ziggurat.system import bar


def all_rungs(
    ladder: Ladder, encoded: Encoded, batch_sizes: Sequence[int], tokens: TokenRule | None, progress: bool = False
) -> AllRungs:
    """Readings of all rungs of all tiers for n inputs; `tokens` prunes in the last tier."""
    backend = ladder.tiers[-1].backend
    readings = np.full((len(encoded), ladder.n_rungs, backend.width), np.nan, dtype=backend.reading_dtype)
    token_counts = np.zeros((len(encoded.tokens), ladder.columns), dtype=np.int64)
    for part, size in zip(ladder.slices, batch_sizes, strict=True):
        inputs = ladder.inputs_of(part.tier, encoded)
        with bar(None, len(encoded), "texts") if progress else nullcontext() as shown:
            for rows in part.tier.batches(inputs, size):
                found = part.tier.backend.all_rungs(pack_rows(inputs, rows), part.pruning(tokens))
                readings[rows, part.rungs] = found.readings
                token_counts[inputs.sequences_of(rows), part.columns] = found.token_counts
                if shown is not None:
                    shown.update(len(rows))
    return AllRungs(readings, token_counts)


def replay(readings: np.ndarray, rule: ExitRule) -> np.ndarray:
    """The rung (n) at which each input would exit, from `AllRungs.readings` (n, n_rungs, width)."""
    rungs = np.full(len(readings), readings.shape[1] - 1, dtype=np.int64)
    live = np.arange(len(readings))
    active: list[int] = []
    for rung in range(readings.shape[1]):
        if not rule.active[rung]:
            continue
        active.append(rung)
        exiting = rule.exits(rung, readings[live][:, active], live)
        rungs[live[exiting]] = rung
        live = live[~exiting]
        if not len(live):
            break
    return rungs


def run_batches(
    backend: Backend, batches: Iterable[PackedBatch], rule: ExitRule, n_inputs: int, together: int | None = None
) -> Outcomes:
    """Answers prepared batches, of one sequence per input, with one model: for measurements.

    The `rows` of the batches contain each of the n inputs once. A call takes `together` tokens; None = the backend's
    number.
    """
    outcomes = Outcomes(
        np.full((n_inputs, backend.width), np.nan, dtype=backend.reading_dtype),
        np.full(n_inputs, -1, dtype=np.int64),
        np.zeros(n_inputs),
        np.zeros((n_inputs, backend.n_layers + 1), dtype=np.int64),
    )
    most = backend.together if together is None else together
    for call in calls(batches, lambda batch: (batch.n_seqs, len(batch.positions)), most):
        works = [backend.start(batch) for batch in call]
        work = works[0] if len(works) == 1 else backend.join(works)
        _, done = backend.advance(work, rule, backend.n_layers)
        outcomes.readings[done.rows], outcomes.rungs[done.rows] = done.readings, done.rungs
        outcomes.seconds[done.rows], outcomes.token_counts[done.rows] = done.seconds, done.token_counts
    return outcomes
