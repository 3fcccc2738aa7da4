"""`ziggurat adapt`: early exits for a fine-tuned classifier."""

from __future__ import annotations

from typing import Annotated

import typer

from ziggurat.cli import options as opt
from ziggurat.cli.output import shown
from ziggurat.cli.sources import training_source
from ziggurat.cli.training import (
    Certify,
    LabelRange,
    MaxLength,
    MixedPrecision,
    Out,
    Problem,
    train_options,
    training_text,
)


def adapt(
    checkpoint: Annotated[
        str, typer.Argument(metavar="CHECKPOINT", help="Fine-tuned Hugging Face classifier: folder or hub name.")
    ],
    out: Out,
    train: opt.TrainingData = None,
    task: opt.Task = None,
    data_dir: opt.DataDir = None,
    recipe: Annotated[str, typer.Option(help="Name of a shipped recipe, or a TOML file.")] = "adapt",
    text_column: opt.TextColumn = "text",
    pair_column: opt.PairColumn = None,
    label_column: opt.LabelColumn = "label",
    encoding: opt.Encoding = None,
    on_error: opt.OnError = "fail",
    device: opt.Device = "auto",
    mixed_precision: MixedPrecision = True,
    certify: Certify = None,
    problem: Problem = None,
    label_range: LabelRange = None,
    max_length: MaxLength = None,
    as_json: opt.Json = False,
) -> None:
    """Add early exits to a fine-tuned classifier; its full-depth answers stay as they are.

    Give rows like those that it will see, with or without labels.
    """
    from ziggurat.training.train import adapt_model

    with shown(as_json, training_text) as show:
        source = training_source(train, task, data_dir)
        columns = opt.columns_of(text_column, pair_column, label_column, encoding, on_error)
        options = train_options(columns, device, mixed_precision, certify, problem, label_range, max_length)
        show(adapt_model(checkpoint, source, out, recipe, options))
