"""`ziggurat predict`: answers texts, or the rows of a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ziggurat.cli import options as opt
from ziggurat.cli.output import Values, interactive, shown
from ziggurat.cli.sources import given_texts, optional_source

OnError = Annotated[
    str,
    typer.Option(
        help="Rows that cannot be read (no text, broken JSON): fail before the work, skip them, or null: a null in "
        "their place. A blank text is answered like any other unless they are skipped or null."
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
    from ziggurat.calibrate.prediction import predict as answered

    source = optional_source(data, task, data_dir)
    columns = opt.columns_of(text_column, pair_column, None, encoding, on_error, ("fail", "skip", "null"))
    options = opt.model_options(device, dtype, threads, backend, batch_size)
    exits = operating_point, threshold, score
    with shown(as_json, prediction_text) as show:
        given = given_texts(texts or [], text_pair, source)
        answers = answered(model, given, source, *exits, columns, options, out, interactive(), watch)
        show(Values({"out": str(out), "n": len(answers)} if out else {"answers": answers}))


def prediction_text(result: dict[str, Any]) -> str:
    """What `predict` shows."""
    if "out" in result:
        return f"{result['out']}: {result['n']:,} answers"
    lines = []
    for answer in result["answers"]:
        if "answer" in answer:
            lines.append(_span_text(answer))
            continue
        if "error" in answer:
            lines.append(f"null\t{answer['error']}")
            continue
        text = answer["text"] if isinstance(answer["text"], str) else " | ".join(answer["text"])
        cut = ", cut" if answer["truncated"] else ""
        head = f"{_answer_text(answer)}\t{answer['layers']} layers, {answer['tokens']} tokens{cut}"
        lines.append(f"{head}\t{text if len(text) <= 80 else text[:79] + '…'}")
    return "\n".join(lines)


def _answer_text(answer: dict[str, Any]) -> str:
    """A class with its probability, all labels that apply with theirs, or a number."""
    if "probabilities" not in answer:
        return f"{answer['label']:.4g}"
    if "probability" in answer:
        return f"{answer['label']}\t{answer['probability']:.3f}"
    said = [f"{label} {answer['probabilities'][str(label)]:.3f}" for label in answer["label"]]
    return ", ".join(said) or "no label"


def _span_text(answer: dict[str, Any]) -> str:
    """One answer of `predict`."""
    said = answer["answer"] or "(no answer)"
    place = f"characters {answer['start']}-{answer['end']}" if answer["answer"] else "none"
    return f"{said}\t{place}\t{answer['layers']} layers, {answer['tokens']} tokens\t{answer['question']}"
