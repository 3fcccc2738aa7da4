"""A backend that records what one input's path through the layers depended on: for `explain`."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ziggurat.data.packing import PackedBatch
from ziggurat.engine.backend import Backend
from ziggurat.engine.backends.stepwise import StepwiseBackend
from ziggurat.policies.prune import TokenRule


@dataclass(frozen=True, eq=False)
class PruningStep:
    """What one layer did to the tokens of the input."""

    layer: int  # 1 … L; 0 = the embedding layer, which leaves out tokens whose vocabulary entry is not read
    entered: np.ndarray  # (n) int64: positions of the tokens before
    left_over: np.ndarray  # (m ≤ n) int64: positions of those after
    scores: np.ndarray | None = None  # (n) in the rule's own scale; None = nothing is pruned here
    value: float | None = None  # of the rule at this layer, against which the scores stood


class RecordingBackend(StepwiseBackend):
    """Another backend's layers, one sequence at a time, step by step. Each `embed` begins a new record."""

    def __init__(self, backend: Backend) -> None:
        if not isinstance(backend, StepwiseBackend):
            raise TypeError(f"{type(backend).__name__} does not run single layers")
        self._backend = backend
        self.n_layers = backend.n_layers
        self.n_classes = backend.n_classes
        self.rung_layers = backend.rung_layers
        self.token_rule = backend.token_rule
        self.engine = backend.engine
        self.device = backend.device
        self.dtype = backend.dtype
        self.steps: list[PruningStep] = []  # the embedding layer's, then those of the layers that ran
        self.answers: list[tuple[int, np.ndarray]] = []  # the rungs that were asked, and their logits (n_classes)

    @property
    def threads(self) -> int:
        """As the other backend's."""
        return self._backend.threads

    def embed(self, batch: PackedBatch, tokens: TokenRule | None = None) -> PackedBatch:
        """As the other backend; ValueError for more than one sequence."""
        if batch.n_seqs != 1:
            raise ValueError(f"one input at a time can be recorded, not {batch.n_seqs}")
        read = self._backend.embed(batch, tokens)
        self.steps, self.answers = [PruningStep(0, batch.positions, read.positions)], []
        return read

    def layer(self, layer: int, batch: PackedBatch, tokens: TokenRule | None = None) -> PackedBatch:
        """As the other backend, with a rule that decides the same and records what it decided on."""
        notes: list[tuple[float, np.ndarray]] = []
        after = self._backend.layer(layer, batch, None if tokens is None else _noting(tokens, notes))
        value, scores = notes[0] if notes else (None, None)
        self.steps.append(PruningStep(layer, batch.positions, after.positions, scores, value))
        return after

    def logits(self, rung: int, batch: PackedBatch) -> np.ndarray:
        """As the other backend."""
        logits = self._backend.logits(rung, batch)
        self.answers.append((rung, logits[0]))
        return logits


def _noting(rule: TokenRule, notes: list[tuple[float, np.ndarray]]) -> TokenRule:
    """The same rule; whenever it is asked it writes down its value and the scores (n_tokens)."""

    def keep(value: float, scores: np.ndarray, batch: PackedBatch) -> np.ndarray:
        notes.append((value, scores.copy()))
        return rule.keep(value, scores, batch)

    return replace(rule, keep=keep)
