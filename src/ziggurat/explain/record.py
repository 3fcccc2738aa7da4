"""Records of how one input got its answer: what it cost, what each rung decided, where its tokens were dropped."""

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
Answered = Mapping[str, Any]  # an answer as JSON values, as its problem has it: label, probabilities, place in the text
Number = float | str | None  # JSON has no infinity: "inf", "-inf"; None = there is none


@dataclass(frozen=True)
class TokenScore:
    """How a layer that prunes saw a token."""

    layer: int  # 1 = the first
    score: float
    threshold: Number  # below which tokens are dropped


@dataclass(frozen=True)
class TokenFate:
    """One token, and where it was dropped."""

    piece: str  # as the vocabulary has it
    position: int  # in the sequence, from 0
    side: int | None  # 0 = the text, 1 = the second text; None = a special token
    start: int | None  # its characters in that text: from here …
    end: int | None  # … to before here
    left_at: int | None  # layer that dropped it; 0 = it was not read, None = it stayed
    scores: tuple[TokenScore, ...]


@dataclass(frozen=True)
class RungDecision:
    """What the rule made of a rung that it asked."""

    layer: int  # after which the rung stands
    rung: str  # its name
    score: Number  # exit score
    threshold: Number
    temperature: float | None  # that divided the logits; None = 1
    leaves: bool  # whether the input exited here
    answer: Answered  # what the rung would answer

    def to_dict(self) -> Json:
        """As JSON values; the answer's are the rung's own."""
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
    """Which window of a longer text is shown."""

    shown: int  # its number, from 1
    of: int  # windows
    start: int  # its characters in the text: from here …
    end: int  # … to before here


@dataclass(frozen=True)
class Explanation:
    """How one input got its answer."""

    text: str | tuple[str, ...]  # what was read, or the two texts of a pair; U+FFFD stands for each lone surrogate
    windows: WindowShown | None  # None = the text is not read in windows
    answer: Answered
    layers: int  # that ran
    of_layers: int  # that the model has
    truncated: bool  # the text was longer than the model reads
    flops: int  # that were spent
    full_flops: int  # of full depth
    flops_ratio: float  # full depth's over these
    score: str  # name of the exit score
    larger_is_surer: bool  # whether a larger score is a surer answer
    full: Answered  # the answer of full depth
    agrees: bool  # whether the two answers are the same
    rungs: tuple[RungDecision, ...]  # those that were asked
    pruning: PruningShown | None  # None = this call prunes nothing
    tokens: tuple[TokenFate, ...]
    model: str = ""  # as it was given
    operating_point: str = ""  # its name, or exit score and threshold
    html: Path | None = None  # page that was written

    def to_dict(self) -> Json:
        """As JSON values; the answer's are the explanation's own."""
        values = json_values(self)
        values = values | values.pop("answer") | {"rungs": [rung.to_dict() for rung in self.rungs]}
        return {key: value for key, value in values.items() if value is not None or key not in ("windows", "html")}


def decision_of(model: OpenedModel, rule: ExitRule, rung: int, history: np.ndarray, answer: Answered) -> RungDecision:
    """What the rule made of a rung, from the readings of the rungs that were asked up to it: history (1, rungs, n)."""
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
    """The pruning rule and its value at each layer that ran; None = this call prunes nothing."""
    config = manifest.pruning
    if rule.tokens is None or config is None or len(steps) < 2:  # the first is the embedding's
        return None
    values = {str(step.layer): number(step.value) for step in steps[1:]}
    return PruningShown(config.kind, config.score, config.scale, values)


def tokens_of(pieces: Sequence[Piece], steps: Sequence[PruningStep]) -> tuple[TokenFate, ...]:
    """Every token with its place, where it was dropped and its scores on the way."""
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
    """As JSON: NaN and None are None, infinity is a string."""
    if value is None or math.isnan(value):
        return None
    return str(float(value)) if math.isinf(value) else float(value)
