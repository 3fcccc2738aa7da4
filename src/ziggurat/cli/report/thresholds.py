"""`ziggurat report thresholds`: exit thresholds."""

from __future__ import annotations

from ziggurat.cli import options as opt
from ziggurat.cli.output import interactive, shown
from ziggurat.cli.report.options import Folder, Models, Names, Taus, report_text
from ziggurat.cli.sources import measured_source


def thresholds(
    models: Models,
    out: Folder,
    data: opt.Data = None,
    task: opt.Task = None,
    data_dir: opt.DataDir = None,
    names: Names = None,
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
    """Accuracy, FLOPs and layers at each exit threshold (Magic Pyramid, Table 4)."""
    from ziggurat.analyses.papers import thresholds as analysis
    from ziggurat.analyses.reporting import Request

    source = measured_source(data, task, data_dir)
    columns = opt.columns_of(text_column, pair_column, label_column, encoding, on_error)
    options = opt.model_options(device, dtype, threads, backend, batch_size)
    request = Request(models, source, out, names or (), columns, options, interactive())
    with shown(as_json, report_text) as show:
        show(analysis(request, opt.decimal_numbers(taus, "--taus")))
