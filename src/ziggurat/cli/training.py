"""What `train` and `adapt` share: their options, and the text of a finished training."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ziggurat.cli import options as opt
from ziggurat.cli.text import point_line
from ziggurat.errors import UserError

if TYPE_CHECKING:
    from ziggurat.data.sources import Columns
    from ziggurat.training.fit import TrainOptions
    from ziggurat.training.result import Settled, Training, VocabularyTrial
    from ziggurat.types import ProblemType

Out = Annotated[Path, typer.Option(help="Folder to write; must be empty or absent.")]
MixedPrecision = Annotated[bool, typer.Option(help="bfloat16 where the device is fast with it.")]
Certify = Annotated[
    float | None, typer.Option(help="Share of the rows that is kept out for `calibrate` (default: the recipe's).")
]
Problem = Annotated[
    str | None,
    typer.Option(
        help="single_label_classification, multi_label_classification, regression or question_answering (default: "
        "what the rows look like, or what the checkpoint answers). Several labels are a list, or in a CSV cell a|b."
    ),
]
LabelRange = Annotated[
    str | None,
    typer.Option(help="Regression: least and largest label that can occur, as in 0,5 (default: of the rows)."),
]
MaxLength = Annotated[
    int | None,
    typer.Option(
        help="Tokens that are read of an input, special ones included; of questions, of a window "
        "(default: as many as the checkpoint reads, or in training as the recipe says)."
    ),
]

_MISHAP = 0.05  # accuracy lost to pruning on select rows from which on something went wrong in training


def train_options(
    columns: Columns,
    device: str,
    mixed_precision: bool,
    certify: float | None,
    problem: str | None,
    label_range: str | None,
    max_length: int | None,
) -> TrainOptions:
    """The options that both commands have; UserError for an unknown problem, or for what is no range."""
    from ziggurat.training.fit import TrainOptions

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
    numbers = opt.decimal_numbers(text, "--label-range")
    if len(numbers) != 2 or not -math.inf < numbers[0] < numbers[1] < math.inf:
        raise UserError(f"--label-range {text}: give the least and the largest label, as in 0,5")
    return numbers[0], numbers[1]


def training_text(result: Training) -> str:
    """What people see of a finished training."""
    rows = ", ".join(f"{n:,} {role}" for role, n in result.rows.items())
    cut = f"; {result.cut:,} of these rows are longer and were cut" if result.cut else ""
    lines = [
        f"{result.out}: trained with recipe {result.recipe} ({rows} rows)",
        f"reads up to {result.max_length} tokens of an input{cut}",
        *_learned_lines(result),
        "operating points, chosen on the select rows:",
        *(f"  {point.name:<9} {point_line(point, result.unit)}" for point in result.operating_points),
    ]
    return "\n".join(lines)


def _learned_lines(result: Training) -> Iterator[str]:
    if (search := result.search) is not None:
        yield (
            f"shares of tokens, chosen on {search.rows:,} select rows: {search.chosen.flops:.0%} of the FLOPs, "
            f"accuracy {search.chosen.accuracy:.4f} (all tokens {search.full_accuracy:.4f})"
        )
    if (copies := result.copies) is not None:
        yield (
            f"learned from {copies.copies:,} changed copies too, made at {copies.per_second:,} per second "
            f"({copies.dropped:,} alike and dropped)"
        )
    if result.trials is not None:
        yield from _trial_lines(result.trials.vocabulary, result.trials.settled)
    before, after = result.regular_accuracy, result.pruned_accuracy
    if before is not None and after is not None and after <= before - _MISHAP:
        yield (
            f"warning: pruning as it was trained reaches {after:.1%} on the select rows, the plain model had "
            f"{before:.1%}: too many tokens are dropped. Lower `regularisation` or the epochs of stage soft; for pairs "
            "and phrases leave `vocabulary` out (as magic-pyramid-small) or fix the shares (magic-pyramid-shares)"
        )


def _trial_lines(words: VocabularyTrial | None, settled: Settled | None) -> Iterator[str]:
    """What of the recipe's pruning was taken back, and why."""
    if words is not None and not words.accepted:
        yield (
            f"no word is left out: by {words.share:.0%} of the tokens, as the recipe has it, the plain model has "
            f"{words.read:.4f} on the select rows, by all {words.plain:.4f}"
        )
    elif words is not None and settled is not None and not settled.vocabulary:
        yield "no word is left out any more: the vocabulary had learned to read too little"
    if settled is not None and settled.factor != 1:
        yield (
            f"thresholds taken back to {settled.factor:g} of what was learned: {settled.learned:.4f} on the "
            f"select rows became {settled.settled:.4f}, nothing pruned {settled.plain:.4f}"
        )
