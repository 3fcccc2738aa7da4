"""`bench` of a model of questions: what is timed, and how good its points are."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from ziggurat.data.dataset import Role
from ziggurat.data.squad import Questions, read_questions
from ziggurat.data.windows import Windows
from ziggurat.engine.classifier import FULL
from ziggurat.engine.questions import QuestionAnswerer
from ziggurat.measure.clock import flops_fields
from ziggurat.measure.subject import sample
from ziggurat.policies.rules import ExitRule
from ziggurat.report.squad_metrics import grades

Runner = Callable[[ExitRule, int], object]  # answers what is timed, in batches of this size
Judge = Callable[[str], dict[str, Any]]  # an operating point → how good it is on all rows, and what it costs


def question_parts(answerer: QuestionAnswerer, source: str, timed_questions: int) -> tuple[Windows, Runner, Judge]:
    """What is timed, how it is run, how good a point is; UserError for questions without answers."""
    rows = read_questions(source, Role.TEST)
    windows = answerer.encode(rows.texts, rows.contexts)
    timed = windows.take(sample(len(rows), timed_questions))
    return timed, partial(answerer.run, timed), partial(_quality, answerer, rows, windows)


def _quality(answerer: QuestionAnswerer, rows: Questions, windows: Windows, point: str) -> dict[str, Any]:
    """F1, exact match and FLOPs of an operating point on all questions."""
    rule = answerer.rule_of(point)
    outcomes = answerer.run(windows, rule)
    said = answerer.texts(windows, outcomes.readings, outcomes.rungs)
    exact, f1 = grades([text for text, _, _ in said], [[text for text, _ in some] for some in rows.golds])
    full = answerer.whole(windows)
    spent = (
        full if point == FULL else answerer.spent(windows, outcomes.kept, rule)[np.arange(len(rows)), outcomes.rungs]
    )
    found = {"f1": float(f1.mean()), "exact_match": float(exact.mean())}
    return {"n_accuracy": len(rows), "metric": "f1", "quality": found["f1"], **found, **flops_fields(spent, full)}
