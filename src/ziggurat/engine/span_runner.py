"""Packed execution for spans: a question's windows go up together, and it leaves when the least sure of them is sure.

To an exit rule a rung says two numbers of a question, the entropies of start and end, each the largest of its windows.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ziggurat.data.packing import PackedBatch, padded_slots, slots_in
from ziggurat.data.windows import Windows
from ziggurat.engine.backend import SpanBackend
from ziggurat.engine.rules import ExitRule
from ziggurat.policies.prune import TokenRule
from ziggurat.problems.spans import best_spans, end_entropies, null_scores


@dataclass(frozen=True, eq=False)
class Spans:
    """What a rung says to questions; any number of axes (…) before the last, the first one being the question."""

    doubts: np.ndarray  # (…, 2) float64: entropies of start and end
    places: np.ndarray  # (…, 3) int64: window, first and last token of the best span
    scores: np.ndarray  # (…, 2) float64: of that span, and of there being none

    def at(self, where: Any) -> Spans:
        """Only these, by an index of the leading axes."""
        return Spans(self.doubts[where], self.places[where], self.scores[where])

    def put(self, where: Any, other: Spans) -> None:
        """Writes others into these places."""
        for mine, theirs in zip(self._parts, other._parts, strict=True):
            mine[where] = theirs

    @property
    def _parts(self) -> tuple[np.ndarray, ...]:
        return self.doubts, self.places, self.scores


@dataclass(frozen=True, eq=False)
class SpanOutcomes:
    """What became of each question of a call, in the call's order."""

    spans: Spans  # (n, …) of the rung that answered
    rungs: np.ndarray  # (n) int64
    seconds: np.ndarray  # (n) float64, from the start of its batch to its answer
    kept: np.ndarray  # (w, L + 1) int64 of windows: tokens that entered layer 1, then those that each layer left


@dataclass(frozen=True, eq=False)
class EverySpan:
    """What every rung says to every question, nobody leaving."""

    spans: Spans  # (n, n_rungs, …)
    kept: np.ndarray  # (w, L + 1) int64, as in SpanOutcomes


def no_spans(*shape: int) -> Spans:
    """Places for so many, of questions (and rungs) that nobody has asked."""
    return Spans(np.full((*shape, 2), np.nan), np.zeros((*shape, 3), dtype=np.int64), np.full((*shape, 2), np.nan))


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


def run_questions(
    backend: SpanBackend, windows: Windows, batches: Iterator[np.ndarray], rule: ExitRule, longest: int
) -> SpanOutcomes:
    """Answers all questions; `batches` are indices of questions, each of which is in one of them."""
    n = len(windows)
    done = SpanOutcomes(no_spans(n), np.full(n, -1), np.full(n, np.nan), _nothing_kept(backend, windows))
    for rows in batches:
        _run_batch(backend, windows, rows, rule, longest, done)
    return done


def _run_batch(
    backend: SpanBackend, windows: Windows, rows: np.ndarray, rule: ExitRule, longest: int, done: SpanOutcomes
) -> None:
    start = time.perf_counter()
    climb = _Climb(backend, windows.pack(rows), rule.tokens, done.kept)
    history = np.empty((len(rows), 0, 2))
    for layer in range(1, backend.n_layers + 1):
        climb.layer(layer)
        rung = backend.rung_layers.index(layer) if layer in backend.rung_layers else None
        if rung is None or not rule.asked[rung]:
            continue
        said = _Reading(climb.marks, climb.logits(rung), windows.owners)
        history = np.concatenate([history, said.doubts[:, None]], axis=1)
        leaving = rule.leaves(rung, history, rows)
        if not leaving.any():
            continue
        gone = rows[leaving]
        done.spans.put(gone, said.spans(leaving, longest))
        done.rungs[gone], done.seconds[gone] = rung, time.perf_counter() - start
        if leaving.all():
            return
        climb.take(np.isin(windows.owners[climb.marks.rows], gone, invert=True))
        rows, history = rows[~leaving], history[~leaving]


def run_every_span(
    backend: SpanBackend, windows: Windows, batches: Iterator[np.ndarray], tokens: TokenRule | None, longest: int
) -> EverySpan:
    """What every rung says to every question under a pruning rule, for `runner.replay`."""
    every = EverySpan(no_spans(len(windows), len(backend.rung_layers)), _nothing_kept(backend, windows))
    for rows in batches:
        climb = _Climb(backend, windows.pack(rows), tokens, every.kept)
        for layer in range(1, backend.n_layers + 1):
            climb.layer(layer)
            if layer in backend.rung_layers:
                rung = backend.rung_layers.index(layer)
                said = _Reading(climb.marks, climb.logits(rung), windows.owners)
                every.spans.put((rows, rung), said.spans(np.ones(len(rows), dtype=bool), longest))
    return every


class _Reading:
    """What a rung's logits (n_tokens, 2) of whole windows say of their questions, in the batch's order.

    `marks` holds 1 for each token where a span may start or end (n_tokens); `owners` are of all windows of the call.
    """

    def __init__(self, marks: PackedBatch, logits: np.ndarray, owners: np.ndarray) -> None:
        lengths = marks.lengths
        shape, slots = (marks.n_seqs, int(lengths.max())), padded_slots(lengths)
        self._grid, self._possible = np.zeros((*shape, 2), dtype=np.float32), np.zeros(shape, dtype=bool)
        self._grid.reshape(-1, 2)[slots], self._possible.ravel()[slots] = logits, marks.states > 0
        self._rows = marks.rows
        self._asked = np.cumsum(np.diff(owners[marks.rows], prepend=-1) != 0) - 1  # a question's windows stand together
        first = np.flatnonzero(np.diff(self._asked, prepend=-1))
        self.doubts = np.maximum.reduceat(end_entropies(self._grid, self._possible), first, axis=0)  # (n_questions, 2)

    def spans(self, chosen: np.ndarray, longest: int) -> Spans:
        """The best spans of some questions, (n_questions) bool."""
        windows = np.flatnonzero(chosen[self._asked])
        asked, grid, context = self._asked[windows], self._grid[windows], self._possible[windows]
        context[:, 0] = False  # the first token stands for "no answer here"
        scores, tokens = best_spans(grid, context, longest)
        first = np.flatnonzero(np.diff(asked, prepend=-1))
        edges = zip(first.tolist(), [*first[1:].tolist(), len(asked)], strict=True)
        best = np.array([begin + int(scores[begin:stop].argmax()) for begin, stop in edges], dtype=np.int64)
        places = np.concatenate([self._rows[windows[best], None], tokens[best]], axis=1)
        nulls = np.minimum.reduceat(null_scores(grid), first)
        return Spans(self.doubts[chosen], places, np.stack([scores[best], nulls], axis=1))


def _only(batch: PackedBatch, tokens: np.ndarray) -> PackedBatch:
    """Some tokens of a batch, (n_tokens) bool, of sequences that may lose all of theirs."""
    counts = np.add.reduceat(tokens.astype(np.int64), batch.cu_seqlens[:-1])
    edges = np.concatenate([[0], np.cumsum(counts)])
    where = np.flatnonzero(tokens)
    return PackedBatch(batch.states[where], edges, batch.positions[where], batch.rows, batch.original)


def _nothing_kept(backend: SpanBackend, windows: Windows) -> np.ndarray:
    return np.zeros((len(windows.tokens), backend.n_layers + 1), dtype=np.int64)
