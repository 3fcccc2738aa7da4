"""`ziggurat report kernel`: the time to choose tokens."""

from __future__ import annotations

from typing import Annotated

import typer

from ziggurat.cli import options as opt
from ziggurat.cli.output import shown, ticker
from ziggurat.cli.report.options import Folder, report_text


def kernel(
    out: Folder,
    lengths: Annotated[str, typer.Option(help="Tokens per text, comma-separated.")] = "64,128,256,512,1024",
    shares: Annotated[str, typer.Option(help="Shares of tokens that stay, comma-separated.")] = "0.1,0.2,0.3,0.4,0.5",
    batch_size: Annotated[int, typer.Option(help="Texts per batch.")] = 32,
    repeats: opt.Repeats = 11,
    as_json: opt.Json = False,
) -> None:
    """Time to choose tokens by threshold and by top-k, on random scores (LTP, Figure 4.5); needs no model."""
    from ziggurat.analyses.papers import kernel as analysis

    with shown(as_json, report_text) as show, ticker() as tick:
        sizes, stay = opt.whole_numbers(lengths, "--lengths"), opt.decimal_numbers(shares, "--shares")
        show(analysis(out, sizes, stay, batch_size, repeats, tick))
