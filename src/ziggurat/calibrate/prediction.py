"""`predict`: texts in, one JSON object per text out."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ziggurat.calibrate.watching import Monitor, read_state
from ziggurat.data.dataset import load
from ziggurat.data.sources import DEFAULT_COLUMNS, NULL, Columns, Rows, log_blank
from ziggurat.engine.opened import OpenedModel, Text
from ziggurat.errors import UserError
from ziggurat.files import whole_file
from ziggurat.measure.subject import ModelOptions, check_pairs, exit_rule, promise_of
from ziggurat.measure.targets import require_result
from ziggurat.problems.answers import Answers
from ziggurat.problems.problem import Problem
from ziggurat.system import json_text

_TABLES = (".csv", ".tsv", ".parquet")  # whose readers would not understand JSON lines


def predict(
    model: str,
    texts: Sequence[Text] | None = None,
    source: str | None = None,
    operating_point: str = "balanced",
    threshold: float | None = None,
    score: str | None = None,
    columns: Columns = DEFAULT_COLUMNS,
    options: ModelOptions = ModelOptions(),
    out: Path | None = None,
    progress: bool = False,
    watch: Path | None = None,
) -> list[dict[str, Any]]:
    """Answers given texts, or the rows of a source, in their order; with `out` also as a JSONL file.

    Rows that cannot be read are an error before any work, or as `columns.on_error` says left out, or given a label
    that is None and an `error` that says why; their number is logged. `watch` is the file of a monitor's state, from
    call to call; its alarms are logged as warnings.
    """
    _refuse_targets(model, source, out, watch)
    classifier = options.open(model)
    rule = exit_rule(classifier, operating_point, threshold, score)
    promise = promise_of(classifier, operating_point, threshold)
    if promise is not None and promise["broken"]:
        logging.getLogger(__name__).warning(promise["broken"])
    rows = _given(texts, classifier) if texts is not None else _read(str(source), classifier, columns)
    inputs = list(rows.texts) if rows.pairs is None else list(zip(rows.texts, rows.pairs, strict=True))
    if watch is None:
        point = rule if threshold is not None else operating_point
        size = options.batch_size if options.batch_given else None
        answers = classifier.answer(inputs, point, size, progress)
    else:
        if threshold is not None:
            raise UserError("--watch goes with an operating point, not with --threshold")
        answers = _watched(classifier, operating_point, inputs, options.batch_size, watch)
    left_out = rows.left_out if columns.on_error == NULL else {}
    results = _with_nulls(list(_results(rows, answers, classifier.problem)), left_out)
    if out is not None:
        with whole_file(out) as path, path.open("w", encoding="utf-8") as file:
            file.writelines(json_text(result) + "\n" for result in results)
    return results


def _refuse_targets(model: str, source: str | None, out: Path | None, watch: Path | None) -> None:
    """UserError for files that cannot be written, or that would take the place of what is read or of each other."""
    if out is not None:
        if out.suffix in _TABLES:
            raise UserError(f"{out}: answers are written as JSON lines; name it {out.stem}.jsonl")
        require_result(out, model, source)
    if watch is not None:
        require_result(watch, model, source)
        if out is not None and watch.resolve() == out.resolve():
            raise UserError(f"{out}: --out and --watch name the same file; give each its own")


def _watched(
    classifier: OpenedModel, operating_point: str, texts: Sequence[Text], batch_size: int, path: Path
) -> Answers:
    watched = Monitor(classifier, operating_point, state=read_state(path))
    answers = watched.answer(texts, batch_size)
    watched.keep(path)
    for alarm in watched.alarms:
        logging.getLogger(__name__).warning(alarm)
    return answers


def _read(source: str, classifier: OpenedModel, columns: Columns) -> Rows:
    rows = load(source, replace(columns, label=None), problem=classifier.problem.kind)
    check_pairs(classifier, rows)
    return rows


def _given(texts: Sequence[Text], classifier: OpenedModel) -> Rows:
    """UserError for single texts where the model reads pairs, or the reverse."""
    single = [isinstance(text, str) for text in texts]
    if classifier.manifest.pairs and any(single):
        raise UserError(f"the model reads {classifier.problem.pair}; give the second text with --text-pair, or --data")
    if not classifier.manifest.pairs and not all(single):
        raise UserError("the model reads single texts; leave out the second one (--text-pair)")
    firsts = [text if isinstance(text, str) else text[0] for text in texts]
    seconds = [text[1] for text in texts] if classifier.manifest.pairs else None
    rows = Rows(firsts, seconds, None, "given texts", ids=[str(number) for number in range(1, len(texts) + 1)])
    log_blank(rows)
    return rows


def _with_nulls(results: list[dict[str, Any]], left_out: Mapping[int, str]) -> list[dict[str, Any]]:
    """The results with one that has no label in the place of each row that could not be read."""
    answered = iter(results)
    return [
        {"text": None, "label": None, "error": left_out[row]} if row in left_out else next(answered)
        for row in range(len(results) + len(left_out))
    ]


def _results(rows: Rows, answers: Answers, problem: Problem) -> Iterator[dict[str, Any]]:
    for row, answer in enumerate(answers):
        pair = None if rows.pairs is None else rows.pairs[row]
        trace = answer.trace
        yield {
            **problem.input_fields(rows.texts[row], pair, None if rows.ids is None else rows.ids[row]),
            **problem.answer_fields(answer),
            "layers": trace.layers,
            "tokens": trace.read,
            "tokens_left": trace.tokens[-1] if trace.tokens else trace.read,
            "flops": trace.flops,
            "microseconds": round(trace.microseconds, 1),
            "truncated": trace.truncated,
        }
