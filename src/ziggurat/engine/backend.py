"""What an engine asks of whatever computes the layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ziggurat.data.packing import PackedBatch
from ziggurat.engine.rules import ExitRule
from ziggurat.policies.prune import TokenRule


@dataclass(frozen=True)
class Answered:
    """What became of each sequence of a call, in its order."""

    logits: np.ndarray  # (n_seqs, n_classes) float32, of the rung that answered; NaN = none has
    rungs: np.ndarray  # (n_seqs) int64, -1 = none has answered yet
    seconds: np.ndarray  # (n_seqs) float64, from the start of its batch to the answer
    kept: np.ndarray  # (n_seqs, L + 1) int64, as in `runner.Outcomes`


class Backend(Protocol):
    """Computes; decides nothing."""

    n_layers: int
    n_classes: int
    rung_layers: tuple[int, ...]  # the layer (1 … L) after which each rung stands; the last is L
    token_rule: TokenRule | None  # the pruning that the model was trained for; None = it does not prune
    engine: str  # "native" or "torch"
    device: str  # what computes, for result rows: "cpu", or the GPU's name
    dtype: str  # of weights and activations

    @property
    def threads(self) -> int:
        """Of the CPU that it uses."""

    def embed(self, batch: PackedBatch, tokens: TokenRule | None) -> PackedBatch:
        """Token and segment ids (n_tokens, 2) → token states (n_tokens, d) of the tokens that the rule reads."""

    def layer(self, layer: int, batch: PackedBatch, tokens: TokenRule | None) -> PackedBatch:
        """Token states before → after layer `layer`, 1 … L, of the tokens that the rule leaves there."""

    def logits(self, rung: int, batch: PackedBatch) -> np.ndarray:
        """What rung `rung`, 0 … n_rungs - 1, says to each sequence: (n_seqs, n_classes) float32."""


class WholeForward(Backend, Protocol):
    """A backend that also runs the whole adaptive forward itself, decisions included, and faster than step by step."""

    def answer(self, batches: Sequence[PackedBatch], rule: ExitRule) -> Answered | None:
        """Runs whole inputs, token ids (n_tokens, 2), to their answers, in the order of the batches.

        None for a rule that it does not know.
        """


class SpanBackend(Backend, Protocol):
    """A backend of spans: its `logits` are of every token, (n_tokens, 2) float32, start and end."""

    def put_back(self, whole: PackedBatch, live: PackedBatch) -> None:
        """Writes the states of the tokens that are left of a batch, (n_left, d), into those of all, (n_tokens, d)."""
