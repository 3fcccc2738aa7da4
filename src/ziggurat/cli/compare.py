"""`ziggurat compare`: a model beside other engines, each at its best, in one run."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from ziggurat.cli import options as opt
from ziggurat.cli.bench import Figure, ResultRows
from ziggurat.cli.output import shown, ticker
from ziggurat.cli.sources import measured_source
from ziggurat.cli.text import figure_lines

if TYPE_CHECKING:
    from ziggurat.bench.result import Comparison


def compare(
    model: opt.Model,
    data: opt.Data = None,
    task: opt.Task = None,
    data_dir: opt.DataDir = None,
    batch: Annotated[
        str, typer.Option(help="Batch sizes that are tried for each, comma-separated.")
    ] = "1,4,8,16,32,64",
    points: Annotated[
        str | None,
        typer.Option(help="Operating points, comma-separated (default: those that exit early or prune tokens)."),
    ] = None,
    texts: opt.TimedTexts = 512,
    scored: Annotated[int, typer.Option(help="How many texts accuracy is of.")] = 2000,
    repeats: opt.Repeats = 5,
    only: Annotated[
        str | None,
        typer.Option(help="Parts of engines' names, comma-separated (openvino,int8); our first is always there."),
    ] = None,
    calibration: Annotated[
        str | None,
        typer.Option(help="Texts to calibrate int8 engines (default: the model's training rows, or some of --data)."),
    ] = None,
    out: ResultRows = None,
    figure: Figure = None,
    text_column: opt.TextColumn = "text",
    pair_column: opt.PairColumn = None,
    label_column: opt.LabelColumn = "label",
    encoding: opt.Encoding = None,
    on_error: opt.OnError = "fail",
    device: opt.Device = "auto",
    threads: opt.Threads = None,
    as_json: opt.Json = False,
) -> None:
    """Compare a model with ONNX Runtime, OpenVINO and transformers on this CPU, each at its best batch size.

    All dtypes that run here take part, in one run.
    """
    from ziggurat.analyses.drawing import check_drawable, draw
    from ziggurat.bench.compare import Rules
    from ziggurat.bench.compare import compare as compared

    source = measured_source(data, task, data_dir)
    rules = Rules(
        batch_sizes=opt.whole_numbers(batch, "--batch"),
        timed_texts=texts,
        scored_texts=scored,
        repeats=repeats,
        only=() if only is None else opt.words(only, "--only"),
        calibration=calibration,
    )
    names = None if points is None else opt.words(points, "--points")
    columns = opt.columns_of(text_column, pair_column, label_column, encoding, on_error)
    options = opt.model_options(device, "float32", threads, "auto")
    if figure is not None:
        check_drawable(model, figure)  # before the work: it is drawn last
    with shown(as_json, comparison_text) as show, ticker() as tick:
        result = compared(model, source, rules, names, columns, options, out, tick)
        if figure is not None:
            drawn = draw(model, source, figure, columns, options, texts, repeats, tick)
            result = replace(result, figures=drawn)
        show(result)


def comparison_text(result: Comparison) -> str:
    """What people see."""
    from ziggurat.bench.tables import comparison_tables

    lines = [comparison_tables([row.to_dict() for row in result.rows])]
    if result.calibration is not None:
        lines.append(f"int8 engines were calibrated with {result.calibration}")
    lines += [f"left out: {engine.name} {engine.dtype}: {engine.reason}" for engine in result.left_out]
    return "\n".join([*lines, *figure_lines(result.figures)]).rstrip()
