"""`ziggurat report correctness`: tokens kept where answers are right, and where wrong."""

from __future__ import annotations

from ziggurat.cli import options as opt
from ziggurat.cli.output import interactive, shown
from ziggurat.cli.report.options import Folder, Models, Names, report_text
from ziggurat.cli.sources import measured_source


def correctness(
    models: Models,
    out: Folder,
    data: opt.Data = None,
    task: opt.Task = None,
    data_dir: opt.DataDir = None,
    names: Names = None,
    operating_point: opt.OperatingPoint = "balanced",
    threshold: opt.Threshold = None,
    score: opt.Score = None,
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
    """How much of a text is kept where the answer is right, and where wrong (LTP, Figure 4.7)."""
    from ziggurat.analyses.papers import correctness as analysis
    from ziggurat.analyses.reporting import Request
    from ziggurat.analyses.settings import Exits

    source = measured_source(data, task, data_dir)
    columns = opt.columns_of(text_column, pair_column, label_column, encoding, on_error)
    options = opt.model_options(device, dtype, threads, backend, batch_size)
    request = Request(models, source, out, names or (), columns, options, interactive())
    exits = Exits(operating_point, threshold, score)
    with shown(as_json, report_text) as show:
        show(analysis(request, exits))
