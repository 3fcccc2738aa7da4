"""Evaluates a model on labelled rows: quality, cost and speed, compared with its own full depth."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ziggurat.data.memory import RowsLike, as_rows
from ziggurat.data.sources import DEFAULT_COLUMNS, Columns
from ziggurat.data.tokenizer import Encoded
from ziggurat.encoder.flops import FLOAT_BITS, bit_operations
from ziggurat.engine.backend import Outcomes
from ziggurat.engine.opened import OpenedModel
from ziggurat.measure.evaluation import Evaluation
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
    source: RowsLike,
    operating_point: str = "balanced",
    threshold: float | None = None,
    score: str | None = None,
    columns: Columns = DEFAULT_COLUMNS,
    options: ModelOptions = ModelOptions(),
    timed_texts: int = 512,
    progress: bool = False,
    metrics: Sequence[str] | None = None,
) -> Evaluation:
    """Answers all rows adaptively and at full depth, and times both, interleaved, on `timed_texts` of them.

    Ratios are full over adaptive: larger is better. Times are medians of five rounds, without tokenisation. For
    questions a quarter as many inputs are timed. `metrics` are added to the problem's own figures; None = the task's.
    UserError for rows without labels, or with labels that the model does not have.
    """
    source = as_rows(source)
    classifier = options.open(model)
    rule = exit_rule(classifier, operating_point, threshold, score)
    names = metrics_for(classifier.manifest, source, metrics)
    rows, problem = rows_to_measure(classifier, source, columns), classifier.problem
    promise = promise_of(classifier, operating_point, threshold)
    encoded = problem.encode(classifier.tokenizer, rows.texts, rows.pairs)
    full_rule = ExitRule.full_depth(len(classifier.rungs), problem.scores[0])
    adaptive = classifier.run(encoded, rule, options.batch_size, progress)
    full = classifier.run(encoded, full_rule, options.batch_size, progress)
    predictions = classifier.predictions(encoded, adaptive), classifier.predictions(encoded, full)
    timed = encoded.take(sample(len(rows), timed_texts // problem.texts_per_input))
    flops = classifier.flops(encoded, adaptive.token_counts, rule)[np.arange(len(rows)), adaptive.rungs]
    full_flops = classifier.full_flops(encoded)
    ran = (adaptive.token_counts[encoded.edges[:-1]][:, classifier.layer_columns] > 0).sum(
        axis=1
    )  # the same for all sequences of an input
    return Evaluation(
        model=model,
        data=str(source),
        operating_point=operating_point if threshold is None else f"{rule.score} {threshold:g}",
        promise=promise,
        n=len(rows),
        windows=None if encoded.owners is None else len(encoded.tokens),
        problem=str(problem.kind),
        unit=problem.unit_of(None if promise is None else promise.criterion),
        figures=problem.beside_full(*predictions, rows.truth),
        metrics=beside_full(classifier.manifest, source, names, *predictions, rows.truth),
        flops_ratio=float(full_flops.sum() / flops.sum()),
        bops_ratio=bit_operations(int(full_flops.sum()), FLOAT_BITS, FLOAT_BITS)
        / _bops(classifier, encoded, adaptive, rule),
        mean_rungs=float((adaptive.rungs + 1).mean()),
        mean_layers=float(ran.mean()),
        exit_histogram={rung.name: int((adaptive.rungs == at).sum()) for at, rung in enumerate(classifier.rungs)},
        tokens_left=tokens_left(adaptive.token_counts[:, classifier.ladder.slices[-1].columns], encoded.lengths),
        speed=beside_full_depth(classifier, timed, (rule, full_rule), options.batch_size),
        truncated=int(encoded.truncated.sum()),
        seen_in_training=seen_in_training(model, rows),
        batch_size=options.batch_size,
        device=classifier.backend.device,
        dtype=classifier.backend.dtype,
        threads=classifier.backend.threads,
    )


def _bops(classifier: OpenedModel, encoded: Encoded, outcomes: Outcomes, rule: ExitRule) -> int:
    """Bit operations of the answers, over all tiers."""
    total = 0
    for part in classifier.ladder.slices:
        came = np.flatnonzero(outcomes.token_counts[:, part.columns.start])
        token_counts, active = outcomes.token_counts[came, part.columns], rule.active[part.rungs]
        total += part.tier.bit_operations(token_counts, encoded.lengths[came], active, part.pruning(rule.tokens))
    return total
