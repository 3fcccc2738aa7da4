"""`explain`: one text's way through the model, its tokens and its rungs, as numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ziggurat.calibrate.prediction import said
from ziggurat.data.tokenizer import speakable
from ziggurat.engine.backends.recording import RecordingBackend
from ziggurat.engine.classifier import FULL, AdaptiveClassifier, Text
from ziggurat.engine.questions import QuestionAnswerer
from ziggurat.errors import UserError
from ziggurat.explain.page import page
from ziggurat.explain.questions import question_explanation
from ziggurat.explain.record import Json, decision_of, pruning_of, tokens_of, way_of
from ziggurat.files import whole_file
from ziggurat.measure.question_rows import answers_questions
from ziggurat.measure.subject import ModelOptions, exit_rule
from ziggurat.measure.targets import require_result
from ziggurat.policies.rules import ExitRule
from ziggurat.system import utf8


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

    The answer is what `predict` gives the text alone; of a model of questions a question and its text are given. With
    `html` also as a page of its own. UserError for a pair where the model reads single texts or the
    reverse, for an unknown operating point, and for a page that would replace a file of the model.
    """
    if html is not None:
        require_result(html, model)
    opened = options.open_questions(model) if answers_questions(model) else options.open(model)
    rule = exit_rule(opened, operating_point, threshold, score)
    name = operating_point if threshold is None else f"{rule.score} {threshold:g}"
    told = (
        question_explanation(opened, text, rule)
        if isinstance(opened, QuestionAnswerer)
        else explanation(opened, text, rule)
    )
    result = {"model": model, "operating_point": name} | told
    if html is not None:
        with whole_file(html) as path:
            path.write_bytes(utf8(page(result)))
        result["html"] = str(html)
    return result


def explanation(classifier: AdaptiveClassifier, text: Text, rule: ExitRule) -> Json:
    """The same for a model that is open. `text` is what was read: U+FFFD stands for each lone surrogate.

    An infinite threshold is the string "inf" or "-inf", for JSON has none; None = there is no threshold.
    """
    _check_kind(classifier, text)
    observed = [RecordingBackend(tier.backend) for tier in classifier.tiers]
    pairs = zip(classifier.tiers, observed, strict=True)
    watched = AdaptiveClassifier([replace(tier, backend=backend) for tier, backend in pairs])
    answer, full = watched.predict([text], rule)[0], classifier.predict([text], FULL)[0]
    sides = [text] if isinstance(text, str) else list(text)
    # Of a cascade the tier that answered: those behind it did not read the text.
    tier, watch = [each for each in zip(classifier.tiers, observed, strict=True) if each[1].answers][-1]
    labels, trace = classifier.manifest.labels, answer.trace
    return {
        "text": [speakable(side) for side in sides] if classifier.manifest.pairs else speakable(sides[0]),
        **said(answer.label, answer.probabilities, labels),
        **way_of(classifier, rule, trace, int(classifier.full_flops(np.array([trace.read]))[0])),
        "full": said(full.label, full.probabilities, labels),
        "agrees": classifier.output.same(full.label, answer.label),
        "rungs": list(_rungs(classifier, rule, _said_by_rung(classifier, observed))),
        "pruning": pruning_of(tier.manifest, rule, watch.steps),
        "tokens": tokens_of(tier.tokenizer.pieces(*sides), watch.steps),
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


def _said_by_rung(classifier: AdaptiveClassifier, observed: Sequence[RecordingBackend]) -> list[tuple[int, np.ndarray]]:
    """The rungs that were asked, counted over all tiers, and their logits."""
    both = zip(classifier.ladder.slices, observed, strict=True)
    return [(place.rungs.start + rung, said) for place, backend in both for rung, said in backend.answers]


def _rungs(classifier: AdaptiveClassifier, rule: ExitRule, said: list[tuple[int, np.ndarray]]) -> Iterator[Json]:
    """What each rung that was asked said, and what the rule made of it."""
    history = np.empty((1, 0, classifier.backend.n_classes), dtype=np.float32)
    for rung, logits in said:
        history = np.concatenate([history, logits[None, None]], axis=1)
        yield {
            **decision_of(classifier, rule, rung, history),
            **_said(classifier, logits),
        }
