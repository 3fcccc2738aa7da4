"""Layer by layer, with decisions in numpy: the specification of `advance`, for backends that can run single layers."""

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
    """Unfinished inputs. `advance` changes the work that it gets."""

    layers: int  # number of layers that have run; -1 = not even the embedding layer
    rows: np.ndarray  # (n) int64; this and the next three as in `engine.backend.Work`
    history: Any  # (n, active rungs so far, width), on the device where the backend decides
    seconds: np.ndarray
    token_counts: np.ndarray
    # States (n_tokens, d) of live tokens, before the embedding layer token tables; None = all active rungs have run
    live: PackedBatch | None
    batches: np.ndarray | None = None  # (n_batches + 1) int64: where joined batches begin among the sequences
    unpruned: PackedBatch | None = None  # with a reader: all tokens; pruned ones keep their last states
    marks: PackedBatch | None = None  # with a reader: the third column of the token tables (n_tokens)

    def take(self, keep: np.ndarray) -> Self:
        """Only the inputs where `keep` (n) bool is true."""
        if keep.all():
            return self
        sequences = self.of_sequences(keep)
        live, unpruned, marks = (
            None if part is None else part.take_sequences(sequences) for part in (self.live, self.unpruned, self.marks)
        )
        columns = {"rows": self.rows[keep], "seconds": self.seconds[keep], "token_counts": self.token_counts[sequences]}
        history = self.history[np.flatnonzero(keep)]
        return replace(self, history=history, live=live, batches=None, unpruned=unpruned, marks=marks, **columns)

    def emptied(self) -> Self:
        """The same work without inputs."""
        self.rows, self.history, self.seconds, self.token_counts = (
            self.rows[:0],
            self.history[:0],
            self.seconds[:0],
            self.token_counts[:0],
        )
        self.live = self.unpruned = self.marks = self.batches = None
        return self

    def host_history(self) -> np.ndarray:
        """The history as a numpy array."""
        history: np.ndarray = self.history.cpu().numpy() if hasattr(self.history, "cpu") else self.history
        return history

    def of_sequences(self, of_inputs: np.ndarray) -> np.ndarray:
        """Repeats the value of each input, (n), for each of its sequences, (s)."""
        if self.live is None or len(self.live.rows) == len(self.rows):
            return of_inputs
        return np.repeat(of_inputs, np.diff(np.append(first_sequences(self.live.rows), len(self.live.rows))))


def first_sequences(rows: np.ndarray) -> np.ndarray:
    """Index of the first sequence of each input, from the input of each sequence: (s) → (n)."""
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
        """CPU threads that it uses."""

    @property
    def width(self) -> int:
        """Numbers in a reading."""
        return self.n_classes if self.reader is None else self.reader.width

    @property
    def reading_dtype(self) -> Any:
        """Dtype of readings, a numpy one."""
        return np.float32 if self.reader is None else self.reader.dtype

    @abstractmethod
    def embed(self, batch: PackedBatch, tokens: TokenRule | None = None) -> PackedBatch:
        """Token and segment ids (n_tokens, 2) → token states (n_tokens, d) of the tokens that the rule reads."""

    @abstractmethod
    def layer(self, layer: int, batch: PackedBatch, tokens: TokenRule | None = None) -> PackedBatch:
        """Token states before → after layer `layer`, 1 … L, of the tokens that the rule keeps there."""

    @abstractmethod
    def logits(self, rung: int, batch: PackedBatch) -> np.ndarray:
        """Logits of rung 0 … n_rungs - 1: (n_seqs, n_classes) float32, with a reader (n_tokens, n_classes)."""

    def put_back(self, unpruned: PackedBatch, live: PackedBatch) -> None:
        """Writes the states of the live tokens of a batch, (n_live, d), into the states of all, (n_tokens, d)."""
        unpruned.states[slots_in(unpruned, live)] = live.states

    def start(self, batch: PackedBatch, history: np.ndarray | None = None) -> StepwiseWork:
        """A new work from token tables; see `engine.backend.Backend`."""
        rows = batch.rows if self.reader is None else batch.rows[first_sequences(batch.rows)]
        if history is None:
            history = np.empty((len(rows), 0, self.width), dtype=self.reading_dtype)
        token_counts = np.zeros((batch.n_seqs, self.n_layers + 1), dtype=np.int64)
        return StepwiseWork(-1, rows, history, np.zeros(len(rows)), token_counts, batch)

    def join(self, works: Sequence[StepwiseWork]) -> StepwiseWork:
        """Concatenates works; ValueError unless all have run the same number of layers."""
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
        live, unpruned, marks = (
            self._join([getattr(work, name) for work in works]) for name in ("live", "unpruned", "marks")
        )
        return StepwiseWork(layers.pop(), rows, history, seconds, token_counts, live, edges, unpruned, marks)

    def _join(self, parts: Sequence[PackedBatch | None]) -> PackedBatch | None:
        """Concatenates batches; None if there are none."""
        found = [part for part in parts if part is not None]
        return join(found, self._concatenated) if found else None

    def _concatenated(self, arrays: Sequence[Any]) -> Any:
        """Concatenates arrays of states or readings, in the backend's own array type."""
        return np.concatenate(arrays)

    def advance(self, work: StepwiseWork, rule: ExitRule, to_layer: int) -> tuple[StepwiseWork, Finished]:
        """Runs layers up to `to_layer` and applies the rule at its active rungs; see `engine.backend.Backend`."""
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
        """Runs one layer for all inputs of a work; 0 = the embedding layer."""
        assert work.live is not None
        before = work.live
        if layer == 0 and self.reader is not None:
            work.marks = before.with_states(before.states[:, 2])
            ids = before.with_states(np.ascontiguousarray(before.states[:, :2]))
            work.unpruned = self.embed(ids, None)
            read = None if tokens is None else tokens.reads(ids)
            work.live = work.unpruned if read is None else work.unpruned.take_tokens(read)
        elif layer == 0:
            work.live = self.embed(before, tokens)
        else:
            work.live = self.layer(layer, before, tokens)
            if work.unpruned is not None and len(work.live.positions) < len(before.positions):
                pruned = np.isin(slots_in(work.unpruned, before), slots_in(work.unpruned, work.live), invert=True)
                self.put_back(work.unpruned, _only(before, pruned))
        work.layers = layer
        work.token_counts[:, layer] = work.live.lengths

    def ask(self, rung: int, work: StepwiseWork, rule: ExitRule) -> np.ndarray:
        """Adds a rung's readings to the history; returns which inputs exit there, (n) bool."""
        work.history = np.concatenate([work.history, self.readings(rung, work)[:, None]], axis=1)
        return rule.exits(rule.first + rung, work.history, work.rows)

    def readings(self, rung: int, work: StepwiseWork) -> np.ndarray:
        """The readings of a rung, (n, width)."""
        assert work.live is not None
        if self.reader is None:
            return self.logits(rung, work.live)
        assert work.unpruned is not None and work.marks is not None
        self.put_back(work.unpruned, work.live)
        return self.reader.read(self.logits(rung, work.unpruned), work.marks)

    def finished(self, work: StepwiseWork, exiting: np.ndarray, rung: int) -> Finished:
        """The inputs where `exiting` (n) bool is true, with the latest readings as their answers."""
        rungs = np.full(np.count_nonzero(exiting), rung, dtype=np.int64)
        token_counts = work.token_counts[work.of_sequences(exiting)]
        return Finished(work.rows[exiting], work.history[exiting, -1], rungs, work.seconds[exiting], token_counts)

    def nothing_finished(self) -> Finished:
        """The result of a call in which no input exits."""
        none, readings = np.zeros(0, dtype=np.int64), np.zeros((0, self.width), dtype=self.reading_dtype)
        return Finished(none, readings, none, np.zeros(0), np.zeros((0, self.n_layers + 1), dtype=np.int64))

    def all_rungs(self, batch: PackedBatch, tokens: TokenRule | None) -> AllRungs:
        """Readings of all rungs for a batch's inputs, in their order, without early exits, but with pruning."""
        work, readings = self.start(batch), []
        for layer in range(self.n_layers + 1):
            self.step(work, layer, tokens)
            if layer in self.rung_layers:
                readings.append(self.readings(self.rung_layers.index(layer), work))
        return AllRungs(np.stack(readings, axis=1), work.token_counts)


def _together(parts: Sequence[Finished]) -> Finished:
    """Concatenates results, in their order."""
    if len(parts) == 1:
        return parts[0]
    names = ("rows", "readings", "rungs", "seconds", "token_counts")
    return Finished(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def _only(batch: PackedBatch, tokens: np.ndarray) -> PackedBatch:
    """The chosen tokens of a batch, (n_tokens) bool; sequences may become empty."""
    counts = np.add.reduceat(tokens.astype(np.int64), batch.cu_seqlens[:-1])
    where = np.flatnonzero(tokens)
    return PackedBatch(batch.states[where], cumulate(counts), batch.positions[where], batch.rows, batch.original)
