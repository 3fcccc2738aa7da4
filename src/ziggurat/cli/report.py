"""`ziggurat report`: the papers' analyses, each a table and a figure in a folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ziggurat.cli.options import (
    BatchSize,
    Data,
    Device,
    Dtype,
    Json,
    LabelColumn,
    PairColumn,
    Point,
    Score,
    TextColumn,
    Threads,
    Threshold,
    columns_of,
    decimal_numbers,
    interactive,
    model_options,
    shown,
    ticker,
    whole_numbers,
)
from ziggurat.cli.text import report_text

if TYPE_CHECKING:
    from ziggurat.jobs.reporting import Exits, Request

report_app = typer.Typer(
    help="Analyses of models on labelled rows: tables and figures in a folder.", no_args_is_help=True
)

Models = Annotated[list[str], typer.Argument(metavar="MODEL...", help="Model folders.")]
OneModel = Annotated[str, typer.Argument(metavar="MODEL", help="Model folder that prunes tokens.")]
Folder = Annotated[
    Path, typer.Option("--out", help="Folder for the table (.md, .csv) and the figure (.png, .svg); replaced there.")
]
Names = Annotated[
    list[str] | None, typer.Option("--name", help="What to call a model; once for each (default: its folder's name).")
]
Taus = Annotated[str, typer.Option(help="Entropy thresholds, comma-separated.")]
Timed = Annotated[int, typer.Option("--texts", help="How many texts are timed; all else is of all rows.", min=1)]
Repeats = Annotated[int, typer.Option(help="Rounds; medians are shown.", min=1)]
Buckets = Annotated[str, typer.Option(help="Last length of each bucket but the last, in tokens, comma-separated.")]


@report_app.command()
def methods(
    models: Models,
    data: Data,
    out: Folder,
    curve: Annotated[int, typer.Option(help="Thresholds on each model's curve.")] = 8,
    time: Annotated[bool, typer.Option(help="Measure time too; all models in one interleaved run.")] = True,
    texts: Timed = 256,
    repeats: Repeats = 5,
    names: Names = None,
    text_column: TextColumn = "text",
    pair_column: PairColumn = None,
    label_column: LabelColumn = "label",
    device: Device = "auto",
    dtype: Dtype = "float32",
    threads: Threads = None,
    batch_size: BatchSize = 32,
    as_json: Json = False,
) -> None:
    """Compare models: accuracy against FLOPs and against measured time, on one figure."""
    from ziggurat.jobs.comparing import methods as job

    columns, options = (text_column, pair_column, label_column), (device, dtype, threads, batch_size)
    request = _request(models, data, out, names, columns, options)
    with shown(as_json, report_text) as show, ticker() as tick:
        show(job(request, curve, texts if time else None, repeats, tick))


@report_app.command()
def thresholds(
    models: Models,
    data: Data,
    out: Folder,
    taus: Taus = "0.1,0.2,0.3,0.5,0.8",
    names: Names = None,
    text_column: TextColumn = "text",
    pair_column: PairColumn = None,
    label_column: LabelColumn = "label",
    device: Device = "auto",
    dtype: Dtype = "float32",
    threads: Threads = None,
    batch_size: BatchSize = 32,
    as_json: Json = False,
) -> None:
    """Accuracy, FLOPs and layers at each exit threshold (Magic Pyramid, Table 4)."""
    from ziggurat.jobs.analyses import thresholds as job

    columns, options = (text_column, pair_column, label_column), (device, dtype, threads, batch_size)
    request = _request(models, data, out, names, columns, options)
    with shown(as_json, report_text) as show:
        show(job(request, decimal_numbers(taus, "--taus")))


@report_app.command()
def lengths(
    models: Models,
    data: Data,
    out: Folder,
    buckets: Buckets = "35,70",
    time: Annotated[bool, typer.Option("--time", help="Measure time too, bucket by bucket.")] = False,
    texts: Timed = 128,
    repeats: Repeats = 5,
    operating_point: Point = "balanced",
    threshold: Threshold = None,
    score: Score = "entropy",
    names: Names = None,
    text_column: TextColumn = "text",
    pair_column: PairColumn = None,
    label_column: LabelColumn = "label",
    device: Device = "auto",
    dtype: Dtype = "float32",
    threads: Threads = None,
    batch_size: BatchSize = 32,
    as_json: Json = False,
) -> None:
    """What exits and pruning save on short, middle and long texts (Magic Pyramid, Figure 1)."""
    from ziggurat.jobs.by_length import lengths as job

    columns, options = (text_column, pair_column, label_column), (device, dtype, threads, batch_size)
    request = _request(models, data, out, names, columns, options)
    exits = _exits(operating_point, threshold, score)
    with shown(as_json, report_text) as show, ticker() as tick:
        show(job(request, whole_numbers(buckets, "--buckets"), exits, texts if time else None, repeats, tick))


@report_app.command()
def quantiles(
    models: Models,
    data: Data,
    out: Folder,
    quantiles: Annotated[str, typer.Option(help="Of the rows' length; LTP: 0.5,0.75.")] = "0.25,0.5,0.75",
    operating_point: Point = "balanced",
    threshold: Threshold = None,
    score: Score = "entropy",
    names: Names = None,
    text_column: TextColumn = "text",
    pair_column: PairColumn = None,
    label_column: LabelColumn = "label",
    device: Device = "auto",
    dtype: Dtype = "float32",
    threads: Threads = None,
    batch_size: BatchSize = 32,
    as_json: Json = False,
) -> None:
    """Accuracy and FLOPs beside full depth by quantile of length (LTP, Table 4.4)."""
    from ziggurat.jobs.by_length import quantiles as job

    columns, options = (text_column, pair_column, label_column), (device, dtype, threads, batch_size)
    request = _request(models, data, out, names, columns, options)
    exits = _exits(operating_point, threshold, score)
    with shown(as_json, report_text) as show:
        show(job(request, decimal_numbers(quantiles, "--quantiles"), exits))


@report_app.command()
def trajectories(
    models: Models,
    data: Data,
    out: Folder,
    buckets: Buckets = "35,70",
    operating_point: Point = "balanced",
    threshold: Threshold = None,
    score: Score = "entropy",
    names: Names = None,
    text_column: TextColumn = "text",
    pair_column: PairColumn = None,
    label_column: LabelColumn = "label",
    device: Device = "auto",
    dtype: Dtype = "float32",
    threads: Threads = None,
    batch_size: BatchSize = 32,
    as_json: Json = False,
) -> None:
    """Tokens left behind each layer by length of the text (LTP, Figure 4.6)."""
    from ziggurat.jobs.analyses import trajectories as job

    columns, options = (text_column, pair_column, label_column), (device, dtype, threads, batch_size)
    request = _request(models, data, out, names, columns, options)
    exits = _exits(operating_point, threshold, score)
    with shown(as_json, report_text) as show:
        show(job(request, whole_numbers(buckets, "--buckets"), exits))


@report_app.command()
def correctness(
    models: Models,
    data: Data,
    out: Folder,
    operating_point: Point = "balanced",
    threshold: Threshold = None,
    score: Score = "entropy",
    names: Names = None,
    text_column: TextColumn = "text",
    pair_column: PairColumn = None,
    label_column: LabelColumn = "label",
    device: Device = "auto",
    dtype: Dtype = "float32",
    threads: Threads = None,
    batch_size: BatchSize = 32,
    as_json: Json = False,
) -> None:
    """How much of a text is kept where the answer is right, and where wrong (LTP, Figure 4.7)."""
    from ziggurat.jobs.analyses import correctness as job

    columns, options = (text_column, pair_column, label_column), (device, dtype, threads, batch_size)
    request = _request(models, data, out, names, columns, options)
    exits = _exits(operating_point, threshold, score)
    with shown(as_json, report_text) as show:
        show(job(request, exits))


@report_app.command()
def grid(
    model: OneModel,
    data: Data,
    out: Folder,
    scales: Annotated[str, typer.Option(help="Factors on the pruning rule's numbers.")] = "0.5,0.75,1,1.25,1.5",
    taus: Taus = "0.1,0.2,0.3,0.5,0.8",
    names: Names = None,
    text_column: TextColumn = "text",
    pair_column: PairColumn = None,
    label_column: LabelColumn = "label",
    device: Device = "auto",
    dtype: Dtype = "float32",
    threads: Threads = None,
    batch_size: BatchSize = 32,
    as_json: Json = False,
) -> None:
    """Every pruning scale with every exit threshold: pruning really run, exits replayed."""
    from ziggurat.jobs.analyses import grid as job

    columns, options = (text_column, pair_column, label_column), (device, dtype, threads, batch_size)
    request = _request([model], data, out, names, columns, options)
    with shown(as_json, report_text) as show:
        show(job(request, decimal_numbers(scales, "--scales"), decimal_numbers(taus, "--taus")))


@report_app.command()
def kernel(
    out: Folder,
    lengths: Annotated[str, typer.Option(help="Tokens per text, comma-separated.")] = "64,128,256,512,1024",
    shares: Annotated[str, typer.Option(help="Shares of tokens that stay, comma-separated.")] = "0.1,0.2,0.3,0.4,0.5",
    batch_size: BatchSize = 32,
    repeats: Repeats = 11,
    as_json: Json = False,
) -> None:
    """Time to choose tokens by threshold and by top-k, on random scores (LTP, Figure 4.5); needs no model."""
    from ziggurat.jobs.analyses import kernel as job

    with shown(as_json, report_text) as show, ticker() as tick:
        sizes, stay = whole_numbers(lengths, "--lengths"), decimal_numbers(shares, "--shares")
        show(job(out, sizes, stay, batch_size, repeats, tick))


def _request(
    models: list[str],
    data: str,
    out: Path,
    names: list[str] | None,
    columns: tuple[str, str | None, str],
    options: tuple[str, str, int | None, int],
) -> Request:
    from ziggurat.jobs.reporting import Request

    return Request(models, data, out, names or (), columns_of(*columns), model_options(*options), interactive())


def _exits(operating_point: str, threshold: float | None, score: str) -> Exits:
    from ziggurat.jobs.reporting import Exits

    return Exits(operating_point, threshold, score)
