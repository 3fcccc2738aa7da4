"""Options that several commands have: their types with their help texts, and how their values are read."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ziggurat.errors import UserError

if TYPE_CHECKING:
    from ziggurat.data.sources import Columns
    from ziggurat.measure.subject import ModelOptions

Model = Annotated[str, typer.Argument(metavar="MODEL", help="Model folder made by `ziggurat train` or `adapt`.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]

# Where inputs exit.
OperatingPoint = Annotated[str, typer.Option("--operating-point", help="exact, balanced, fast or full.")]
Threshold = Annotated[float | None, typer.Option(help="Exit threshold for this call, instead of the operating point.")]
Score = Annotated[
    str | None,
    typer.Option(
        help="Exit score that --threshold is compared with. Classes: entropy (default), max-probability, margin, "
        "agreement, agreement-in-a-row, top-entropy@N (of the N likeliest classes), confident-in-a-row@H (rungs with "
        "entropy <= H). Several labels: label-entropy. Numbers: change (since the rung before) or learned. Questions: "
        "span-entropy."
    ),
]

# Which rows are read, and how.
Data = Annotated[
    str | None,
    typer.Option(
        help="Rows: a JSONL, CSV, TSV or Parquet file, a FOLDER or FOLDER@SPLIT, stdlib-docs (built in), or "
        "hf:NAME@SPLIT. Or use --task."
    ),
]
Task = Annotated[
    str | None,
    typer.Option(
        metavar="NAME[@SPLIT]",
        help="Data set by its name, such as glue/mrpc, squad or ag_news, from the hub or from --data-dir. A wrong name "
        "lists all.",
    ),
]
DataDir = Annotated[
    Path | None, typer.Option(help="Folder with the files of --task: its release, a copy of the hub's, or saved rows.")
]
TrainingData = Annotated[
    str | None,
    typer.Option(
        "--train",
        help="Rows to train on: a file, a FOLDER or FOLDER@SPLIT, stdlib-docs (built in), or hf:NAME@SPLIT. Or use "
        "--task.",
    ),
]
TextColumn = Annotated[
    str,
    typer.Option(
        help="Column with the text: its name; a.b for field b of the objects in a; or its number from 0 in CSV and TSV "
        "without a header."
    ),
]
PairColumn = Annotated[
    str | None, typer.Option(help="Column with the second text (default: text_pair if there is one).")
]
LabelColumn = Annotated[
    str, typer.Option(help="Column with the label, named likewise; a,b for columns of 0 and 1, one for each label.")
]
Encoding = Annotated[
    str | None,
    typer.Option(
        help="Encoding of text files, such as cp1252 or gb18030 (default: from a byte-order mark, else UTF-8)."
    ),
]
OnError = Annotated[
    str,
    typer.Option(
        help="What to do about rows that cannot be read (no text, broken JSON, no label): fail before the work, or "
        "skip them."
    ),
]

# How a model is run.
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Dtype = Annotated[str, typer.Option(help="float32, bfloat16 or, in the compiled engine, int8.")]
Threads = Annotated[int | None, typer.Option(help="CPU threads (default: OMP_NUM_THREADS, else all cores).")]
BatchSize = Annotated[
    int | None, typer.Option(help="Texts per batch (default: what the operating point measured, else 32).")
]
Backend = Annotated[str, typer.Option(help="native (compiled, CPUs), torch, or auto: native where it can.")]

# How much is timed.
BatchSizes = Annotated[str, typer.Option("--batch", help="Batch sizes, comma-separated.")]
Points = Annotated[
    str | None, typer.Option("--points", help="Operating points, comma-separated (default: all that the model has).")
]
TimedTexts = Annotated[int, typer.Option("--texts", help="How many texts are timed; accuracy is of all.", min=1)]
Repeats = Annotated[int, typer.Option(help="Rounds of timing; medians are shown.", min=1)]


def columns_of(
    text: str,
    pair: str | None,
    label: str | None,
    encoding: str | None,
    on_error: str,
    choices: Collection[str] = ("fail", "skip"),
) -> Columns:
    """How rows are read; UserError for an --on-error that is none of the choices."""
    from ziggurat.data.sources import Columns

    if on_error not in choices:
        raise UserError(f"--on-error {on_error!r}: is not known here; choose one of {', '.join(choices)}")
    return Columns(text, pair, label, encoding, on_error)


def model_options(
    device: str, dtype: str, threads: int | None, backend: str, batch_size: int | None = None
) -> ModelOptions:
    """How a model is run; without a batch size as the operating point was measured, or the default."""
    from ziggurat.measure.subject import ModelOptions

    _limit_threads(threads)
    if batch_size is None:
        return ModelOptions(device, dtype, threads, backend=backend)
    return ModelOptions(device, dtype, threads, batch_size, backend, batch_given=True)


def _limit_threads(threads: int | None) -> None:
    """A command is a process of its own: its tokenizer gets as many threads as its model."""
    from ziggurat.data.batching import limit_threads
    from ziggurat.system import default_threads

    limit_threads(threads or default_threads())


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


def words(text: str, option: str) -> list[str]:
    """`a, b` → ["a", "b"]; UserError that names the option where there is no word."""
    found = [word.strip() for word in text.split(",") if word.strip()]
    if not found:
        raise UserError(f"{option} {text!r}: give names separated by commas, or leave the option out")
    return found
