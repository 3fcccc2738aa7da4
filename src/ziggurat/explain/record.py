"""One input's way through layers as JSON values: what it cost, and where its tokens left."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ziggurat.data.tokenizer import Piece
from ziggurat.encoder.folder import Manifest
from ziggurat.engine.backends.recording import PruningStep
from ziggurat.engine.opened import OpenedModel
from ziggurat.policies.exits import exit_score
from ziggurat.policies.rules import ExitRule
from ziggurat.types import Trace

Json = dict[str, Any]


def way_of(model: OpenedModel, rule: ExitRule, trace: Trace, full_flops: int) -> Json:
    """How deep it went, what that cost beside full depth, and by which score."""
    return {
        "layers": trace.layers,
        "of_layers": int(model.depths[-1]),
        "truncated": trace.truncated,
        "flops": trace.flops,
        "full_flops": full_flops,
        "flops_ratio": full_flops / trace.flops,
        "score": rule.score,
        "larger_is_surer": exit_score(rule.score).larger_is_surer,
    }


def decision_of(model: OpenedModel, rule: ExitRule, rung: int, history: np.ndarray) -> Json:
    """What the rule made of what the asked rungs up to this one said: history (1, rungs seen, n)."""
    thresholds = np.append(np.atleast_2d(rule.thresholds)[0], np.nan)  # the last rung answers whatever it says
    return {
        "layer": model.rungs[rung].layer,
        "rung": model.rungs[rung].name,
        "score": number(float(rule.values(rung, history)[0])),
        "threshold": number(thresholds[rung]),
        "temperature": None if rule.temperatures is None else float(rule.temperatures[rung]),
        "leaves": bool(rule.leaves(rung, history, np.zeros(1, dtype=np.int64))[0]),
    }


def pruning_of(manifest: Manifest, rule: ExitRule, steps: Sequence[PruningStep]) -> Json | None:
    """The pruning rule and its value at each layer that ran; None = this call prunes nothing."""
    config = manifest.pruning
    if rule.tokens is None or config is None or len(steps) < 2:  # the first is the embedding's
        return None
    values = {str(step.layer): number(step.value) for step in steps[1:]}
    return {"kind": config.kind, "score": config.score, "scale": config.scale, "thresholds": values}


def tokens_of(pieces: Sequence[Piece], steps: Sequence[PruningStep]) -> list[Json]:
    """Every token with its place, where it left (0 = it was not read, None = it stayed) and its scores on the way."""
    left_at: dict[int, int] = {}
    scores: list[list[Json]] = [[] for _ in pieces]
    for step in steps:
        left_at |= {int(position): step.layer for position in np.setdiff1d(step.entered, step.left_over)}
        if step.scores is not None:
            threshold = number(step.value)
            for position, value in zip(step.entered, step.scores, strict=True):
                scores[position].append({"layer": step.layer, "score": float(value), "threshold": threshold})
    return [
        {
            "piece": piece.string,
            "position": position,
            "side": piece.side,
            "start": None if piece.side is None else piece.start,
            "end": None if piece.side is None else piece.end,
            "left_at": left_at.get(position),
            "scores": scores[position],
        }
        for position, piece in enumerate(pieces)
    ]


def number(value: float | None) -> float | str | None:
    """As JSON: NaN and None are None, infinity is a string."""
    if value is None or math.isnan(value):
        return None
    return str(float(value)) if math.isinf(value) else float(value)
