"""The contract of whatever computes layers and small models, and the records that it answers with."""

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

TOGETHER = 1 << 14  # tokens of a call of several batches: few calls end with few of them, an interrupt is never far


@dataclass(frozen=True, eq=False)
class Outcomes:
    """What became of each input of a call, in the call's order."""

    readings: np.ndarray  # (n, width), of the rung that answered; NaN = none has yet
    rungs: np.ndarray  # (n) int64, -1 = none has answered yet
    seconds: np.ndarray  # (n) float64, from the start of its batch to its answer, summed over the tiers that ran
    kept: np.ndarray  # (s, columns) int64, of each sequence: tokens that entered layer 1, then those that each layer
    #   left, tier beside tier; 0 = it did not run

    @property
    def predictions(self) -> np.ndarray:
        """Class index of each input, (n), where a reading is the logits of classes."""
        return self.readings.argmax(axis=1)

    def put(self, inputs: Encoded, rows: np.ndarray, done: Finished, columns: slice, first: int) -> None:
        """Writes answers into the rows (m) of `inputs`: by a tier with these columns of `kept`, and this first rung."""
        self.readings[rows], self.rungs[rows] = done.readings, done.rungs + first
        self.seconds[rows] += done.seconds
        self.kept[inputs.sequences_of(rows), columns] = done.kept

    def of_input(self, row: int, inputs: Encoded) -> Outcomes:
        """Of one of the inputs alone."""
        one, sequences = slice(row, row + 1), slice(*inputs.edges[row : row + 2].tolist())
        return Outcomes(self.readings[one], self.rungs[one], self.seconds[one], self.kept[sequences])


@dataclass(frozen=True, eq=False)
class AllRungs:
    """What every rung reads of every input, without early exits."""

    readings: np.ndarray  # (n, n_rungs, width)
    kept: np.ndarray  # (s, columns) int64, as in Outcomes


@dataclass(frozen=True, eq=False)
class Finished:
    """Inputs of one call of `Backend.advance` that have their answer."""

    rows: np.ndarray  # (m) int64, of the batch
    readings: np.ndarray  # (m, width), of the rung that answered
    rungs: np.ndarray  # (m) int64, counted from the backend's first
    seconds: np.ndarray  # (m) float64, since the start of the batch
    kept: np.ndarray  # (sequences of these inputs, L + 1) int64, as in Outcomes

    def take(self, chosen: np.ndarray, sequences: np.ndarray | None = None) -> Finished:
        """Only some inputs, by an index of them and one of their sequences, None = the same."""
        kept = self.kept[chosen if sequences is None else sequences]
        return Finished(self.rows[chosen], self.readings[chosen], self.rungs[chosen], self.seconds[chosen], kept)


class Work(Protocol):
    """Inputs that have run `layers` layers of a backend and have no answer yet. Each backend has its own kind."""

    layers: int
    rows: np.ndarray  # (n) int64: of the batches that it began with
    seconds: np.ndarray  # (n) float64 that it took so far
    kept: np.ndarray  # (s, L + 1) int64, as in Outcomes: of the sequences of these inputs

    def host_history(self) -> np.ndarray:
        """What the asked rungs so far, those of earlier tiers included, read of each input: (n, rungs, width)."""
        ...

    def take(self, keep: np.ndarray) -> Self:
        """Only the inputs where `keep` (n) bool is true: the others are dropped."""
        ...


class Backend(Protocol):
    """Runs batches of inputs through one model's layers, decides which exit and which tokens stay.

    Decisions follow `policies`, wherever they are computed. Each backend has its own kind of `Work`, and gets no other.
    """

    n_layers: int  # L; 0 = a small model, which has none
    n_classes: int  # outputs of a head
    rung_layers: tuple[int, ...]  # the layer (1 … L) after which each rung stands; the last is L
    token_rule: TokenRule | None  # the pruning that the model was trained for; None = it does not prune
    engine: str  # "native", "torch" or "numpy"
    device: str  # what computes, for result rows: "cpu", or the GPU's name
    dtype: str  # of weights and activations
    together: int  # tokens that it takes at once, in several batches; 0 = one batch at a time

    @property
    def threads(self) -> int:
        """Of the CPU that it uses."""
        ...

    @property
    def width(self) -> int:
        """Numbers in a reading."""
        ...

    @property
    def reading_dtype(self) -> Any:
        """Of readings, numpy's."""
        ...

    def start(self, batch: PackedBatch, history: np.ndarray | None = None) -> Any:
        """Takes token tables (n_tokens, 2 or 3) in; `rows` of the batch name its inputs, which have one or more
        sequences behind one another. `history` (n, asked rungs before, width) is what earlier tiers read of them.
        """
        ...

    def advance(self, work: Any, rule: ExitRule, to_layer: int) -> tuple[Any, Finished]:
        """Runs layers up to `to_layer`, asking the rule's rungs on the way: what is left, and what has its answer.

        Rungs are counted from the rule's `first`; thresholds that differ from input to input are those at `rows`.
        """
        ...

    def join(self, works: Sequence[Any]) -> Any:
        """Several as one, after the same number of layers, in their order; no row is twice among them."""
        ...

    def all_rungs(self, batch: PackedBatch, tokens: TokenRule | None) -> AllRungs:
        """What every rung reads of a batch's inputs, in their order, without early exits: for calibration."""
        ...
