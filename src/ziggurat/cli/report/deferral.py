"""`ziggurat report deferral`: which texts should go on from a first tier."""

from __future__ import annotations

from typing import Annotated

import typer

from ziggurat.cli import options as opt
from ziggurat.cli.output import interactive, shown
from ziggurat.cli.report.options import Folder, Names, OneModel, report_text
from ziggurat.cli.sources import measured_source


def deferral(
    model: OneModel,
    out: Folder,
    data: opt.Data = None,
    task: opt.Task = None,
    data_dir: opt.DataDir = None,
    names: Names = None,
    tier: Annotated[int, typer.Option(help="At the end of which tier, from 1; of a model without tiers, rung.")] = 1,
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
    """Which texts should go on from a cascade's first tier: every score between random and oracle (TangoBERT)."""
    from ziggurat.analyses.deferral import deferral as analysis
    from ziggurat.analyses.reporting import Request

    source = measured_source(data, task, data_dir)
    columns = opt.columns_of(text_column, pair_column, label_column, encoding, on_error)
    options = opt.model_options(device, dtype, threads, backend, batch_size)
    request = Request([model], source, out, names or (), columns, options, interactive())
    with shown(as_json, report_text) as show:
        show(analysis(request, tier))
