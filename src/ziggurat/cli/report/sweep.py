"""`ziggurat report sweep`: pruning scales with exit thresholds."""

from __future__ import annotations

from typing import Annotated

import typer

from ziggurat.cli import options as opt
from ziggurat.cli.output import interactive, shown
from ziggurat.cli.report.options import Folder, Names, OneModel, Taus, report_text
from ziggurat.cli.sources import measured_source


def sweep(
    model: OneModel,
    out: Folder,
    data: opt.Data = None,
    task: opt.Task = None,
    data_dir: opt.DataDir = None,
    names: Names = None,
    scales: Annotated[str, typer.Option(help="Factors on the pruning rule's numbers.")] = "0.5,0.75,1,1.25,1.5",
    taus: Taus = "0.1,0.2,0.3,0.5,0.8",
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
    """Every pruning scale with every exit threshold of a model that prunes: pruning really run, exits replayed."""
    from ziggurat.analyses.papers import sweep as analysis
    from ziggurat.analyses.reporting import Request

    source = measured_source(data, task, data_dir)
    columns = opt.columns_of(text_column, pair_column, label_column, encoding, on_error)
    options = opt.model_options(device, dtype, threads, backend, batch_size)
    request = Request([model], source, out, names or (), columns, options, interactive())
    with shown(as_json, report_text) as show:
        show(analysis(request, opt.decimal_numbers(scales, "--scales"), opt.decimal_numbers(taus, "--taus")))
