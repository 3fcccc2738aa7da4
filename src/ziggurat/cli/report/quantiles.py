"""`ziggurat report quantiles`: accuracy and FLOPs by quantile of length."""

from __future__ import annotations

from typing import Annotated

import typer

from ziggurat.cli import options as opt
from ziggurat.cli.output import interactive, shown
from ziggurat.cli.report.options import Folder, Models, Names, report_text
from ziggurat.cli.sources import measured_source


def quantiles(
    models: Models,
    out: Folder,
    data: opt.Data = None,
    task: opt.Task = None,
    data_dir: opt.DataDir = None,
    names: Names = None,
    operating_point: opt.OperatingPoint = "balanced",
    threshold: opt.Threshold = None,
    score: opt.Score = None,
    quantiles: Annotated[str, typer.Option(help="Of the rows' length; LTP: 0.5,0.75.")] = "0.25,0.5,0.75",
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
    """Accuracy and FLOPs beside full depth by quantile of length (LTP, Table 4.4)."""
    from ziggurat.analyses.by_length import quantiles as analysis
    from ziggurat.analyses.reporting import Request
    from ziggurat.analyses.settings import Exits

    source = measured_source(data, task, data_dir)
    columns = opt.columns_of(text_column, pair_column, label_column, encoding, on_error)
    options = opt.model_options(device, dtype, threads, backend, batch_size)
    request = Request(models, source, out, names or (), columns, options, interactive())
    exits = Exits(operating_point, threshold, score)
    with shown(as_json, report_text) as show:
        show(analysis(request, opt.decimal_numbers(quantiles, "--quantiles"), exits))
