"""`explain` of a question: the way of the window that holds its answer, and what every rung said of all of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ziggurat.data.packing import pack
from ziggurat.data.tokenizer import speakable
from ziggurat.data.windows import Windows, window_pieces
from ziggurat.engine.backends.recording import PruningStep, RecordingBackend
from ziggurat.engine.classifier import FULL, Text
from ziggurat.engine.questions import QuestionAnswerer
from ziggurat.errors import UserError
from ziggurat.explain.record import Json, decision_of, pruning_of, tokens_of, way_of
from ziggurat.policies.rules import ExitRule
from ziggurat.policies.spans import PLACE
from ziggurat.report.squad_metrics import normalised
from ziggurat.types import SpanAnswer


def question_explanation(answerer: QuestionAnswerer, text: Text, rule: ExitRule) -> Json:
    """What `explanation` says of a text, of a question about one; `text` is the question and what the window shows.

    UserError for a question without a text.
    """
    if isinstance(text, str):
        raise UserError("text: the model answers questions about texts; give the text as a second one")
    windows = answerer.encode([text[0]], [text[1]])
    outcomes = answerer.run(windows, rule)
    answer, full = (
        answerer.answers(windows, one, way)[0]
        for one, way in ((outcomes, rule), (answerer.run(windows, answerer.rule_of(FULL)), answerer.rule_of(FULL)))
    )
    window = int(outcomes.readings[0, PLACE][0])
    places = windows.places[window]
    begin, stop = (int(places[0, 0]), int(places[-1, 1])) if len(places) else (0, 0)
    steps = _steps(answerer, windows.tokens[window], rule, answer.trace.layers)
    return {
        "text": [speakable(text[0]), speakable(text[1])[begin:stop]],
        "windows": {"shown": window + 1, "of": answer.windows, "start": begin, "end": stop},
        **_said(answer),
        **way_of(answerer, rule, answer.trace, int(answerer.whole(windows)[0])),
        "full": _said(full),
        "agrees": normalised(full.text) == normalised(answer.text),
        "rungs": list(_rungs(answerer, windows, rule, answer.trace.rung)),
        "pruning": pruning_of(answerer.manifest, rule, steps),
        "tokens": tokens_of(window_pieces(answerer.tokenizer, windows, window, text[0], begin), steps),
    }


def _said(answer: SpanAnswer) -> Json:
    return {"label": answer.text, "start": answer.start, "end": answer.end}


def _steps(answerer: QuestionAnswerer, tokens: np.ndarray, rule: ExitRule, layers: int) -> Sequence[PruningStep]:
    """Where tokens of one window (length, 3) left, by as many layers as the question's windows went up together."""
    backend = RecordingBackend(answerer.backend)
    live = backend.embed(pack([np.ascontiguousarray(tokens[:, :2])]), rule.tokens)
    for layer in range(1, layers + 1):
        live = backend.layer(layer, live, rule.tokens)
    return backend.steps


def _rungs(answerer: QuestionAnswerer, windows: Windows, rule: ExitRule, last: int) -> Iterator[Json]:
    """What each rung that was asked said, and what the rule made of it."""
    readings = answerer.every_rung(windows, tokens=rule.tokens).readings
    asked = [rung for rung in range(last + 1) if rule.asked[rung]]
    for count, rung in enumerate(asked, start=1):
        text, start, end = answerer.texts(windows, readings[:, rung], np.array([rung]))[0]
        decision = decision_of(answerer, rule, rung, readings[:, asked[:count]])
        yield {**decision, "label": text, "start": start, "end": end}
