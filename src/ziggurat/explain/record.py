"""Records of how one input was answered: its cost, the decisions of rungs, and the layers that dropped tokens."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ziggurat.data.tokenizer import Piece
from ziggurat.encoder.folder import Manifest
from ziggurat.engine.backends.recording import PruningStep
from ziggurat.engine.opened import OpenedModel
from ziggurat.policies.rules import ExitRule
from ziggurat.system import json_values

Json = dict[str, Any]
Answered = Mapping[str, Any]  # JSON fields of an answer, by problem: label, probabilities, place in the text
Number = float | str | None  # "inf" and "-inf" stand for infinities, which JSON lacks; None = no number


@dataclass(frozen=True)
class TokenScore:
    """The score of a token at a layer that prunes."""

    layer: int  # 1 = the first
    score: float
    threshold: Number  # below which tokens are dropped


@dataclass(frozen=True)
class TokenFate:
    """One token, and the layer that dropped it."""

    piece: str  # as in the vocabulary
    position: int  # in the sequence, from 0
    side: int | None  # 0 = the text, 1 = the second text; None = a special token
    start: int | None  # first of its characters in that text
    end: int | None  # after its last character
    left_at: int | None  # layer that dropped it; 0 = not read, None = stayed
    scores: tuple[TokenScore, ...]


@dataclass(frozen=True)
class RungDecision:
    """The rule's decision at an evaluated rung."""

    layer: int  # of the rung
    rung: str  # its name
    score: Number  # exit score
    threshold: Number
    temperature: float | None  # divides the logits; None = 1
    leaves: bool  # whether the input exited here
    answer: Answered  # of the rung

    def to_dict(self) -> Json:
        """As JSON values; the answer's fields are merged into the top level."""
        values = json_values(self)
        return values | values.pop("answer")


@dataclass(frozen=True)
class PruningShown:
    """The pruning rule, and its value at each layer that ran."""

    kind: str
    score: str
    scale: str
    thresholds: Mapping[str, Number]  # by layer


@dataclass(frozen=True)
class WindowShown:
    """The shown window of a longer text."""

    shown: int  # its number, from 1
    of: int  # number of windows
    start: int  # first of its characters in the text
    end: int  # after its last character


@dataclass(frozen=True)
class Explanation:
    """How one input was answered."""

    text: str | tuple[str, ...]  # the input, or the two texts of a pair; U+FFFD replaces each lone surrogate
    windows: WindowShown | None  # None = texts are not read in windows
    answer: Answered
    layers: int  # number that ran
    of_layers: int  # number in the model
    truncated: bool  # the text was longer than the model reads
    flops: int  # of the answer
    full_flops: int  # of full depth
    flops_ratio: float  # full_flops / flops
    score: str  # name of the exit score
    larger_is_surer: bool  # whether a larger score means more confidence
    full: Answered  # the answer of full depth
    agrees: bool  # whether the two answers are the same
    rungs: tuple[RungDecision, ...]  # evaluated ones
    pruning: PruningShown | None  # None = this call does not prune
    tokens: tuple[TokenFate, ...]
    model: str = ""  # as the caller gave it
    operating_point: str = ""  # its name, or exit score and threshold
    html: Path | None = None  # the written page

    def to_dict(self) -> Json:
        """As JSON values; the answer's fields are merged into the top level."""
        values = json_values(self)
        values = values | values.pop("answer") | {"rungs": [rung.to_dict() for rung in self.rungs]}
        return {key: value for key, value in values.items() if value is not None or key not in ("windows", "html")}


def decision_of(model: OpenedModel, rule: ExitRule, rung: int, history: np.ndarray, answer: Answered) -> RungDecision:
    """The rule's decision at a rung; history (1, rungs, n) are the readings of the evaluated rungs up to it."""
    thresholds = np.append(np.atleast_2d(rule.thresholds)[0], np.nan)  # the last rung always answers
    return RungDecision(
        layer=model.rungs[rung].layer,
        rung=model.rungs[rung].name,
        score=number(float(rule.values(rung, history)[0])),
        threshold=number(thresholds[rung]),
        temperature=None if rule.temperatures is None else float(rule.temperatures[rung]),
        leaves=bool(rule.exits(rung, history, np.zeros(1, dtype=np.int64))[0]),
        answer=answer,
    )


def pruning_of(manifest: Manifest, rule: ExitRule, steps: Sequence[PruningStep]) -> PruningShown | None:
    """The pruning rule and its value at each layer that ran; None = this call does not prune."""
    config = manifest.pruning
    if rule.tokens is None or config is None or len(steps) < 2:  # the first step is the embedding
        return None
    values = {str(step.layer): number(step.value) for step in steps[1:]}
    return PruningShown(config.kind, config.score, config.scale, values)


def tokens_of(pieces: Sequence[Piece], steps: Sequence[PruningStep]) -> tuple[TokenFate, ...]:
    """All tokens with their positions, scores, and the layers that dropped them."""
    left_at: dict[int, int] = {}
    scores: list[list[TokenScore]] = [[] for _ in pieces]
    for step in steps:
        left_at |= {int(position): step.layer for position in np.setdiff1d(step.entered, step.left_over)}
        if step.scores is not None:
            threshold = number(step.value)
            for position, value in zip(step.entered, step.scores, strict=True):
                scores[position].append(TokenScore(step.layer, float(value), threshold))
    return tuple(
        TokenFate(
            piece=piece.string,
            position=position,
            side=piece.side,
            start=None if piece.side is None else piece.start,
            end=None if piece.side is None else piece.end,
            left_at=left_at.get(position),
            scores=tuple(scores[position]),
        )
        for position, piece in enumerate(pieces)
    )


def number(value: float | None) -> Number:
    """JSON value of a number: NaN and None become None, infinity becomes a string."""
    if value is None or math.isnan(value):
        return None
    return str(float(value)) if math.isinf(value) else float(value)
