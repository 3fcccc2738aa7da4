"""Without early exits: what every rung reads, and where a rule would have let each input exit."""

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
    """What every rung of every tier reads of n inputs; `tokens` is the last tier's pruning, which is really run."""
    backend = ladder.tiers[-1].backend
    readings = np.full((len(encoded), ladder.n_rungs, backend.width), np.nan, dtype=backend.reading_dtype)
    kept = np.zeros((len(encoded.tokens), ladder.columns), dtype=np.int64)
    for part, size in zip(ladder.slices, batch_sizes, strict=True):
        inputs = ladder.inputs_of(part.tier, encoded)
        with bar(None, len(encoded), "texts") if progress else nullcontext() as shown:
            for rows in part.tier.batches(inputs, size):
                found = part.tier.backend.all_rungs(pack_rows(inputs, rows), part.pruning(tokens))
                readings[rows, part.rungs] = found.readings
                kept[inputs.sequences_of(rows), part.columns] = found.kept
                if shown is not None:
                    shown.update(len(rows))
    return AllRungs(readings, kept)


def replay(readings: np.ndarray, rule: ExitRule) -> np.ndarray:
    """The rung (n) at which each input would exit, from `AllRungs.readings` (n, n_rungs, width)."""
    rungs = np.full(len(readings), readings.shape[1] - 1, dtype=np.int64)
    live = np.arange(len(readings))
    seen: list[int] = []
    for rung in range(readings.shape[1]):
        if not rule.asked[rung]:
            continue
        seen.append(rung)
        exiting = rule.leaves(rung, readings[live][:, seen], live)
        rungs[live[exiting]] = rung
        live = live[~exiting]
        if not len(live):
            break
    return rungs


def run_batches(
    backend: Backend, batches: Iterable[PackedBatch], rule: ExitRule, n_inputs: int, together: int | None = None
) -> Outcomes:
    """Answers batches that are made already, of one sequence per input, in one model: for measurements.

    Their `rows` index the n inputs, and are all there once. `together` tokens go into one call, None = as the backend
    takes them.
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
        outcomes.seconds[done.rows], outcomes.kept[done.rows] = done.seconds, done.kept
    return outcomes
