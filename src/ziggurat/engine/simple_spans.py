"""The specification for spans: one window at a time, the rules as they are said. Slow on purpose."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, log

import numpy as np

from ziggurat.data.packing import pack
from ziggurat.engine.backend import SpanBackend
from ziggurat.engine.rules import ExitRule


def answer_question(
    backend: SpanBackend, windows: Sequence[np.ndarray], rule: ExitRule, longest: int, row: int = 0
) -> tuple[tuple[int, int, int], tuple[float, float], int]:
    """One question's windows (length, 3) → (window, first token, last token), (its score, that of no answer), rung.

    Each window climbs alone; after each layer, every token that is still there notes its state. Heads read the notes.
    """
    ids = [pack([np.ascontiguousarray(tokens[:, :2])]) for tokens in windows]
    notes = [backend.embed(one, None) for one in ids]
    live = [backend.embed(one, rule.tokens) for one in ids]
    heard: list[tuple[float, float]] = []
    for layer in range(1, backend.n_layers + 1):
        live = [backend.layer(layer, one, rule.tokens) for one in live]
        for note, one in zip(notes, live, strict=True):
            backend.put_back(note, one)
        if layer not in backend.rung_layers or not rule.asked[backend.rung_layers.index(layer)]:
            continue
        rung = backend.rung_layers.index(layer)
        logits = [backend.logits(rung, note) for note in notes]
        possible = [said[tokens[:, 2] > 0] for said, tokens in zip(logits, windows, strict=True)]
        heard.append((max(_entropy(one[:, 0]) for one in possible), max(_entropy(one[:, 1]) for one in possible)))
        if rule.leaves(rung, np.array([heard]), np.array([row]))[0]:
            none = min(float(said[0, 0]) + float(said[0, 1]) for said in logits)
            score, place = _best(logits, windows, longest)
            return place, (score, none), rung
    raise AssertionError("the last rung answers everything; this is a bug")


def _entropy(logits: np.ndarray) -> float:
    """Of the softmax of n logits, over ln n."""
    if len(logits) < 2:
        return 0.0
    weights = [exp(float(one) - float(max(logits))) for one in logits]
    shares = [weight / sum(weights) for weight in weights]
    return -sum(share * log(share) for share in shares if share > 0) / log(len(shares))


def _best(
    logits: Sequence[np.ndarray], windows: Sequence[np.ndarray], longest: int
) -> tuple[float, tuple[int, int, int]]:
    """The largest start logit + end logit of context tokens in one window, start <= end <= start + longest."""
    found, place = float("-inf"), (0, 0, 0)
    for window, (said, tokens) in enumerate(zip(logits, windows, strict=True)):
        context = [position for position in range(1, len(tokens)) if tokens[position, 2]]
        for start in context:
            for end in context:
                total = float(said[start, 0]) + float(said[end, 1])
                if start <= end <= start + longest and total > found:
                    found, place = total, (window, start, end)
    return found, place
