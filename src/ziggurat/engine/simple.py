"""The specification: one input at a time, the rules as they are said. Slow on purpose; the runners must equal it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ziggurat.data.packing import pack
from ziggurat.engine.backend import Backend
from ziggurat.engine.rules import ExitRule


def answer_one(backend: Backend, tokens: np.ndarray, rule: ExitRule, row: int) -> tuple[np.ndarray, int]:
    """The logits (n_classes) of one input (length, 2) and the rung that gave them; `row` finds its own threshold."""
    return answer_ladder([backend], [tokens], rule, row)


def answer_ladder(
    backends: Sequence[Backend], tokens: Sequence[np.ndarray], rule: ExitRule, row: int
) -> tuple[np.ndarray, int]:
    """The same of a cascade: each backend reads its own tokens of the input, and `rule` counts all their rungs.

    The rule prunes in the last one; those before prune as they were trained.
    """
    heard: list[np.ndarray] = []
    first = 0
    for backend, mine in zip(backends, tokens, strict=True):
        pruning = rule.tokens if backend is backends[-1] else backend.token_rule
        batch = backend.embed(pack([mine]), pruning)
        for layer in range(backend.n_layers + 1):
            if layer > 0:
                batch = backend.layer(layer, batch, pruning)
            if layer not in backend.rung_layers:
                continue
            rung = first + backend.rung_layers.index(layer)
            if not rule.asked[rung]:
                continue
            heard.append(backend.logits(rung - first, batch)[0])
            if rule.leaves(rung, np.stack(heard)[None], np.array([row]))[0]:
                return heard[-1], rung
        first += len(backend.rung_layers)
    raise AssertionError("the last rung answers everything; this is a bug")


def answer_all(backend: Backend, inputs: Sequence[np.ndarray], rule: ExitRule) -> tuple[np.ndarray, np.ndarray]:
    """Logits (n, n_classes) and rungs (n) of several inputs, one after the other."""
    answers = [answer_one(backend, tokens, rule, row) for row, tokens in enumerate(inputs)]
    return np.stack([logits for logits, _ in answers]), np.array([rung for _, rung in answers])
