"""What commands share: their options, and how a result is printed."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ziggurat.errors import UserError

if TYPE_CHECKING:
    from ziggurat.data.sources import Columns
    from ziggurat.jobs.opening import ModelOptions

Model = Annotated[str, typer.Argument(metavar="MODEL", help="Model folder made by `ziggurat train` or `adapt`.")]
Data = Annotated[
    str, typer.Option(help="JSONL, CSV, TSV or Parquet file, a folder of them, stdlib-docs, or hf:NAME@SPLIT.")
]
Out = Annotated[Path, typer.Option(help="Folder to write; must be empty or absent.")]
Point = Annotated[str, typer.Option("--operating-point", help="exact, balanced, fast or full.")]
Threshold = Annotated[float | None, typer.Option(help="Exit threshold for this call, instead of the operating point.")]
Score = Annotated[
    str,
    typer.Option(
        help="Exit score of --threshold: entropy, max-probability, margin, agreement, agreement-in-a-row, "
        "top-entropy@N (of the N likeliest classes), confident-in-a-row@H (rungs with entropy <= H)."
    ),
]
TextColumn = Annotated[str, typer.Option(help="Column with the text.")]
PairColumn = Annotated[
    str | None, typer.Option(help="Column with the second text (default: text_pair if there is one).")
]
LabelColumn = Annotated[str, typer.Option(help="Column with the label.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Dtype = Annotated[str, typer.Option(help="float32 or bfloat16.")]
Threads = Annotated[int | None, typer.Option(help="CPU threads (default: all cores).")]
BatchSize = Annotated[int, typer.Option(help="Texts per batch.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]


@contextmanager
def shown(as_json: bool, text: Callable[[dict[str, Any]], str]) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Collects a job's result and prints it when all is done; whatever libraries print meanwhile goes to stderr."""
    results: list[dict[str, Any]] = []
    with redirect_stdout(sys.stderr):
        yield results.append
    for result in results:
        if result:  # the silent processes of `accelerate launch` have none
            typer.echo(json.dumps(result, ensure_ascii=False) if as_json else text(result))


@contextmanager
def ticker() -> Iterator[Callable[[str], None]]:
    """A count of finished timings on stderr, for people."""
    from tqdm import tqdm

    with tqdm(unit=" timings", disable=not interactive(), leave=False) as bar:

        def tick(name: str) -> None:
            bar.set_description(name)
            bar.update()

        yield tick


def interactive() -> bool:
    """Whether somebody is looking."""
    return sys.stderr.isatty()


def columns_of(text: str, pair: str | None, label: str) -> Columns:
    """What three options say of a source's columns."""
    from ziggurat.data.sources import Columns

    return Columns(text, pair, label)


def model_options(device: str, dtype: str, threads: int | None, batch_size: int) -> ModelOptions:
    """What four options say of how a model is run."""
    from ziggurat.jobs.opening import ModelOptions

    return ModelOptions(device, dtype, threads, batch_size)


def whole_numbers(text: str, option: str) -> list[int]:
    """`1,32` → [1, 32]; UserError that names the option."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise UserError(f"{option} {text!r}: give whole numbers separated by commas, such as 1,32") from None


def decimal_numbers(text: str, option: str) -> list[float]:
    """`0.5,1` → [0.5, 1.0]; UserError that names the option."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise UserError(f"{option} {text!r}: give numbers separated by commas, such as 0.5,1") from None
