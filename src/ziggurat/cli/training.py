"""`ziggurat train` and `adapt`."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from ziggurat.cli.options import (
    Device,
    Json,
    Out,
    assembled,
    columns_of,
    decimal_numbers,
    interactive,
    model_options,
    shown,
)
from ziggurat.cli.sources import training_source
from ziggurat.cli.text import cascade_text, training_text
from ziggurat.errors import UserError

if TYPE_CHECKING:
    from ziggurat.data.sources import Columns
    from ziggurat.measure.subject import ModelOptions
    from ziggurat.train.fit import TrainOptions
    from ziggurat.types import ProblemType


@assembled(columns=columns_of)
def _train_options(
    columns: Columns,
    device: Device = "auto",
    mixed_precision: Annotated[bool, typer.Option(help="bfloat16 where the device is fast with it.")] = True,
    certify: Annotated[
        float | None, typer.Option(help="Share of the rows that is kept out for `calibrate` (default: the recipe's).")
    ] = None,
    problem: Annotated[
        str | None,
        typer.Option(
            help="single_label_classification, multi_label_classification, regression or question_answering (default: "
            "what the rows look like, or what the checkpoint answers). Several labels are a list, or in a CSV cell a|b."
        ),
    ] = None,
    label_range: Annotated[
        str | None,
        typer.Option(help="Regression: least and largest label that can occur, as in 0,5 (default: of the rows)."),
    ] = None,
    max_length: Annotated[
        int | None,
        typer.Option(
            help="Tokens that are read of an input, special ones included; of questions, of a window "
            "(default: as many as the checkpoint reads, or in training as the recipe says)."
        ),
    ] = None,
) -> TrainOptions:
    """What both ways of training are told."""
    from ziggurat.train.fit import TrainOptions

    options = TrainOptions(columns, device, mixed_precision=mixed_precision, certify=certify)
    return replace(options, problem=problem_named(problem), label_range=range_of(label_range), max_length=max_length)


def problem_named(name: str | None) -> ProblemType | None:
    """The problem of --problem; UserError lists those that can be trained."""
    from ziggurat.types import ProblemType

    if name is not None and name not in list(ProblemType):
        raise UserError(f"--problem {name!r} is not known; choose one of {', '.join(ProblemType)}")
    return None if name is None else ProblemType(name)


def range_of(text: str | None) -> tuple[float, float] | None:
    """The two numbers of --label-range; UserError for anything else."""
    if text is None:
        return None
    numbers = decimal_numbers(text, "--label-range")
    if len(numbers) != 2 or not -math.inf < numbers[0] < numbers[1] < math.inf:
        raise UserError(f"--label-range {text}: give the least and the largest label, as in 0,5")
    return numbers[0], numbers[1]


@assembled(source=training_source, options=_train_options)
def train(
    source: str,
    out: Out,
    recipe: Annotated[str, typer.Option(help="Name of a shipped recipe, or a TOML file.")] = "early-exit",
    model: Annotated[str | None, typer.Option(help="Encoder to start from (default: the packaged MiniLM).")] = None,
    teacher: Annotated[
        str | None,
        typer.Option(help="Trained model folder that a student or small model learns from, instead of --model."),
    ] = None,
    student: Annotated[
        str | None, typer.Option(help="Encoder that the recipe's student starts from, not the teacher's layers.")
    ] = None,
    *,
    options: TrainOptions,
    keep_stages: Annotated[
        bool, typer.Option("--keep-stages", help="Also a model folder after each stage, in OUT.stages.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Train a classifier with early exits from an encoder and labelled rows. Stopped, the same command goes on."""
    from ziggurat.train.train import train_classifier as job

    with shown(as_json, training_text) as show:
        options = replace(options, keep_stages=keep_stages, student=student)
        show(job(source, out, recipe, model, options, teacher))


@assembled(columns=columns_of, options=model_options)
def cascade(
    models: Annotated[
        list[str], typer.Argument(metavar="TIER...", help="Trained models from cheap to dear: folders or hub names.")
    ],
    out: Out,
    data: Annotated[
        str | None, typer.Option(help="Rows of the models' data: fits a score of when the next tier would do better.")
    ] = None,
    *,
    columns: Columns,
    options: ModelOptions,
    as_json: Json = False,
) -> None:
    """Put small models in front of a large one; calibrate the result, and each text goes as far as it must."""
    from ziggurat.train.cascade import build_cascade as job

    with shown(as_json, cascade_text) as show:
        show(job(models, out, data, columns, options, interactive()))


@assembled(source=training_source, options=_train_options)
def adapt(
    checkpoint: Annotated[
        str, typer.Argument(metavar="CHECKPOINT", help="Fine-tuned Hugging Face classifier: folder or hub name.")
    ],
    source: str,
    out: Out,
    recipe: Annotated[str, typer.Option(help="Name of a shipped recipe, or a TOML file.")] = "adapt",
    *,
    options: TrainOptions,
    as_json: Json = False,
) -> None:
    """Add early exits to a fine-tuned classifier; its full-depth answers stay as they are.

    Rows are like those that it will see, with or without labels.
    """
    from ziggurat.train.train import adapt_classifier as job

    with shown(as_json, training_text) as show:
        show(job(checkpoint, source, out, recipe, options))
