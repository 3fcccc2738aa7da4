"""`eval` of a model of questions: exact match, F1, cost and speed, beside its own full depth."""

from __future__ import annotations

from typing import Any

import numpy as np

from ziggurat.data.dataset import Role
from ziggurat.data.squad import Questions, read_questions
from ziggurat.data.windows import Windows
from ziggurat.engine.backend import Outcomes
from ziggurat.engine.questions import QuestionAnswerer
from ziggurat.measure.subject import (
    ModelOptions,
    beside_full_depth,
    exit_rule,
    promise_of,
    sample,
    seen_in_training,
    tokens_left,
)
from ziggurat.policies.rules import ExitRule
from ziggurat.report.metrics import accuracy_interval
from ziggurat.report.squad_metrics import grades, normalised
from ziggurat.types import Problem


def evaluate_questions(
    model: str,
    source: str,
    operating_point: str = "balanced",
    threshold: float | None = None,
    options: ModelOptions = ModelOptions(),
    timed_questions: int = 128,
    progress: bool = False,
    score: str | None = None,
) -> dict[str, Any]:
    """Answers all questions adaptively and at full depth, and times both on some of them, interleaved.

    Ratios are full over adaptive: larger is better. Times are the model's alone, without tokenisation; five rounds,
    medians. EM and F1 are those of SQuAD's official scripts. UserError for questions without answers.
    """
    answerer = options.open_questions(model)
    rule = exit_rule(answerer, operating_point, threshold, score)
    rows = read_questions(source, Role.TEST)
    windows = answerer.encode(rows.texts, rows.contexts)
    full_rule = ExitRule.full_depth(len(answerer.rungs))
    adaptive, full = (answerer.run(windows, one, options.batch_size, progress) for one in (rule, full_rule))
    spent = answerer.spent(windows, adaptive.kept, rule)[np.arange(len(rows)), adaptive.rungs]
    timed = windows.take(sample(len(rows), timed_questions))
    return {
        "model": model,
        "data": source,
        "problem": str(Problem.QUESTION_ANSWERING),
        "operating_point": operating_point if threshold is None else f"{rule.score} {threshold:g}",
        "promise": promise_of(answerer, operating_point, threshold),
        "n": len(rows),
        "windows": len(windows.tokens),
        **_grades(answerer, windows, adaptive, full, rows),
        "flops_ratio": float(answerer.whole(windows).sum() / spent.sum()),
        "mean_layers": float(answerer.depths[adaptive.rungs].mean()),
        "exit_histogram": {
            rung.name: int((adaptive.rungs == index).sum()) for index, rung in enumerate(answerer.rungs)
        },
        "tokens_left": tokens_left(adaptive.kept, windows.lengths),
        **beside_full_depth(answerer, timed, (rule, full_rule), options.batch_size, "questions"),
        "truncated": int(windows.truncated.sum()),
        "seen_in_training": seen_in_training(model, rows),
        "batch_size": options.batch_size,
        "device": answerer.backend.device,
        "dtype": answerer.backend.dtype,
        "threads": answerer.backend.threads,
    }


def _grades(
    answerer: QuestionAnswerer, windows: Windows, adaptive: Outcomes, full: Outcomes, rows: Questions
) -> dict[str, float | None]:
    golds = [[text for text, _ in some] for some in rows.golds]
    mine, whole = (
        [text for text, _, _ in answerer.texts(windows, one.readings, one.rungs)] for one in (adaptive, full)
    )
    (exact, f1), (full_exact, full_f1) = (grades(texts, golds) for texts in (mine, whole))
    low, high = accuracy_interval(int(exact.sum()), len(rows))
    same = [normalised(one) == normalised(other) for one, other in zip(mine, whole, strict=True)]
    found: dict[str, float | None] = {
        "exact_match": float(exact.mean()),
        "exact_match_low": low,
        "exact_match_high": high,
        "f1": float(f1.mean()),
        "full_exact_match": float(full_exact.mean()),
        "full_f1": float(full_f1.mean()),
        "agreement": float(np.mean(same)),
    }
    answerable = np.array([bool(some) for some in golds])
    if not answerable.all():
        found |= {"f1_answerable": float(f1[answerable].mean()) if answerable.any() else None}
        found |= {"f1_unanswerable": float(f1[~answerable].mean())}
    return found
