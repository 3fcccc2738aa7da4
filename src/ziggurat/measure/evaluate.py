"""`eval`: accuracy, cost and speed of a model on labelled rows, beside its own full depth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ziggurat.data.sources import DEFAULT_COLUMNS, Columns
from ziggurat.encoder.flops import FLOAT_BITS, bit_operations
from ziggurat.engine.backend import Outcomes
from ziggurat.engine.classifier import AdaptiveClassifier
from ziggurat.errors import UserError
from ziggurat.measure.problem_metrics import figures
from ziggurat.measure.question_rows import answers_questions
from ziggurat.measure.questions import evaluate_questions
from ziggurat.measure.subject import (
    ModelOptions,
    beside_full_depth,
    exit_rule,
    promise_of,
    rows_to_measure,
    sample,
    seen_in_training,
    tokens_left,
)
from ziggurat.measure.task_metrics import beside_full, metrics_for
from ziggurat.policies.rules import ExitRule


def evaluate(
    model: str,
    source: str,
    operating_point: str = "balanced",
    threshold: float | None = None,
    score: str | None = None,
    columns: Columns = DEFAULT_COLUMNS,
    options: ModelOptions = ModelOptions(),
    timed_texts: int = 512,
    progress: bool = False,
    metrics: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Answers all rows adaptively and at full depth, and times both on `timed_texts` of them, interleaved.

    Ratios are full over adaptive: larger is better. Times are the model's alone, without tokenisation; five rounds,
    medians. `metrics` are measured beside accuracy, None = the task's. UserError for rows without labels or with
    labels that are not the model's.
    """
    if answers_questions(model, columns):
        if metrics is not None:
            raise UserError("--metric: questions are measured by exact match and F1 alone; leave it out")
        return evaluate_questions(model, source, operating_point, threshold, options, timed_texts // 4, progress, score)
    classifier = options.open(model)
    rule = exit_rule(classifier, operating_point, threshold, score)
    names = metrics_for(classifier.manifest, source, metrics)
    rows, output = rows_to_measure(classifier, source, columns), classifier.output
    promise = promise_of(classifier, operating_point, threshold)
    encoded = classifier.tokenizer.encode(rows.texts, rows.pairs)
    full_rule = ExitRule.full_depth(len(classifier.rungs))
    adaptive = classifier.run(encoded, rule, options.batch_size, progress)
    full = classifier.run(encoded, full_rule, options.batch_size, progress)
    predictions = output.predictions(adaptive.readings), output.predictions(full.readings)
    timed = encoded.take(sample(len(rows), timed_texts))
    spent = classifier.flops(adaptive.kept, rule)[np.arange(len(rows)), adaptive.rungs]
    return {
        "model": model,
        "data": source,
        "operating_point": operating_point if threshold is None else f"{rule.score} {threshold:g}",
        "promise": promise,
        "n": len(rows),
        "problem": str(output.problem),
        "unit": output.unit_of(None if promise is None else promise["criterion"]),
        **figures(output, *predictions, rows.truth),
        "metrics": beside_full(classifier.manifest, source, names, *predictions, rows.truth),
        "flops_ratio": float(classifier.full_flops(encoded.lengths).sum() / spent.sum()),
        "bops_ratio": _full_bops(classifier, encoded.lengths) / _bops(classifier, adaptive, rule),
        **_depths(classifier, adaptive),
        "tokens_left": tokens_left(adaptive.kept[:, classifier.ladder.slices[-1].columns], encoded.lengths),
        **beside_full_depth(classifier, timed, (rule, full_rule), options.batch_size, "texts"),
        "truncated": int(encoded.truncated.sum()),
        "seen_in_training": seen_in_training(model, rows),
        "batch_size": options.batch_size,
        "device": classifier.backend.device,
        "dtype": classifier.backend.dtype,
        "threads": classifier.backend.threads,
    }


def _depths(classifier: AdaptiveClassifier, outcomes: Outcomes) -> dict[str, Any]:
    """Where inputs left."""
    rungs = outcomes.rungs
    return {
        "mean_rungs": float((rungs + 1).mean()),
        "mean_layers": float((outcomes.kept[:, classifier.layer_columns] > 0).sum(axis=1).mean()),
        "exit_histogram": {rung.name: int((rungs == index).sum()) for index, rung in enumerate(classifier.rungs)},
    }


def _full_bops(classifier: AdaptiveClassifier, lengths: np.ndarray) -> int:
    """Bit operations of the full model in FP16 (LTP 4.6)."""
    return bit_operations(int(classifier.full_flops(lengths).sum()), FLOAT_BITS, FLOAT_BITS)


def _bops(classifier: AdaptiveClassifier, outcomes: Outcomes, rule: ExitRule) -> int:
    """Bit operations that were spent by all tiers."""
    spent = 0
    for part in classifier.ladder.slices:
        read = np.flatnonzero(outcomes.kept[:, part.columns.start])
        kept, asked = outcomes.kept[read, part.columns], rule.asked[part.rungs]
        spent += part.tier.bit_operations(kept, asked, part.pruning(rule.tokens))
    return spent
