"""`predict` of a model of questions: questions and contexts in, one JSON object per question out."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ziggurat.data.dataset import Role
from ziggurat.data.squad import Questions, read_questions
from ziggurat.engine.classifier import Text
from ziggurat.errors import UserError
from ziggurat.files import whole_file
from ziggurat.measure.subject import ModelOptions, exit_rule, promise_of
from ziggurat.system import json_text
from ziggurat.types import SpanAnswer


def predict_answers(
    model: str,
    pairs: Sequence[Text] | None = None,
    source: str | None = None,
    operating_point: str = "balanced",
    threshold: float | None = None,
    options: ModelOptions = ModelOptions(),
    out: Path | None = None,
    progress: bool = False,
    score: str | None = None,
) -> list[dict[str, Any]]:
    """Answers given (question, context) pairs, or the questions of a file, in their order; with `out` also as JSONL."""
    answerer = options.open_questions(model)
    rule = exit_rule(answerer, operating_point, threshold, score)
    promise = promise_of(answerer, operating_point, threshold)
    if promise is not None and promise["broken"]:
        logging.getLogger(__name__).warning(promise["broken"])
    rows = _given(pairs) if source is None else read_questions(source, Role.TEST, answers_required=False)
    point = operating_point if threshold is None else rule
    size = options.batch_size if options.batch_given else None
    answers = answerer.predict(rows.texts, rows.contexts, point, size, progress)
    results = [_result(*one) for one in zip(rows.ids, rows.texts, answers, strict=True)]
    if out is not None:
        with whole_file(out) as path, path.open("w", encoding="utf-8") as file:
            file.writelines(json_text(result) + "\n" for result in results)
    return results


def _given(pairs: Sequence[Text] | None) -> Questions:
    if pairs is None or any(isinstance(pair, str) for pair in pairs):
        raise UserError("the model answers questions about texts; give a question and --text-pair CONTEXT, or --data")
    questions, contexts = ([pair[side] for pair in pairs] for side in (0, 1))
    ids = [str(number) for number in range(1, len(questions) + 1)]
    return Questions(ids, questions, contexts, contexts, None, Role.TEST, "given texts")


def _result(identity: str, question: str, answer: SpanAnswer) -> dict[str, Any]:
    trace = answer.trace
    return {
        "id": identity,
        "question": question,
        "answer": answer.text,
        "start": answer.start,
        "end": answer.end,
        "score": answer.score,
        "null_score": answer.null_score,
        "doubt": answer.doubt,
        "windows": answer.windows,
        "layers": trace.layers,
        "tokens": trace.read,
        "tokens_left": trace.tokens[-1],
        "flops": trace.flops,
        "microseconds": round(trace.microseconds, 1),
        "truncated": trace.truncated,
    }
