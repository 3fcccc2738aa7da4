"""A backend that records scores and pruned tokens of each layer, for `explain`."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ziggurat.data.packing import PackedBatch
from ziggurat.engine.backend import Backend
from ziggurat.engine.backends.stepwise import StepwiseBackend
from ziggurat.policies.prune import TokenRule


@dataclass(frozen=True, eq=False)
class PruningStep:
    """The tokens of the input before and after one layer."""

    layer: int  # 1 … L; 0 = the embedding layer, which drops tokens outside the vocabulary that is read
    entered: np.ndarray  # (n) int64: positions of the tokens before the layer
    left_over: np.ndarray  # (m ≤ n) int64: positions of the tokens after it
    scores: np.ndarray | None = None  # (n) in the rule's scale; None = no pruning at this layer
    value: float | None = None  # the rule's value at this layer, with which scores are compared


class RecordingBackend(StepwiseBackend):
    """Runs another backend's layers step by step, one sequence at a time. Each `embed` begins a new record."""

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
        self.steps: list[PruningStep] = []  # of the embedding layer, then of the layers that ran
        self.answers: list[tuple[int, np.ndarray]] = []  # active rungs so far and their logits (n_classes)

    @property
    def threads(self) -> int:
        """CPU threads of the other backend."""
        return self._backend.threads

    def embed(self, batch: PackedBatch, tokens: TokenRule | None = None) -> PackedBatch:
        """As the other backend. ValueError for more than one sequence."""
        if batch.n_seqs != 1:
            raise ValueError(f"one input at a time can be recorded, not {batch.n_seqs}")
        read = self._backend.embed(batch, tokens)
        self.steps, self.answers = [PruningStep(0, batch.positions, read.positions)], []
        return read

    def layer(self, layer: int, batch: PackedBatch, tokens: TokenRule | None = None) -> PackedBatch:
        """As the other backend; records the rule's value and scores."""
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
    """The same rule; each call appends its value and scores (n_tokens) to `notes`."""

    def keep(value: float, scores: np.ndarray, batch: PackedBatch) -> np.ndarray:
        notes.append((value, scores.copy()))
        return rule.keep(value, scores, batch)

    return replace(rule, keep=keep)
