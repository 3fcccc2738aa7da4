"""`ziggurat train`: a classifier with early exits from an encoder and labelled rows."""

from __future__ import annotations

from dataclasses import replace
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


def train(
    out: Out,
    train: opt.TrainingData = None,
    task: opt.Task = None,
    data_dir: opt.DataDir = None,
    recipe: Annotated[str, typer.Option(help="Name of a shipped recipe, or a TOML file.")] = "early-exit",
    model: Annotated[str | None, typer.Option(help="Encoder to start from (default: the packaged MiniLM).")] = None,
    teacher: Annotated[
        str | None,
        typer.Option(help="Trained model folder that a student or small model learns from, instead of --model."),
    ] = None,
    student: Annotated[
        str | None, typer.Option(help="Encoder that the recipe's student starts from, not the teacher's layers.")
    ] = None,
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
    keep_stages: Annotated[
        bool, typer.Option("--keep-stages", help="Also write a model folder after each stage, in OUT.stages.")
    ] = False,
    as_json: opt.Json = False,
) -> None:
    """Train a classifier with early exits from an encoder and labelled rows. Run again after an interruption, the same
    command continues.
    """
    from ziggurat.training.train import train_model

    with shown(as_json, training_text) as show:
        source = training_source(train, task, data_dir)
        columns = opt.columns_of(text_column, pair_column, label_column, encoding, on_error)
        options = train_options(columns, device, mixed_precision, certify, problem, label_range, max_length)
        options = replace(options, keep_stages=keep_stages, student=student)
        show(train_model(source, out, recipe, model, options, teacher))
