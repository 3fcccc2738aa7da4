"""`ziggurat bench`: a model's speed and quality by operating point, beside plain transformers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ziggurat.cli import options as opt
from ziggurat.cli.output import shown, ticker
from ziggurat.cli.sources import measured_source
from ziggurat.cli.text import figure_lines, result_table

if TYPE_CHECKING:
    from ziggurat.bench.result import BenchResult

ResultRows = Annotated[
    Path | None, typer.Option("--out", help="File of result rows to append to, such as results/bench.jsonl.")
]
Figure = Annotated[
    Path | None, typer.Option("--figure", help="Also draw accuracy against time and FLOPs: a .png and .svg.")
]


def bench(
    model: opt.Model,
    data: opt.Data = None,
    task: opt.Task = None,
    data_dir: opt.DataDir = None,
    batch: opt.BatchSizes = "1,32",
    points: opt.Points = None,
    texts: opt.TimedTexts = 512,
    repeats: opt.Repeats = 5,
    out: ResultRows = None,
    figure: Figure = None,
    text_column: opt.TextColumn = "text",
    pair_column: opt.PairColumn = None,
    label_column: opt.LabelColumn = "label",
    encoding: opt.Encoding = None,
    on_error: opt.OnError = "fail",
    device: opt.Device = "auto",
    dtype: opt.Dtype = "float32",
    threads: opt.Threads = None,
    backend: opt.Backend = "auto",
    as_json: opt.Json = False,
) -> None:
    """Time a model at each operating point, beside plain transformers, in one run; with accuracy and FLOPs."""
    from ziggurat.analyses.drawing import check_drawable, draw
    from ziggurat.bench.bench import bench as measured

    source = measured_source(data, task, data_dir)
    sizes, names = opt.whole_numbers(batch, "--batch"), None if points is None else opt.words(points, "--points")
    columns = opt.columns_of(text_column, pair_column, label_column, encoding, on_error)
    options = opt.model_options(device, dtype, threads, backend)
    if figure is not None:
        check_drawable(model, figure)  # before the work: it is drawn last
    with shown(as_json, bench_text) as show, ticker() as tick:
        result = measured(model, source, sizes, names, columns, options, texts, repeats, out, tick)
        if figure is not None:
            drawn = draw(model, source, figure, columns, options, texts, repeats, tick)
            result = replace(result, figures=drawn)
        show(result)


def bench_text(result: BenchResult) -> str:
    """What people see."""
    return "\n".join([result_table([row.to_dict() for row in result.rows]), *figure_lines(result.figures)])
