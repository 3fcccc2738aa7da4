"""Layer by layer, with decisions in numpy: the specification of `advance`, for whatever can run single layers."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from ziggurat.data.packing import PackedBatch, cumulate, join, slots_in
from ziggurat.engine.backend import AllRungs, Finished, Reader
from ziggurat.policies.prune import TokenRule
from ziggurat.policies.rules import ExitRule


@dataclass(eq=False)
class StepwiseWork:
    """Inputs under way. `advance` takes the work that it is given over, and changes it."""

    layers: int  # that have run; -1 = not even the embedding layer
    rows: np.ndarray  # (n) int64, as in `engine.backend.Work`, and so the next three
    history: Any  # (n, active rungs so far, width), where the backend decides
    seconds: np.ndarray
    token_counts: np.ndarray
    live: PackedBatch | None  # states (n_tokens, d) of tokens that are left, before the embedding layer token tables;
    #   None = every active rung has been active
    batches: np.ndarray | None = None  # (n_batches + 1) int64: where joined batches begin among the sequences
    whole: PackedBatch | None = None  # with a reader: all tokens, the pruned ones with their last states
    marks: PackedBatch | None = None  # with a reader: the third column of the token tables (n_tokens)

    def take(self, keep: np.ndarray) -> Self:
        """Only the inputs where `keep` (n) bool is true: the others are dropped."""
        if keep.all():
            return self
        sequences = self.of_sequences(keep)
        live, whole, marks = (
            None if part is None else part.take_sequences(sequences) for part in (self.live, self.whole, self.marks)
        )
        columns = {"rows": self.rows[keep], "seconds": self.seconds[keep], "token_counts": self.token_counts[sequences]}
        history = self.history[np.flatnonzero(keep)]
        return replace(self, history=history, live=live, batches=None, whole=whole, marks=marks, **columns)

    def emptied(self) -> Self:
        """The same without any input."""
        self.rows, self.history, self.seconds, self.token_counts = (
            self.rows[:0],
            self.history[:0],
            self.seconds[:0],
            self.token_counts[:0],
        )
        self.live = self.whole = self.marks = self.batches = None
        return self

    def host_history(self) -> np.ndarray:
        """The history as a numpy array."""
        history: np.ndarray = self.history.cpu().numpy() if hasattr(self.history, "cpu") else self.history
        return history

    def of_sequences(self, of_inputs: np.ndarray) -> np.ndarray:
        """One value for each input, (n), as one for each of its sequences, (s)."""
        if self.live is None or len(self.live.rows) == len(self.rows):
            return of_inputs
        return np.repeat(of_inputs, np.diff(np.append(first_sequences(self.live.rows), len(self.live.rows))))


def first_sequences(rows: np.ndarray) -> np.ndarray:
    """Where the sequences of each input begin, from the input of each sequence: (s) → (n)."""
    return np.flatnonzero(np.diff(rows, prepend=-1))


class StepwiseBackend(ABC):
    """A backend that runs single layers; implements `engine.backend.Backend`."""

    n_layers: int
    n_classes: int
    rung_layers: tuple[int, ...]
    engine: str
    device: str
    dtype: str
    token_rule: TokenRule | None = None
    reader: Reader | None = None
    together: int = 0

    @property
    @abstractmethod
    def threads(self) -> int:
        """Of the CPU that it uses."""

    @property
    def width(self) -> int:
        """Numbers in a reading."""
        return self.n_classes if self.reader is None else self.reader.width

    @property
    def reading_dtype(self) -> Any:
        """Of readings, numpy's."""
        return np.float32 if self.reader is None else self.reader.dtype

    @abstractmethod
    def embed(self, batch: PackedBatch, tokens: TokenRule | None = None) -> PackedBatch:
        """Token and segment ids (n_tokens, 2) → token states (n_tokens, d) of the tokens that the rule reads."""

    @abstractmethod
    def layer(self, layer: int, batch: PackedBatch, tokens: TokenRule | None = None) -> PackedBatch:
        """Token states before → after layer `layer`, 1 … L, of the tokens that the rule leaves there."""

    @abstractmethod
    def logits(self, rung: int, batch: PackedBatch) -> np.ndarray:
        """What rung `rung`, 0 … n_rungs - 1, says: (n_seqs, n_classes) float32, with a reader (n_tokens, n_classes)."""

    def put_back(self, whole: PackedBatch, live: PackedBatch) -> None:
        """Writes the states of tokens that are left of a batch, (n_left, d), into those of all, (n_tokens, d)."""
        whole.states[slots_in(whole, live)] = live.states

    def start(self, batch: PackedBatch, history: np.ndarray | None = None) -> StepwiseWork:
        """Takes token tables in; see `engine.backend.Backend`."""
        rows = batch.rows if self.reader is None else batch.rows[first_sequences(batch.rows)]
        if history is None:
            history = np.empty((len(rows), 0, self.width), dtype=self.reading_dtype)
        token_counts = np.zeros((batch.n_seqs, self.n_layers + 1), dtype=np.int64)
        return StepwiseWork(-1, rows, history, np.zeros(len(rows)), token_counts, batch)

    def join(self, works: Sequence[StepwiseWork]) -> StepwiseWork:
        """Several as one, behind one another; ValueError unless they have run as many layers."""
        if len(works) == 1:
            return works[0]
        layers = {work.layers for work in works}
        if len(layers) > 1:
            raise ValueError(f"inputs after {sorted(layers)} layers cannot go on together")
        edges = cumulate(np.array([len(work.token_counts) for work in works]))
        rows, history, seconds, token_counts = (
            self._concatenated([getattr(work, name) for work in works])
            for name in ("rows", "history", "seconds", "token_counts")
        )
        live, whole, marks = (
            self._join([getattr(work, name) for work in works]) for name in ("live", "whole", "marks")
        )
        return StepwiseWork(layers.pop(), rows, history, seconds, token_counts, live, edges, whole, marks)

    def _join(self, parts: Sequence[PackedBatch | None]) -> PackedBatch | None:
        """Batches as one; None where there are none."""
        found = [part for part in parts if part is not None]
        return join(found, self._concatenated) if found else None

    def _concatenated(self, arrays: Sequence[Any]) -> Any:
        """Arrays behind one another, of whatever kind states and readings are."""
        return np.concatenate(arrays)

    def advance(self, work: StepwiseWork, rule: ExitRule, to_layer: int) -> tuple[StepwiseWork, Finished]:
        """Runs layers up to `to_layer`, asking the rule's rungs on the way; see `engine.backend.Backend`."""
        begun, before = time.perf_counter(), work.seconds
        active, done = rule.active_in(self.rung_layers), list[Finished]()
        for layer in range(work.layers + 1, to_layer + 1):
            self.step(work, layer, rule.tokens)
            if layer not in active:
                continue
            exiting = self.ask(active[layer], work, rule)
            if exiting.any():
                work.seconds = before + (time.perf_counter() - begun)
                done.append(self.finished(work, exiting, active[layer]))
                work, before = work.take(~exiting), before[~exiting]
                if not len(work.rows):
                    break
        work.seconds = before + (time.perf_counter() - begun)
        return work, _together(done) if done else self.nothing_finished()

    def step(self, work: StepwiseWork, layer: int, tokens: TokenRule | None) -> None:
        """One layer for all inputs of a work, 0 = the embedding layer."""
        assert work.live is not None
        before = work.live
        if layer == 0 and self.reader is not None:
            work.marks = before.with_states(before.states[:, 2])
            ids = before.with_states(np.ascontiguousarray(before.states[:, :2]))
            work.whole = self.embed(ids, None)
            read = None if tokens is None else tokens.reads(ids)
            work.live = work.whole if read is None else work.whole.take_tokens(read)
        elif layer == 0:
            work.live = self.embed(before, tokens)
        else:
            work.live = self.layer(layer, before, tokens)
            if work.whole is not None and len(work.live.positions) < len(before.positions):
                gone = np.isin(slots_in(work.whole, before), slots_in(work.whole, work.live), invert=True)
                self.put_back(work.whole, _only(before, gone))
        work.layers = layer
        work.token_counts[:, layer] = work.live.lengths

    def ask(self, rung: int, work: StepwiseWork, rule: ExitRule) -> np.ndarray:
        """Adds a rung's readings to the history; which inputs exit there, (n) bool."""
        work.history = np.concatenate([work.history, self.readings(rung, work)[:, None]], axis=1)
        return rule.exits(rule.first + rung, work.history, work.rows)

    def readings(self, rung: int, work: StepwiseWork) -> np.ndarray:
        """What a rung reads of each input, (n, width)."""
        assert work.live is not None
        if self.reader is None:
            return self.logits(rung, work.live)
        assert work.whole is not None and work.marks is not None
        self.put_back(work.whole, work.live)
        return self.reader.read(self.logits(rung, work.whole), work.marks)

    def finished(self, work: StepwiseWork, exiting: np.ndarray, rung: int) -> Finished:
        """The inputs where `exiting` (n) bool is true, with the latest readings as their answers."""
        rungs = np.full(np.count_nonzero(exiting), rung, dtype=np.int64)
        token_counts = work.token_counts[work.of_sequences(exiting)]
        return Finished(work.rows[exiting], work.history[exiting, -1], rungs, work.seconds[exiting], token_counts)

    def nothing_finished(self) -> Finished:
        """Of a call in which no input has got its answer."""
        none, readings = np.zeros(0, dtype=np.int64), np.zeros((0, self.width), dtype=self.reading_dtype)
        return Finished(none, readings, none, np.zeros(0), np.zeros((0, self.n_layers + 1), dtype=np.int64))

    def all_rungs(self, batch: PackedBatch, tokens: TokenRule | None) -> AllRungs:
        """What every rung reads of a batch's inputs, in their order, without early exits. Tokens are pruned."""
        work, readings = self.start(batch), []
        for layer in range(self.n_layers + 1):
            self.step(work, layer, tokens)
            if layer in self.rung_layers:
                readings.append(self.readings(self.rung_layers.index(layer), work))
        return AllRungs(np.stack(readings, axis=1), work.token_counts)


def _together(parts: Sequence[Finished]) -> Finished:
    """Several as one, in their order."""
    if len(parts) == 1:
        return parts[0]
    names = ("rows", "readings", "rungs", "seconds", "token_counts")
    return Finished(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def _only(batch: PackedBatch, tokens: np.ndarray) -> PackedBatch:
    """Some tokens of a batch, (n_tokens) bool, of sequences that may lose all of theirs."""
    counts = np.add.reduceat(tokens.astype(np.int64), batch.cu_seqlens[:-1])
    where = np.flatnonzero(tokens)
    return PackedBatch(batch.states[where], cumulate(counts), batch.positions[where], batch.rows, batch.original)
