"""`explain`: one text's way through the model, its tokens and its rungs, as numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ziggurat.data.tokenize import Piece, speakable
from ziggurat.engine.classifier import FULL, AdaptiveClassifier, Text
from ziggurat.engine.observed import Narrowing, ObservedBackend
from ziggurat.engine.rules import ExitRule
from ziggurat.engine.tiers import places
from ziggurat.errors import UserError
from ziggurat.files import whole_file
from ziggurat.jobs.opening import ModelOptions, exit_rule
from ziggurat.jobs.prediction import said
from ziggurat.policies.exits import exit_score
from ziggurat.report.page import page

Json = dict[str, Any]


def explain(
    model: str,
    text: Text,
    operating_point: str = "balanced",
    threshold: float | None = None,
    score: str | None = None,
    options: ModelOptions = ModelOptions(),
    html: Path | None = None,
) -> Json:
    """Which tokens of a text, or pair of texts, left at which layer, and why it exited where it did, as JSON values.

    The answer is what `predict` gives the text alone. With `html` also as a page of its own. UserError for an empty
    text, for a pair where the model reads single texts or the reverse, and for an unknown operating point.
    """
    classifier = options.open(model)
    rule = exit_rule(classifier, operating_point, threshold, score)
    name = operating_point if threshold is None else f"{rule.score} {threshold:g}"
    result = {"model": model, "operating_point": name} | explanation(classifier, text, rule)
    if html is not None:
        with whole_file(html) as path:
            path.write_bytes(page(result).encode("utf-8", "xmlcharrefreplace"))  # a path may hold what is no text
        result["html"] = str(html)
    return result


def explanation(classifier: AdaptiveClassifier, text: Text, rule: ExitRule) -> Json:
    """The same for a model that is open. `text` is what was read: U+FFFD stands for each NUL and lone surrogate.

    An infinite threshold is the string "inf" or "-inf", for JSON has none; None = there is no threshold.
    """
    _check_kind(classifier, text)
    observed = [ObservedBackend(tier.backend) for tier in classifier.tiers]
    pairs = zip(classifier.tiers, observed, strict=True)
    watched = AdaptiveClassifier([replace(tier, backend=backend) for tier, backend in pairs])
    answer, full = watched.predict([text], rule)[0], classifier.predict([text], FULL)[0]
    sides = [text] if isinstance(text, str) else list(text)
    pieces = classifier.tokenizer.pieces(*sides)
    labels, trace = classifier.manifest.labels, answer.trace
    full_flops = int(classifier.full_flops(np.array([trace.read]))[0])
    return {
        "text": [speakable(side) for side in sides] if classifier.manifest.pairs else speakable(sides[0]),
        **said(answer.label, answer.probabilities, labels),
        "layers": trace.layers,
        "of_layers": int(classifier.depths[-1]),
        "truncated": trace.truncated,
        "flops": trace.flops,
        "full_flops": full_flops,
        "flops_ratio": full_flops / trace.flops,
        "full": said(full.label, full.probabilities, labels),
        "agrees": classifier.output.same(full.label, answer.label),
        "score": rule.score,
        "larger_is_surer": exit_score(rule.score).larger_is_surer,
        "rungs": list(_rungs(classifier, rule, _said_by_rung(classifier, observed))),
        "pruning": _pruning(classifier, rule, observed[-1].narrowings),
        "tokens": _tokens(pieces, observed[-1].narrowings),
    }


def _check_kind(classifier: AdaptiveClassifier, text: Text) -> None:
    if classifier.manifest.pairs and isinstance(text, str):
        raise UserError("text: the model reads pairs of texts; give a second one")
    if not classifier.manifest.pairs and not isinstance(text, str):
        raise UserError("text: the model reads single texts; give one, in quotation marks on a command line")


def _said(classifier: AdaptiveClassifier, logits: np.ndarray) -> Json:
    """What a rung's logits (n_outputs) say."""
    output, labels = classifier.output, classifier.manifest.labels
    shares = None if output.probabilities is None else output.probabilities(logits)
    return said(output.label(output.predictions(logits), labels), shares, labels)


def _said_by_rung(classifier: AdaptiveClassifier, observed: Sequence[ObservedBackend]) -> list[tuple[int, np.ndarray]]:
    """The rungs that were asked, counted over all tiers, and their logits."""
    both = zip(places(classifier.tiers), observed, strict=True)
    return [(place.rungs.start + rung, said) for place, backend in both for rung, said in backend.said]


def _rungs(classifier: AdaptiveClassifier, rule: ExitRule, said: list[tuple[int, np.ndarray]]) -> Iterator[Json]:
    """What each rung that was asked said, and what the rule made of it."""
    thresholds = np.append(np.atleast_2d(rule.thresholds)[0], np.nan)  # the last rung answers whatever it says
    history = np.empty((1, 0, classifier.backend.n_classes), dtype=np.float32)
    for rung, logits in said:
        history = np.concatenate([history, logits[None, None]], axis=1)
        yield {
            "layer": classifier.rungs[rung].layer,
            "rung": classifier.rungs[rung].name,
            "score": _number(float(rule.values(rung, history)[0])),
            "threshold": _number(thresholds[rung]),
            "temperature": None if rule.temperatures is None else float(rule.temperatures[rung]),
            "leaves": bool(rule.leaves(rung, history, np.zeros(1, dtype=np.int64))[0]),
            **_said(classifier, logits),
        }


def _pruning(classifier: AdaptiveClassifier, rule: ExitRule, narrowings: list[Narrowing]) -> Json | None:
    """The pruning rule and its value at each layer that ran; None = this call prunes nothing."""
    config = classifier.manifest.pruning
    if rule.tokens is None or config is None:
        return None
    values = {str(step.layer): _number(step.value) for step in narrowings[1:]}
    return {"kind": config.kind, "score": config.score, "scale": config.scale, "thresholds": values}


def _tokens(pieces: list[Piece], narrowings: list[Narrowing]) -> list[Json]:
    """Every token with its place, where it left (0 = it was not read, None = it stayed) and its scores on the way."""
    left_at: dict[int, int] = {}
    scores: list[list[Json]] = [[] for _ in pieces]
    for step in narrowings:
        left_at |= {int(position): step.layer for position in np.setdiff1d(step.entered, step.left_over)}
        if step.scores is not None:
            threshold = _number(step.value)
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


def _number(value: float | None) -> float | str | None:
    """As JSON: NaN and None are None, infinity is a string."""
    if value is None or math.isnan(value):
        return None
    return str(float(value)) if math.isinf(value) else float(value)
