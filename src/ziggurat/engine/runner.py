"""Packed execution of whole batches: finished sequences leave at every rung, and their memory and time with them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ziggurat.data.packing import PackedBatch
from ziggurat.engine.backend import Answered, Backend
from ziggurat.engine.rules import ExitRule
from ziggurat.policies.prune import TokenRule

TOGETHER = 1 << 14  # tokens of a call: few calls end with few of them, and an interrupt is never far


@dataclass(frozen=True)
class Outcomes:
    """What became of each input of a call, in the call's order."""

    logits: np.ndarray  # (n, n_classes) float32, of the rung that answered
    rungs: np.ndarray  # (n) int64
    seconds: np.ndarray  # (n) float64, from the start of its batch to its answer
    kept: (
        np.ndarray
    )  # (n, L + 1) int64: tokens that entered layer 1, then those that each layer left; 0 = it did not run

    @property
    def readings(self) -> np.ndarray:
        """What the rung that answered reads of each input, (n, width)."""
        return self.logits

    @property
    def predictions(self) -> np.ndarray:
        """Class index of each input, (n)."""
        return self.logits.argmax(axis=1)

    def take(self, rows: np.ndarray) -> Outcomes:
        """Only these inputs', (m) indices."""
        return Outcomes(self.logits[rows], self.rungs[rows], self.seconds[rows], self.kept[rows])


@dataclass(frozen=True)
class AllRungs:
    """What every rung says to every input, nobody leaving early."""

    logits: np.ndarray  # (n, n_rungs, n_classes) float32
    kept: np.ndarray  # (n, L + 1) int64, as in Outcomes

    @property
    def readings(self) -> np.ndarray:
        """What every rung reads of every input, (n, n_rungs, width)."""
        return self.logits


def nothing_yet(n_inputs: int, n_classes: int, n_columns: int) -> Outcomes:
    """Of inputs that nobody has answered, `n_columns` wide in `kept`."""
    return Outcomes(
        np.full((n_inputs, n_classes), np.nan, dtype=np.float32),
        np.full(n_inputs, -1, dtype=np.int64),
        np.full(n_inputs, np.nan),
        np.zeros((n_inputs, n_columns), dtype=np.int64),
    )


def run(
    backend: Backend, batches: Iterable[PackedBatch], rule: ExitRule, n_inputs: int, together: int = TOGETHER
) -> Outcomes:
    """Answers every input of `batches`, whose `rows` index the call's n_inputs inputs and are all there once.

    A backend that runs the whole forward itself gets several batches in one call, of about so many tokens `together`;
    a batch of one text always comes alone, for whoever asks for that wants its answer first.
    """
    outcomes = nothing_yet(n_inputs, backend.n_classes, backend.n_layers + 1)
    # Not isinstance with the protocol, which looks for every method and takes longer than a small model's answer.
    answer: Callable[[Sequence[PackedBatch], ExitRule], Answered | None] | None = getattr(backend, "answer", None)
    for some in _in_calls(batches, 0 if answer is None else together):
        answered = None if answer is None else answer(some, rule)
        if answered is None:
            for batch in some:
                nothing_heard = np.empty((batch.n_seqs, 0, backend.n_classes), dtype=np.float32)
                run_batch(backend, batch, rule, outcomes, 0, nothing_heard)
        else:
            rows = some[0].rows if len(some) == 1 else np.concatenate([batch.rows for batch in some])
            outcomes.logits[rows], outcomes.rungs[rows] = answered.logits, answered.rungs
            outcomes.seconds[rows], outcomes.kept[rows] = answered.seconds, answered.kept
    return outcomes


def _in_calls(batches: Iterable[PackedBatch], together: int) -> Iterator[list[PackedBatch]]:
    """Batches in their order, as many in each call as have so many tokens together; one at least."""
    call: list[PackedBatch] = []
    tokens = 0
    for batch in batches:
        call.append(batch)
        tokens += len(batch.positions)
        if tokens >= together or batch.n_seqs == 1:
            yield call
            call, tokens = [], 0
    if call:
        yield call


def run_batch(
    backend: Backend, batch: PackedBatch, rule: ExitRule, outcomes: Outcomes, first: int, history: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Step by step, for any rule; writes the batch's answers into `outcomes`, rungs counted from the backend's first.

    That is rung `first` of the rule's ladder, and `history` (n_seqs, asked rungs before, n_classes) what those said.
    Returns who has no answer here, (m) rows, and their history.
    """
    start = time.perf_counter()
    live = backend.embed(batch, rule.tokens)
    outcomes.kept[live.rows, 0] = live.lengths
    asked = {layer: rung for rung, layer in enumerate(backend.rung_layers) if rule.asked[first + rung]}
    for layer in range(backend.n_layers + 1):  # 0: a small model, which has no layers, answers at once
        if layer > 0:
            live = backend.layer(layer, live, rule.tokens)
            outcomes.kept[live.rows, layer] = live.lengths
        if layer not in asked:
            continue
        rung = asked[layer]
        history = np.concatenate([history, backend.logits(rung, live)[:, None]], axis=1)
        leaving = rule.leaves(first + rung, history, live.rows)
        done = live.rows[leaving]
        outcomes.logits[done] = history[leaving, -1]
        outcomes.rungs[done] = rung
        outcomes.seconds[done] = time.perf_counter() - start
        if leaving.all():
            return live.rows[:0], history[:0]
        live, history = live.take_sequences(~leaving), history[~leaving]
        if layer == max(asked):
            break
    outcomes.seconds[live.rows] = time.perf_counter() - start
    return live.rows, history


def run_every_rung(
    backend: Backend, batches: Iterable[PackedBatch], n_inputs: int, tokens: TokenRule | None = None
) -> AllRungs:
    """What every rung says to every input, nobody leaving, for `replay`. Pruning is really run: it changes answers."""
    logits = np.full((n_inputs, len(backend.rung_layers), backend.n_classes), np.nan, dtype=np.float32)
    kept = np.zeros((n_inputs, backend.n_layers + 1), dtype=np.int64)
    for batch in batches:
        live = backend.embed(batch, tokens)
        kept[live.rows, 0] = live.lengths
        for layer in range(backend.n_layers + 1):
            if layer > 0:
                live = backend.layer(layer, live, tokens)
                kept[live.rows, layer] = live.lengths
            if layer in backend.rung_layers:
                rung = backend.rung_layers.index(layer)
                logits[live.rows, rung] = backend.logits(rung, live)
    return AllRungs(logits, kept)


def replay(every: np.ndarray, rule: ExitRule) -> np.ndarray:
    """The rung (n) at which each input would leave, from `AllRungs.logits` (n, n_rungs, n_classes)."""
    rungs = np.full(len(every), every.shape[1] - 1, dtype=np.int64)
    live = np.arange(len(every))
    heard: list[int] = []
    for rung in range(every.shape[1]):
        if not rule.asked[rung]:
            continue
        heard.append(rung)
        leaving = rule.leaves(rung, every[live][:, heard], live)
        rungs[live[leaving]] = rung
        live = live[~leaving]
        if not len(live):
            break
    return rungs
