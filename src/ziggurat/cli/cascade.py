"""`ziggurat cascade`: small models in front of a large one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ziggurat.cli import options as opt
from ziggurat.cli.output import interactive, shown
from ziggurat.cli.training import Out

if TYPE_CHECKING:
    from ziggurat.training.cascade import Cascade


def cascade(
    models: Annotated[
        list[str],
        typer.Argument(metavar="TIER...", help="Trained models from cheap to expensive: folders or hub names."),
    ],
    out: Out,
    data: Annotated[
        str | None,
        typer.Option(help="Rows like the models' data: fits a score of when the next tier would do better."),
    ] = None,
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
    """Put small models in front of a large one; calibrate the result, and each text goes only as far as it must."""
    from ziggurat.training.cascade import make_cascade

    with shown(as_json, cascade_text) as show:
        columns = opt.columns_of(text_column, pair_column, label_column, encoding, on_error)
        options = opt.model_options(device, dtype, threads, backend, batch_size)
        show(make_cascade(models, out, data, columns, options, interactive()))


def cascade_text(result: Cascade) -> str:
    """What people see."""
    return (
        f"{result.out}: a cascade of {len(result.tiers)} tiers ({', '.join(result.tiers)})\n"
        f"it may answer after: {', '.join(result.rungs)}\n"
        f"now choose where: ziggurat calibrate {result.out} --data FILE"
    )
