"""`ziggurat report methods`: models beside each other."""

from __future__ import annotations

from typing import Annotated

import typer

from ziggurat.cli import options as opt
from ziggurat.cli.output import interactive, shown, ticker
from ziggurat.cli.report.options import Folder, Models, Names, Timed, report_text
from ziggurat.cli.sources import measured_source


def methods(
    models: Models,
    out: Folder,
    data: opt.Data = None,
    task: opt.Task = None,
    data_dir: opt.DataDir = None,
    names: Names = None,
    curve: Annotated[int, typer.Option(help="Thresholds on each model's curve.")] = 8,
    time: Annotated[bool, typer.Option(help="Measure time too; all models in one interleaved run.")] = True,
    texts: Timed = 256,
    repeats: opt.Repeats = 5,
    text_column: opt.TextColumn = "text",
    pair_column: opt.PairColumn = None,
    label_column: opt.LabelColumn = "label",
    encoding: opt.Encoding = None,
    on_error: opt.OnError = "fail",
    device: opt.Device = "auto",
    dtype: opt.Dtype = "float32",
    threads: opt.Threads = None,
    batch_size: opt.BatchSize = None,
    backend: opt.Backend = "auto",
    as_json: opt.Json = False,
) -> None:
    """Compare models: accuracy against FLOPs and against measured time, on one figure."""
    from ziggurat.analyses.comparing import methods as analysis
    from ziggurat.analyses.reporting import Request

    source = measured_source(data, task, data_dir)
    columns = opt.columns_of(text_column, pair_column, label_column, encoding, on_error)
    options = opt.model_options(device, dtype, threads, backend, batch_size)
    request = Request(models, source, out, names or (), columns, options, interactive())
    with shown(as_json, report_text) as show, ticker() as tick:
        show(analysis(request, curve, texts if time else None, repeats, tick))
