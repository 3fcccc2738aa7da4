"""Packed execution for inputs of several sequences: a question's windows run together, and exit together.

The rule compares a question's reading: the entropies of start and end, each the largest of its windows.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np

from ziggurat.data.packing import PackedBatch, pack, slots_in
from ziggurat.data.tokenizer import Encoded
from ziggurat.engine.backend import SpanBackend
from ziggurat.engine.rules import ExitRule
from ziggurat.engine.runner import AllRungs, Outcomes
from ziggurat.policies.prune import TokenRule
from ziggurat.problems.problem import Reader


class _Climb:
    """Windows on their way up. A token that leaves keeps its last state among those of all tokens (`whole`)."""

    def __init__(self, backend: SpanBackend, batch: PackedBatch, tokens: TokenRule | None, kept: np.ndarray) -> None:
        self.backend, self.tokens, self.kept = backend, tokens, kept
        self.marks = batch.with_states(batch.states[:, 2])
        ids = batch.with_states(np.ascontiguousarray(batch.states[:, :2]))
        self.whole = backend.embed(ids, None)
        read = None if tokens is None else tokens.reads(ids)
        self.live = self.whole if read is None else self.whole.take_tokens(read)
        self.kept[self.live.rows, 0] = self.live.lengths

    def layer(self, layer: int) -> None:
        """One layer up."""
        before = self.live
        self.live = self.backend.layer(layer, before, self.tokens)
        if len(self.live.positions) < len(before.positions):
            gone = np.isin(slots_in(self.whole, before), slots_in(self.whole, self.live), invert=True)
            self.backend.put_back(self.whole, _only(before, gone))
        self.kept[self.live.rows, layer] = self.live.lengths

    def logits(self, rung: int) -> np.ndarray:
        """What a rung says to all tokens, those that left included: (n_tokens, 2)."""
        self.backend.put_back(self.whole, self.live)
        return self.backend.logits(rung, self.whole)

    def take(self, keep: np.ndarray) -> None:
        """Only these windows, (n_windows) bool, go on."""
        self.marks, self.whole, self.live = (one.take_sequences(keep) for one in (self.marks, self.whole, self.live))


def run_sequences(
    backend: SpanBackend, reader: Reader, encoded: Encoded, batches: Iterator[np.ndarray], rule: ExitRule
) -> Outcomes:
    """Answers all inputs; `batches` are indices of inputs, each of which is in one of them."""
    n = len(encoded)
    done = Outcomes(
        np.full((n, reader.width), np.nan),
        np.full(n, -1),
        np.full(n, np.nan),
        _nothing_kept(backend, encoded),
    )
    for rows in batches:
        _run_batch(backend, reader, encoded, rows, rule, done)
    return done


def _run_batch(
    backend: SpanBackend, reader: Reader, encoded: Encoded, rows: np.ndarray, rule: ExitRule, done: Outcomes
) -> None:
    start = time.perf_counter()
    climb = _Climb(backend, _packed(encoded, rows), rule.tokens, done.kept)
    history = np.empty((len(rows), 0, reader.width))
    for layer in range(1, backend.n_layers + 1):
        climb.layer(layer)
        rung = backend.rung_layers.index(layer) if layer in backend.rung_layers else None
        if rung is None or not rule.asked[rung]:
            continue
        history = np.concatenate([history, _read(reader, climb, rung, encoded)[:, None]], axis=1)
        leaving = rule.leaves(rung, history, rows)
        if not leaving.any():
            continue
        gone = rows[leaving]
        done.readings[gone] = history[leaving, -1]
        done.rungs[gone], done.seconds[gone] = rung, time.perf_counter() - start
        if leaving.all():
            return
        climb.take(np.isin(_owners(encoded)[climb.marks.rows], gone, invert=True))
        rows, history = rows[~leaving], history[~leaving]


def all_rungs_of_sequences(
    backend: SpanBackend, reader: Reader, encoded: Encoded, batches: Iterator[np.ndarray], tokens: TokenRule | None
) -> AllRungs:
    """What every rung reads of every input under a pruning rule, for `runner.replay`."""
    shape = len(encoded), len(backend.rung_layers), reader.width
    every = AllRungs(np.full(shape, np.nan), _nothing_kept(backend, encoded))
    for rows in batches:
        climb = _Climb(backend, _packed(encoded, rows), tokens, every.kept)
        for layer in range(1, backend.n_layers + 1):
            climb.layer(layer)
            if layer in backend.rung_layers:
                rung = backend.rung_layers.index(layer)
                every.readings[rows, rung] = _read(reader, climb, rung, encoded)
    return every


def _read(reader: Reader, climb: _Climb, rung: int, encoded: Encoded) -> np.ndarray:
    marks = climb.marks
    owned = PackedBatch(marks.states, marks.cu_seqlens, marks.positions, _owners(encoded)[marks.rows], marks.original)
    return reader.read(climb.logits(rung), owned)


def _owners(encoded: Encoded) -> np.ndarray:
    return np.arange(len(encoded)) if encoded.owners is None else encoded.owners


def _packed(encoded: Encoded, rows: np.ndarray) -> PackedBatch:
    sequences = encoded.sequences_of(rows)
    return pack([encoded.tokens[sequence] for sequence in sequences], rows=sequences)


def _only(batch: PackedBatch, tokens: np.ndarray) -> PackedBatch:
    """Some tokens of a batch, (n_tokens) bool, of sequences that may lose all of theirs."""
    counts = np.add.reduceat(tokens.astype(np.int64), batch.cu_seqlens[:-1])
    edges = np.concatenate([[0], np.cumsum(counts)])
    where = np.flatnonzero(tokens)
    return PackedBatch(batch.states[where], edges, batch.positions[where], batch.rows, batch.original)


def _nothing_kept(backend: SpanBackend, encoded: Encoded) -> np.ndarray:
    return np.zeros((len(encoded.tokens), backend.n_layers + 1), dtype=np.int64)
