"""The specification: one input at a time, rules applied literally. Slow on purpose; the engine must agree with it."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, log

import numpy as np

from ziggurat.data.packing import PackedBatch, pack
from ziggurat.engine.backends.stepwise import StepwiseBackend
from ziggurat.policies.prune import TokenRule
from ziggurat.policies.rules import ExitRule
from ziggurat.problems.spans import Spans


def answer_one(backend: StepwiseBackend, tokens: np.ndarray, rule: ExitRule, row: int) -> tuple[np.ndarray, int]:
    """The reading (width) of one input (length, 2) and the rung where it exits; `row` indexes per-input thresholds."""
    return answer_ladder([backend], [[tokens]], rule, row)


def answer_all(backend: StepwiseBackend, inputs: Sequence[np.ndarray], rule: ExitRule) -> tuple[np.ndarray, np.ndarray]:
    """Readings (n, width) and rungs (n) of several inputs, one at a time."""
    answers = [answer_one(backend, tokens, rule, row) for row, tokens in enumerate(inputs)]
    return np.stack([reading for reading, _ in answers]), np.array([rung for _, rung in answers])


def answer_ladder(
    backends: Sequence[StepwiseBackend], tokens: Sequence[Sequence[np.ndarray]], rule: ExitRule, row: int = 0
) -> tuple[np.ndarray, int]:
    """The same for a cascade: `tokens` has the input's sequences for each backend; `rule` covers the rungs of all.

    The rule's pruning applies to the last backend; the backends before it prune as they were trained.
    """
    history: list[np.ndarray] = []
    first = 0
    for backend, sequences in zip(backends, tokens, strict=True):
        pruning = rule.tokens if backend is backends[-1] else backend.token_rule
        walks = [_Walk(backend, sequence, pruning) for sequence in sequences]
        for layer in range(backend.n_layers + 1):
            if layer > 0:
                for walk in walks:
                    walk.layer(layer)
            if layer not in backend.rung_layers:
                continue
            rung = first + backend.rung_layers.index(layer)
            if not rule.active[rung]:
                continue
            history.append(_reading(backend, rung - first, walks))
            if rule.exits(rung, np.stack(history)[None], np.array([row]))[0]:
                return history[-1], rung
        first += len(backend.rung_layers)
    raise AssertionError("the last rung answers everything; this is a bug")


class _Walk:
    """One sequence on its way through the layers. With a reader, `notes` has the latest state of each token."""

    def __init__(self, backend: StepwiseBackend, sequence: np.ndarray, pruning: TokenRule | None) -> None:
        self.backend, self.sequence, self.pruning = backend, sequence, pruning
        ids = pack([np.ascontiguousarray(sequence[:, :2])])
        self.notes: PackedBatch | None = None if backend.reader is None else backend.embed(ids, None)
        self.live = backend.embed(ids, pruning)

    def layer(self, layer: int) -> None:
        """Runs one layer."""
        self.live = self.backend.layer(layer, self.live, self.pruning)
        if self.notes is not None:
            self.backend.put_back(self.notes, self.live)


def _reading(backend: StepwiseBackend, rung: int, walks: Sequence[_Walk]) -> np.ndarray:
    if backend.reader is None:
        return backend.logits(rung, walks[0].live)[0]
    assert isinstance(backend.reader, Spans)
    logits = [backend.logits(rung, walk.notes) for walk in walks if walk.notes is not None]
    return span_reading(logits, [walk.sequence for walk in walks], backend.reader.windows.answer)


def span_reading(logits: Sequence[np.ndarray], windows: Sequence[np.ndarray], longest: int) -> np.ndarray:
    """The reading of a question, as in `problems.spans.Spans`: logits (length, 2) of windows (length, 3) → (7) float64.

    The entropies are the largest among the windows: a question exits once all its windows are confident.
    """
    possible = [scores[tokens[:, 2] > 0] for scores, tokens in zip(logits, windows, strict=True)]
    entropies = [max(_entropy(window[:, side]) for window in possible) for side in (0, 1)]
    none = min(float(scores[0, 0]) + float(scores[0, 1]) for scores in logits)
    score, place = _best(logits, windows, longest)
    return np.array([*entropies, *place, score, none])


def _entropy(logits: np.ndarray) -> float:
    """Entropy of the softmax of n logits, over ln n."""
    if len(logits) < 2:
        return 0.0
    weights = [exp(float(logit) - float(max(logits))) for logit in logits]
    shares = [weight / sum(weights) for weight in weights]
    return -sum(share * log(share) for share in shares if share > 0) / log(len(shares))


def _best(
    logits: Sequence[np.ndarray], windows: Sequence[np.ndarray], longest: int
) -> tuple[float, tuple[int, int, int]]:
    """The largest start logit + end logit of context tokens in one window, start <= end <= start + longest."""
    found, place = float("-inf"), (0, 0, 0)
    for window, (scores, tokens) in enumerate(zip(logits, windows, strict=True)):
        context = [position for position in range(1, len(tokens)) if tokens[position, 2]]
        for start in context:
            for end in context:
                total = float(scores[start, 0]) + float(scores[end, 1])
                if start <= end <= start + longest and total > found:
                    found, place = total, (window, start, end)
    return found, place
