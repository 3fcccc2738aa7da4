"""`bench --profile`: its option, and what people see of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ziggurat.cli.options import shown, ticker
from ziggurat.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ziggurat.data.sources import Columns
    from ziggurat.measure.subject import ModelOptions

Profile = Annotated[
    bool,
    typer.Option(
        "--profile",
        help="Measure what this machine needs for the parts of a call, keep it, and show how well it predicts the "
        "time of other shapes and of --data, which is optional here.",
    ),
]


def data_of(data: str | None) -> str:
    """The source that the other ways of `bench` need; UserError where there is none."""
    if data is None:
        raise UserError("bench compares on texts: give --data FILE (only --profile does without)")
    return data


def show_profile(
    model: str,
    data: str | None,
    sizes: Sequence[int] | None,
    points: Sequence[str] | None,
    columns: Columns,
    options: ModelOptions,
    texts: int,
    repeats: int,
    others: bool,
    as_json: bool,
) -> None:
    """Calls the job and prints; UserError for `others`: options of another way of `bench`."""
    from ziggurat.measure.check import bench_profile

    if others:
        raise UserError("--profile measures this machine alone; run --peers, --out and --figure without it")
    with shown(as_json, profile_text) as show, ticker() as tick:
        show(bench_profile(model, data, sizes or (1, 32), points, columns, options, texts, repeats, tick))


def profile_text(result: dict[str, Any]) -> str:
    """What `bench --profile` shows."""
    from ziggurat.report.tables import Column, aligned

    parts = (("layer", "a layer"), ("last", "the last layer"), ("head", "an exit head"), ("call", "the call"))
    micro = [row | {name: 1e6 * row[name] for name, _ in parts} for row in result["layer"]]
    layer = [Column("tokens", "tokens", "", ","), Column("length", "of a text")]
    layer += [Column(name, header, "µs", ",.0f") for name, header in parts]
    errors = [
        Column("what", "texts"),
        Column("point", "operating point"),
        Column("batch", "batch"),
        Column("predicted_ms", "predicted", "ms per text", ".3f"),
        Column("measured_ms", "measured", "ms per text", ".3f"),
        Column("error", "error", "", "+.1%"),
        Column("gain_error", "of the speed-up", "", "+.1%"),
    ]
    rows = [
        error | {f"{name}_ms": 1e3 * error[name] / error["n_texts"] for name in ("predicted", "measured")}
        for error in result["errors"]
    ]
    where = result["conditions"]
    largest, of_gains = (max(abs(error[name]) for error in result["errors"]) for name in ("error", "gain_error"))
    instructions = f" ({where['instructions']})" if where["instructions"] else ""
    lines = [
        result["profile"],
        f"  {where['cpu']}, {where['threads']} threads, {where['engine']}{instructions}, {where['dtype']}, "
        f"{where['layers']} layers x {where['hidden']}, {result['date']}",
        "",
        aligned(micro, layer),
        aligned(rows, errors),
        f"largest error {largest:.1%} of a time, {of_gains:.1%} of a speed-up over full depth",
    ]
    return "\n".join(lines)
