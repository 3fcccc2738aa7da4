"""`ziggurat profile`: what this machine needs for the parts of a call, and how well that predicts times."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from ziggurat.cli import options as opt
from ziggurat.cli.output import shown, ticker
from ziggurat.cli.sources import optional_source

if TYPE_CHECKING:
    from ziggurat.measure.check import ProfileCheck


def profile(
    model: opt.Model,
    data: opt.Data = None,
    task: opt.Task = None,
    data_dir: opt.DataDir = None,
    batch: opt.BatchSizes = "1,32",
    points: opt.Points = None,
    texts: opt.TimedTexts = 512,
    repeats: opt.Repeats = 5,
    text_column: opt.TextColumn = "text",
    pair_column: opt.PairColumn = None,
    encoding: opt.Encoding = None,
    on_error: opt.OnError = "fail",
    device: opt.Device = "auto",
    dtype: opt.Dtype = "float32",
    threads: opt.Threads = None,
    backend: opt.Backend = "auto",
    as_json: opt.Json = False,
) -> None:
    """Measure what this machine needs for the parts of a call, keep it, and show how well it predicts other times.

    `calibrate` uses the kept profile. Times are predicted for other shapes, and for --data if it is given; its rows
    need no labels.
    """
    from ziggurat.measure.check import check_profile

    source = optional_source(data, task, data_dir)
    sizes, names = opt.whole_numbers(batch, "--batch"), None if points is None else opt.words(points, "--points")
    columns = opt.columns_of(text_column, pair_column, None, encoding, on_error)
    options = opt.model_options(device, dtype, threads, backend)
    with shown(as_json, profile_text) as show, ticker() as tick:
        show(check_profile(model, source, sizes, names, columns, options, texts, repeats, tick))


def profile_text(result: ProfileCheck) -> str:
    """What people see."""
    from ziggurat.report.tables import Column, aligned

    parts = (("layer", "a layer"), ("last", "the last layer"), ("head", "an exit head"), ("call", "the call"))
    shapes = [asdict(shape) for shape in result.layer]
    micro = [shape | {name: 1e6 * shape[name] for name, _ in parts} for shape in shapes]
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
        error.to_dict()
        | {"predicted_ms": 1e3 * error.predicted / error.n_texts, "measured_ms": 1e3 * error.measured / error.n_texts}
        for error in result.errors
    ]
    where = result.conditions
    largest = max(abs(error.error) for error in result.errors)
    of_gains = max(abs(error.gain_error) for error in result.errors)
    instructions = f" ({where.instructions})" if where.instructions else ""
    lines = [
        str(result.profile),
        f"  {where.cpu}, {where.threads} threads, {where.engine}{instructions}, {where.dtype}, "
        f"{where.layers} layers x {where.hidden}, {result.date}",
        "",
        aligned(micro, layer),
        aligned(rows, errors),
        f"largest error {largest:.1%} of a time, {of_gains:.1%} of a speed-up over full depth",
    ]
    return "\n".join(lines)
