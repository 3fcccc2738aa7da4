"""The contract of backends, which compute layers and small models, and the records of their results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np

from ziggurat.data.encoded import Encoded
from ziggurat.data.packing import PackedBatch
from ziggurat.policies.prune import TokenRule
from ziggurat.policies.rules import ExitRule
from ziggurat.problems.problem import Reader as Reader

TOGETHER = 1 << 14  # tokens per call: enough to refill shrinking batches, few enough for a quick reaction to interrupts


@dataclass(frozen=True, eq=False)
class Outcomes:
    """Results of the inputs of a call, in the call's order."""

    readings: np.ndarray  # (n, width), of the rung that answered; NaN = no answer yet
    rungs: np.ndarray  # (n) int64: the rung that answered; -1 = no answer yet
    seconds: np.ndarray  # (n) float64, from the start of its batch to its answer, summed over the tiers that ran
    # (s, columns) int64, per sequence: tokens that entered layer 1, then tokens after each layer; one tier's columns
    # after the other's; 0 = did not run
    token_counts: np.ndarray

    @property
    def predictions(self) -> np.ndarray:
        """Class index of each input, (n), where a reading is the logits of classes."""
        return self.readings.argmax(axis=1)

    def put(self, inputs: Encoded, rows: np.ndarray, done: Finished, columns: slice, first: int) -> None:
        """Writes a tier's answers into the rows (m) of `inputs`.

        `columns` are the tier's columns of `token_counts`, `first` is its first rung in the ladder.
        """
        self.readings[rows], self.rungs[rows] = done.readings, done.rungs + first
        self.seconds[rows] += done.seconds
        self.token_counts[inputs.sequences_of(rows), columns] = done.token_counts

    def of_input(self, row: int, inputs: Encoded) -> Outcomes:
        """The outcomes of a single input."""
        rows, sequences = slice(row, row + 1), slice(*inputs.edges[row : row + 2].tolist())
        return Outcomes(self.readings[rows], self.rungs[rows], self.seconds[rows], self.token_counts[sequences])


@dataclass(frozen=True, eq=False)
class AllRungs:
    """Readings of all rungs for all inputs, without early exits."""

    readings: np.ndarray  # (n, n_rungs, width)
    token_counts: np.ndarray  # (s, columns) int64, as in Outcomes


@dataclass(frozen=True, eq=False)
class Finished:
    """Inputs that exited during one call of `Backend.advance`."""

    rows: np.ndarray  # (m) int64, of the batch
    readings: np.ndarray  # (m, width), of the rung that answered
    rungs: np.ndarray  # (m) int64, counted from the backend's first rung
    seconds: np.ndarray  # (m) float64, since the start of the batch
    token_counts: np.ndarray  # (sequences of these inputs, L + 1) int64, as in Outcomes

    def take(self, chosen: np.ndarray, sequences: np.ndarray | None = None) -> Finished:
        """The inputs that `chosen` indexes; `sequences` indexes their sequences, None = the same index."""
        counts = self.token_counts[chosen if sequences is None else sequences]
        return Finished(self.rows[chosen], self.readings[chosen], self.rungs[chosen], self.seconds[chosen], counts)


class Work(Protocol):
    """Inputs after `layers` layers of a backend, without an answer yet. Each backend has its own implementation."""

    layers: int
    rows: np.ndarray  # (n) int64: rows of the batches that it started with
    seconds: np.ndarray  # (n) float64: time so far
    token_counts: np.ndarray  # (s, L + 1) int64, as in Outcomes: of the sequences of these inputs

    def host_history(self) -> np.ndarray:
        """Readings of the active rungs so far, (n, rungs, width) in host memory; earlier tiers are included."""
        ...

    def take(self, keep: np.ndarray) -> Self:
        """Only the inputs where `keep` (n) bool is true."""
        ...


class Backend(Protocol):
    """Runs batches of inputs through one model's layers; decides which inputs exit and which tokens are pruned.

    Decisions follow `policies`, on any device. Each backend has its own kind of `Work` and accepts no other.
    """

    n_layers: int  # L; 0 = a small model without layers
    n_classes: int  # outputs of a head
    rung_layers: tuple[int, ...]  # the layer (1 … L) of each rung; the last is L
    token_rule: TokenRule | None  # the pruning that the model was trained for; None = it does not prune
    engine: str  # "native", "torch" or "numpy"
    device: str  # for result rows: "cpu", or the GPU's name
    dtype: str  # of weights and activations
    together: int  # tokens per call, in several batches; 0 = one batch at a time

    @property
    def threads(self) -> int:
        """CPU threads that it uses."""
        ...

    @property
    def width(self) -> int:
        """Numbers in a reading."""
        ...

    @property
    def reading_dtype(self) -> Any:
        """Dtype of readings, a numpy one."""
        ...

    def start(self, batch: PackedBatch, history: np.ndarray | None = None) -> Any:
        """A new work from token tables (n_tokens, 2 or 3).

        `batch.rows` gives the input of each sequence; the sequences of an input are adjacent. `history`
        (n, active rungs before, width) are readings of earlier tiers.
        """
        ...

    def advance(self, work: Any, rule: ExitRule, to_layer: int) -> tuple[Any, Finished]:
        """Runs layers up to `to_layer` and applies the rule at its active rungs: the remaining and the finished inputs.

        The backend's first rung is `rule.first` of the ladder. `rows` of the work index per-input thresholds.
        """
        ...

    def join(self, works: Sequence[Any]) -> Any:
        """Several works after the same number of layers as one, in their order; their rows must be distinct."""
        ...

    def all_rungs(self, batch: PackedBatch, tokens: TokenRule | None) -> AllRungs:
        """Readings of all rungs for a batch's inputs, in their order, without early exits: for calibration."""
        ...
