"""`ziggurat predict`: answers texts, or the rows of a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ziggurat.cli import options as opt
from ziggurat.cli.output import interactive, shown
from ziggurat.cli.sources import given_texts, optional_source

if TYPE_CHECKING:
    from ziggurat.serve.predict import Prediction, Predictions
    from ziggurat.types import Answer, SpanAnswer

_LONGEST = 80  # characters of a text that are shown
OnError = Annotated[
    str,
    typer.Option(
        help="What to do about rows that cannot be read (no text, broken JSON): fail before the work, skip them, or "
        "null, which writes a null in their place. With skip and null the same holds for blank texts."
    ),
]


def predict(
    model: opt.Model,
    texts: Annotated[
        list[str] | None,
        typer.Argument(metavar="[TEXT]...", help="Texts to classify, - for lines of stdin; or use --data or --task."),
    ] = None,
    data: opt.Data = None,
    task: opt.Task = None,
    data_dir: opt.DataDir = None,
    text_pair: Annotated[
        str | None, typer.Option(help="Second text of the one TEXT, for a model that reads pairs.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="JSONL file to write, one object per text.")] = None,
    watch: Annotated[
        Path | None,
        typer.Option(help="File of a monitor, kept between calls: warns when a certified point's promise breaks."),
    ] = None,
    operating_point: opt.OperatingPoint = "balanced",
    threshold: opt.Threshold = None,
    score: opt.Score = None,
    text_column: opt.TextColumn = "text",
    pair_column: opt.PairColumn = None,
    encoding: opt.Encoding = None,
    on_error: OnError = "fail",
    device: opt.Device = "auto",
    dtype: opt.Dtype = "float32",
    threads: opt.Threads = None,
    batch_size: opt.BatchSize = None,
    backend: opt.Backend = "auto",
    as_json: opt.Json = False,
) -> None:
    """Classify texts, and say what each answer cost. With --json: one object with all answers."""
    from ziggurat.serve.predict import predict as answered

    source = optional_source(data, task, data_dir)
    columns = opt.columns_of(text_column, pair_column, None, encoding, on_error, ("fail", "skip", "null"))
    options = opt.model_options(device, dtype, threads, backend, batch_size)
    exits = operating_point, threshold, score
    with shown(as_json, prediction_text) as show:
        given = given_texts(texts or [], text_pair, source)
        show(answered(model, given, source, *exits, columns, options, out, interactive(), watch))


def prediction_text(result: Predictions) -> str:
    """What people see: a line for each answer."""
    if result.out is not None:
        return f"{result.out}: {len(result.answers):,} answers"
    return "\n".join(map(_line, result.answers))


def _line(prediction: Prediction) -> str:
    answer = prediction.answer
    if answer is None:
        return f"null\t{prediction.error}"
    cut = ", cut" if answer.trace.truncated else ""
    text = prediction.text if isinstance(prediction.text, str) else " | ".join(prediction.text or ())
    text = text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
    cost = f"{answer.trace.layers} layers, {answer.trace.read} tokens{cut}"
    return f"{_answer_text(prediction, answer)}\t{cost}\t{text}"


def _answer_text(prediction: Prediction, answer: Answer | SpanAnswer) -> str:
    """A class or all labels that apply, with probabilities; a number; or a span with its place."""
    from ziggurat.types import SpanAnswer

    if isinstance(answer, SpanAnswer):
        place = f"characters {answer.start}-{answer.end}" if answer.text else "none"
        return f"{answer.text or '(no answer)'}\t{place}"
    if answer.probabilities is None:
        return f"{answer.label:.4g}"
    if isinstance(answer.label, tuple):
        shares = prediction.fields["probabilities"]
        return ", ".join(f"{label} {shares[str(label)]:.3f}" for label in answer.label) or "no label"
    return f"{answer.label}\t{answer.probabilities.max():.3f}"
