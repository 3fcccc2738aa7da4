"""Answers of given texts, or of the rows of a file, with what each cost."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ziggurat.calibrate.watching import Monitor, read_state
from ziggurat.data.dataset import load
from ziggurat.data.memory import RowsLike, as_rows
from ziggurat.data.sources import DEFAULT_COLUMNS, NULL, Columns, Rows, log_blank
from ziggurat.data.tables import Source
from ziggurat.engine.opened import OpenedModel, Text
from ziggurat.errors import UserError
from ziggurat.files import whole_file
from ziggurat.measure.subject import ModelOptions, check_pairs, exit_rule, promise_of
from ziggurat.measure.targets import check_result_path
from ziggurat.problems.answers import Answers
from ziggurat.problems.problem import Problem
from ziggurat.system import json_text
from ziggurat.types import Answer, SpanAnswer

_TABLES = (".csv", ".tsv", ".parquet")  # whose readers would not understand JSON lines


@dataclass(frozen=True)
class Prediction:
    """One input with its answer. A row that could not be read has neither text nor answer, but an error."""

    text: str | tuple[str, str] | None  # the input; of a question the question alone
    answer: Answer | SpanAnswer | None
    fields: Mapping[str, Any]  # input and answer as JSON values, as the model's problem has them
    error: str | None = None  # why the row could not be read

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        if self.answer is None:
            return dict(self.fields) | {"error": self.error}
        trace = self.answer.trace
        return dict(self.fields) | {
            "layers": trace.layers,
            "tokens": trace.read,
            "tokens_left": trace.tokens[-1] if trace.tokens else trace.read,
            "flops": trace.flops,
            "microseconds": round(trace.microseconds, 1),
            "truncated": trace.truncated,
        }


@dataclass(frozen=True)
class Predictions:
    """All answers of one call, in the order of the inputs."""

    answers: tuple[Prediction, ...]
    out: Path | None = None  # file that they were written to

    def to_dict(self) -> dict[str, Any]:
        """As JSON values; where there is a file its name, and how many it has."""
        if self.out is not None:
            return {"out": str(self.out), "n": len(self.answers)}
        return {"answers": [answer.to_dict() for answer in self.answers]}


def predict(
    model: str,
    texts: Sequence[Text] | None = None,
    source: RowsLike | None = None,
    operating_point: str = "balanced",
    threshold: float | None = None,
    score: str | None = None,
    columns: Columns = DEFAULT_COLUMNS,
    options: ModelOptions = ModelOptions(),
    out: Path | None = None,
    progress: bool = False,
    watch: Path | None = None,
) -> Predictions:
    """Answers given texts, or the rows of a source, in their order; with `out` also as a JSONL file.

    Rows that cannot be read are an error before any work, or as `columns.on_error` says left out, or given a label
    that is None and an `error` that says why; their number is logged. `watch` is the file of a monitor's state, from
    call to call; its alarms are logged as warnings.
    """
    source = None if source is None else as_rows(source)
    _refuse_targets(model, source, out, watch)
    classifier = options.open(model)
    rule = exit_rule(classifier, operating_point, threshold, score)
    promise = promise_of(classifier, operating_point, threshold)
    if promise is not None and promise.broken:
        logging.getLogger(__name__).warning(promise.broken)
    rows = _given(texts, classifier) if texts is not None else _read(source, classifier, columns)
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
    results = _with_nulls(_results(rows, answers, classifier.problem), len(inputs), left_out)
    if out is not None:
        with whole_file(out) as path, path.open("w", encoding="utf-8") as file:
            file.writelines(json_text(result.to_dict()) + "\n" for result in results)
    return Predictions(tuple(results), out)


def _refuse_targets(model: str, source: Source | None, out: Path | None, watch: Path | None) -> None:
    """UserError for files that cannot be written, or that would take the place of what is read or of each other."""
    if out is not None:
        if out.suffix in _TABLES:
            raise UserError(f"{out}: answers are written as JSON lines; name it {out.stem}.jsonl")
        check_result_path(out, model, source)
    if watch is not None:
        check_result_path(watch, model, source)
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


def _read(source: Source | None, classifier: OpenedModel, columns: Columns) -> Rows:
    if source is None:
        raise UserError("no inputs: give texts or rows")
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


def _with_nulls(answered: Iterator[Prediction], n: int, left_out: Mapping[int, str]) -> list[Prediction]:
    """The n results, with an empty result inserted for each row that could not be read."""
    empty = {"text": None, "label": None}
    return [
        Prediction(None, None, empty, left_out[row]) if row in left_out else next(answered)
        for row in range(n + len(left_out))
    ]


def _results(rows: Rows, answers: Answers, problem: Problem) -> Iterator[Prediction]:
    for row, answer in enumerate(answers):
        text, pair = rows.texts[row], None if rows.pairs is None else rows.pairs[row]
        fields = problem.input_fields(text, pair, None if rows.ids is None else rows.ids[row])
        shown = text if pair is None or isinstance(answer, SpanAnswer) else (text, pair)
        yield Prediction(shown, answer, {**fields, **problem.answer_fields(answer)})
