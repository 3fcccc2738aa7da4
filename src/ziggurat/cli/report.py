"""`ziggurat report`: the papers' analyses, each a table and a figure in a folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ziggurat.cli.options import (
    ExitOptions,
    Json,
    assembled,
    columns_of,
    decimal_numbers,
    exit_options,
    interactive,
    model_options,
    shown,
    ticker,
    whole_numbers,
)
from ziggurat.cli.sources import measured_source
from ziggurat.cli.text import report_text

if TYPE_CHECKING:
    from ziggurat.analyses.reporting import Request
    from ziggurat.analyses.settings import Exits
    from ziggurat.data.sources import Columns
    from ziggurat.measure.subject import ModelOptions

report_app = typer.Typer(
    help="Analyses of models on labelled rows: tables and figures in a folder.", no_args_is_help=True
)

Models = Annotated[list[str], typer.Argument(metavar="MODEL...", help="Model folders.")]
OneModel = Annotated[str, typer.Argument(metavar="MODEL", help="Model folder.")]
Folder = Annotated[
    Path, typer.Option("--out", help="Folder for the table (.md, .csv) and the figure (.png, .svg); replaced there.")
]
Names = Annotated[
    list[str] | None, typer.Option("--name", help="What to call a model; once for each (default: its folder's name).")
]
Taus = Annotated[str, typer.Option(help="Entropy thresholds, comma-separated.")]
Timed = Annotated[
    int,
    typer.Option("--texts", help="How many texts are timed, where time is measured; all else is of all rows.", min=1),
]
Repeats = Annotated[int, typer.Option(help="Rounds of timing; medians are shown.", min=1)]
Buckets = Annotated[str, typer.Option(help="Last length of each bucket but the last, in tokens, comma-separated.")]


@assembled(source=measured_source, columns=columns_of, options=model_options)
def _request(
    models: Models, source: str, out: Folder, columns: Columns, options: ModelOptions, names: Names = None
) -> Request:
    """What every analysis of models is asked."""
    from ziggurat.analyses.reporting import Request

    return Request(models, source, out, names or (), columns, options, interactive())


@assembled(source=measured_source, columns=columns_of, options=model_options)
def _request_of_one(
    model: OneModel, source: str, out: Folder, columns: Columns, options: ModelOptions, names: Names = None
) -> Request:
    """What an analysis of one model is asked."""
    from ziggurat.analyses.reporting import Request

    return Request([model], source, out, names or (), columns, options, interactive())


@assembled(chosen=exit_options)
def _exits(chosen: ExitOptions) -> Exits:
    """Where texts leave in an analysis."""
    from ziggurat.analyses.settings import Exits

    return Exits(*chosen)


@report_app.command()
@assembled(request=_request)
def methods(
    request: Request,
    curve: Annotated[int, typer.Option(help="Thresholds on each model's curve.")] = 8,
    time: Annotated[bool, typer.Option(help="Measure time too; all models in one interleaved run.")] = True,
    texts: Timed = 256,
    repeats: Repeats = 5,
    as_json: Json = False,
) -> None:
    """Compare models: accuracy against FLOPs and against measured time, on one figure."""
    from ziggurat.analyses.comparing import methods as job

    with shown(as_json, report_text) as show, ticker() as tick:
        show(job(request, curve, texts if time else None, repeats, tick))


@report_app.command()
@assembled(request=_request)
def thresholds(
    request: Request,
    taus: Taus = "0.1,0.2,0.3,0.5,0.8",
    as_json: Json = False,
) -> None:
    """Accuracy, FLOPs and layers at each exit threshold (Magic Pyramid, Table 4)."""
    from ziggurat.analyses.papers import thresholds as job

    with shown(as_json, report_text) as show:
        show(job(request, decimal_numbers(taus, "--taus")))


@report_app.command()
@assembled(request=_request, exits=_exits)
def lengths(
    request: Request,
    exits: Exits,
    buckets: Buckets = "35,70",
    time: Annotated[bool, typer.Option("--time", help="Measure time too, bucket by bucket.")] = False,
    texts: Timed = 128,
    repeats: Repeats = 5,
    as_json: Json = False,
) -> None:
    """What exits and pruning save on short, middle and long texts (Magic Pyramid, Figure 1)."""
    from ziggurat.analyses.by_length import lengths as job

    with shown(as_json, report_text) as show, ticker() as tick:
        show(job(request, whole_numbers(buckets, "--buckets"), exits, texts if time else None, repeats, tick))


@report_app.command()
@assembled(request=_request, exits=_exits)
def quantiles(
    request: Request,
    exits: Exits,
    quantiles: Annotated[str, typer.Option(help="Of the rows' length; LTP: 0.5,0.75.")] = "0.25,0.5,0.75",
    as_json: Json = False,
) -> None:
    """Accuracy and FLOPs beside full depth by quantile of length (LTP, Table 4.4)."""
    from ziggurat.analyses.by_length import quantiles as job

    with shown(as_json, report_text) as show:
        show(job(request, decimal_numbers(quantiles, "--quantiles"), exits))


@report_app.command()
@assembled(request=_request, exits=_exits)
def trajectories(
    request: Request,
    exits: Exits,
    buckets: Buckets = "35,70",
    as_json: Json = False,
) -> None:
    """Tokens left behind each layer by length of the text (LTP, Figure 4.6)."""
    from ziggurat.analyses.papers import trajectories as job

    with shown(as_json, report_text) as show:
        show(job(request, whole_numbers(buckets, "--buckets"), exits))


@report_app.command()
@assembled(request=_request, exits=_exits)
def correctness(
    request: Request,
    exits: Exits,
    as_json: Json = False,
) -> None:
    """How much of a text is kept where the answer is right, and where wrong (LTP, Figure 4.7)."""
    from ziggurat.analyses.papers import correctness as job

    with shown(as_json, report_text) as show:
        show(job(request, exits))


@report_app.command()
@assembled(request=_request_of_one)
def grid(
    request: Request,
    scales: Annotated[str, typer.Option(help="Factors on the pruning rule's numbers.")] = "0.5,0.75,1,1.25,1.5",
    taus: Taus = "0.1,0.2,0.3,0.5,0.8",
    as_json: Json = False,
) -> None:
    """Every pruning scale with every exit threshold of a model that prunes: pruning really run, exits replayed."""
    from ziggurat.analyses.papers import grid as job

    with shown(as_json, report_text) as show:
        show(job(request, decimal_numbers(scales, "--scales"), decimal_numbers(taus, "--taus")))


@report_app.command()
@assembled(request=_request_of_one)
def deferral(
    request: Request,
    tier: Annotated[int, typer.Option(help="At the end of which tier, from 1; of a model without tiers, rung.")] = 1,
    as_json: Json = False,
) -> None:
    """Who should go on from a cascade's first tier: every score between random and oracle (TangoBERT)."""
    from ziggurat.analyses.deferral import deferral as job

    with shown(as_json, report_text) as show:
        show(job(request, tier))


@report_app.command()
def kernel(
    out: Folder,
    lengths: Annotated[str, typer.Option(help="Tokens per text, comma-separated.")] = "64,128,256,512,1024",
    shares: Annotated[str, typer.Option(help="Shares of tokens that stay, comma-separated.")] = "0.1,0.2,0.3,0.4,0.5",
    batch_size: Annotated[int, typer.Option(help="Texts per batch.")] = 32,
    repeats: Repeats = 11,
    as_json: Json = False,
) -> None:
    """Time to choose tokens by threshold and by top-k, on random scores (LTP, Figure 4.5); needs no model."""
    from ziggurat.analyses.papers import kernel as job

    with shown(as_json, report_text) as show, ticker() as tick:
        sizes, stay = whole_numbers(lengths, "--lengths"), decimal_numbers(shares, "--shares")
        show(job(out, sizes, stay, batch_size, repeats, tick))
