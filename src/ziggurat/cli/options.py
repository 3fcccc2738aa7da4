"""What commands share: their options, and how a result is printed."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, redirect_stdout
from functools import wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TypeVar, get_type_hints

import typer

from ziggurat.cli.notes import warnings_shown
from ziggurat.errors import UserError
from ziggurat.files import refusals_explained
from ziggurat.system import json_text, legible, legible_values

if TYPE_CHECKING:
    from ziggurat.data.sources import Columns
    from ziggurat.measure.subject import ModelOptions

Made = TypeVar("Made")

Model = Annotated[str, typer.Argument(metavar="MODEL", help="Model folder made by `ziggurat train` or `adapt`.")]
PerhapsData = Annotated[
    str | None,
    typer.Option(
        help="JSONL, CSV, TSV or Parquet file, FOLDER or FOLDER@SPLIT, stdlib-docs, or hf:NAME@SPLIT; or --task."
    ),
]
Out = Annotated[Path, typer.Option(help="Folder to write; must be empty or absent.")]
Point = Annotated[str, typer.Option("--operating-point", help="exact, balanced, fast or full.")]
Threshold = Annotated[float | None, typer.Option(help="Exit threshold for this call, instead of the operating point.")]
Score = Annotated[
    str | None,
    typer.Option(
        help="Exit score of --threshold: entropy (default), max-probability, margin, agreement, agreement-in-a-row, "
        "top-entropy@N (of the N likeliest classes), confident-in-a-row@H (rungs with entropy <= H); of several "
        "labels label-entropy; of a number change (since the rung before) or learned; of questions span-entropy."
    ),
]
TextColumn = Annotated[
    str,
    typer.Option(
        help="Column with the text: its name, a.b for b in the objects of a, or its number from 0 in CSV and TSV "
        "without a header."
    ),
]
PairColumn = Annotated[
    str | None, typer.Option(help="Column with the second text (default: text_pair if there is one).")
]
LabelColumn = Annotated[
    str, typer.Option(help="Column with the label, likewise; a,b for columns of 0 and 1 of labels that may all apply.")
]
Encoding = Annotated[
    str | None,
    typer.Option(help="Encoding of text files, such as cp1252 or gb18030 (default: by their mark, else UTF-8)."),
]
OnError = Annotated[
    str,
    typer.Option(help="Rows that cannot be read (no text, broken JSON, no label): fail before the work, or skip them."),
]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Dtype = Annotated[str, typer.Option(help="float32, bfloat16 or, in the compiled engine, int8.")]
Engine = Annotated[str, typer.Option(help="native (compiled, CPUs), torch, or auto: native where it can.")]
Threads = Annotated[int | None, typer.Option(help="CPU threads (default: OMP_NUM_THREADS, else all cores).")]
BatchSize = Annotated[
    int | None, typer.Option(help="Texts per batch (default: what the operating point measured, else 32).")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]


@contextmanager
def shown(as_json: bool, text: Callable[[dict[str, Any]], str]) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Collects a job's result and prints it when all is done; whatever libraries print meanwhile goes to stderr."""
    results: list[dict[str, Any]] = []
    with redirect_stdout(sys.stderr), warnings_shown() as warnings:
        yield results.append
    for result in results:
        if result:  # the silent processes of `accelerate launch` have none
            result = result | {"warnings": warnings} if warnings and as_json else result
            said = _json_line(result) if as_json else text(legible_values(result))
            with refusals_explained(Path("standard output")):
                typer.echo(said)


def _json_line(result: dict[str, Any]) -> str:
    """One line of JSON; in ASCII where that is all that standard output can say."""
    line = json_text(result)
    try:
        line.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return json.dumps(result)
    return line


@contextmanager
def ticker() -> Iterator[Callable[[str], None]]:
    """A count of finished timings on stderr, for people."""
    from tqdm import tqdm

    with tqdm(unit=" timings", disable=not interactive(), leave=False) as bar:

        def tick(name: str) -> None:
            bar.set_description(legible(name))
            bar.update()

        yield tick


def interactive() -> bool:
    """Whether somebody is looking."""
    return sys.stderr.isatty()


class ExitOptions(NamedTuple):
    """What three options say of where texts leave."""

    operating_point: str
    threshold: float | None
    score: str | None


def exit_options(operating_point: Point = "balanced", threshold: Threshold = None, score: Score = None) -> ExitOptions:
    """Where texts leave: at an operating point, or at a threshold of this call."""
    return ExitOptions(operating_point, threshold, score)


def columns_of(
    text_column: TextColumn = "text",
    pair_column: PairColumn = None,
    label_column: LabelColumn = "label",
    encoding: Encoding = None,
    on_error: OnError = "fail",
) -> Columns:
    """What five options say of how a source is read."""
    return _columns(text_column, pair_column, label_column, encoding, on_error, ("fail", "skip"))


def unlabelled_columns_of(
    text_column: TextColumn = "text",
    pair_column: PairColumn = None,
    encoding: Encoding = None,
    on_error: Annotated[
        str,
        typer.Option(
            help="Rows that cannot be read (no text, broken JSON): fail before the work, skip them, or null: a null in "
            "their place. A blank text is answered like any other unless they are skipped or null."
        ),
    ] = "fail",
) -> Columns:
    """The same where rows are answered and no labels read."""
    return _columns(text_column, pair_column, None, encoding, on_error, ("fail", "skip", "null"))


def _columns(
    text: str, pair: str | None, label: str | None, encoding: str | None, on_error: str, known: Collection[str]
) -> Columns:
    from ziggurat.data.sources import Columns

    if on_error not in known:
        raise UserError(f"--on-error {on_error!r}: is not known here; choose one of {', '.join(known)}")
    return Columns(text, pair, label, encoding, on_error)


def model_options(
    device: Device = "auto",
    dtype: Dtype = "float32",
    threads: Threads = None,
    batch_size: BatchSize = None,
    engine: Engine = "auto",
) -> ModelOptions:
    """What four options say of how a model is run."""
    from ziggurat.measure.subject import ModelOptions

    _limit_threads(threads)
    size = ModelOptions().batch_size if batch_size is None else batch_size
    return ModelOptions(device, dtype, threads, size, engine, batch_given=batch_size is not None)


def device_options(
    device: Device = "auto", dtype: Dtype = "float32", threads: Threads = None, engine: Engine = "auto"
) -> ModelOptions:
    """The same for a command that has no batches, or its own."""
    from ziggurat.measure.subject import ModelOptions

    _limit_threads(threads)
    return ModelOptions(device, dtype, threads, engine=engine)


def _limit_threads(threads: int | None) -> None:
    """A command is a process of its own: its tokenizer keeps to the threads that its model was given."""
    from ziggurat.data.batching import limit_threads
    from ziggurat.system import default_threads

    limit_threads(threads or default_threads())


def assembled(**makers: Callable[..., Any]) -> Callable[[Callable[..., Made]], Callable[..., Made]]:
    """Lets commands share groups of options: with `assembled(columns=columns_of)` a command that has a parameter
    `columns` offers the options of `columns_of` in its place, and gets what `columns_of` makes of them.
    """
    groups = {name: _parameters(maker) for name, maker in makers.items()}

    def decorate(command: Callable[..., Made]) -> Callable[..., Made]:
        own = {parameter.name: parameter for parameter in _parameters(command, besides=groups)}
        places = [groups.get(name, [own[name]] if name in own else []) for name in signature(command).parameters]
        parameters = [parameter for place in places for parameter in place]

        @wraps(command)
        def run(**given: Any) -> Made:
            made = {name: maker(**{p.name: given.pop(p.name) for p in groups[name]}) for name, maker in makers.items()}
            return command(**given, **made)

        # What typer reads.
        run.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return run

    return decorate


def _parameters(function: Callable[..., Any], besides: Collection[str] = ()) -> list[Parameter]:
    """A function's parameters with their annotations evaluated, but those `besides`, whose types need not be loaded."""
    wanted = {name: one for name, one in signature(function).parameters.items() if name not in besides}
    written = SimpleNamespace(__annotations__={name: one.annotation for name, one in wanted.items()})
    types = get_type_hints(written, getattr(function, "__globals__", {}), include_extras=True)
    # By keyword alone: then one without a default may follow one that has it.
    return [one.replace(annotation=types[name], kind=Parameter.KEYWORD_ONLY) for name, one in wanted.items()]


def whole_numbers(text: str, option: str) -> list[int]:
    """`1,32` → [1, 32]; UserError that names the option."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise UserError(f"{option} {text!r}: give whole numbers separated by commas, such as 1,32") from None


def words(text: str, option: str) -> list[str]:
    """`a, b` → ["a", "b"]; UserError that names the option where there is no word."""
    found = [word.strip() for word in text.split(",") if word.strip()]
    if not found:
        raise UserError(f"{option} {text!r}: give names separated by commas, or leave the option out")
    return found


def decimal_numbers(text: str, option: str) -> list[float]:
    """`0.5,1` → [0.5, 1.0]; UserError that names the option."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise UserError(f"{option} {text!r}: give numbers separated by commas, such as 0.5,1") from None
