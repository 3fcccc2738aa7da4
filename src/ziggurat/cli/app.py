"""The command line: parses options, calls a job, prints. No work is done here."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ziggurat.cli.explanation import explanation_text
from ziggurat.cli.text import (
    bench_text,
    demonstration_text,
    evaluation_text,
    information_text,
    prediction_text,
    training_text,
)
from ziggurat.errors import UserError

# Rooms are imported inside the commands: `ziggurat --help` answers before numpy would be loaded.
if TYPE_CHECKING:
    from ziggurat.data.sources import Columns
    from ziggurat.jobs.opening import ModelOptions
    from ziggurat.jobs.training import TrainOptions

app = typer.Typer(
    help="Text classifiers that spend on each input only the compute it needs.",
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

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


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the model, the table and the figure.")] = Path("runs/demo"),
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Train an early-exit classifier on the built-in data and show what it saves. About four minutes on 2 cores."""
    from ziggurat.jobs.demonstration import demonstrate

    with _shown(as_json, demonstration_text) as show, _ticker() as tick:
        show(demonstrate(out, device, tick))


@app.command()
def train(
    train: Annotated[str, typer.Option("--train", help="Labelled rows: file, folder, stdlib-docs, or hf:NAME@SPLIT.")],
    out: Out,
    recipe: Annotated[str, typer.Option(help="Name of a shipped recipe, or a TOML file.")] = "early-exit",
    model: Annotated[str | None, typer.Option(help="Encoder to start from (default: the packaged MiniLM).")] = None,
    text_column: TextColumn = "text",
    pair_column: PairColumn = None,
    label_column: LabelColumn = "label",
    device: Device = "auto",
    mixed_precision: Annotated[bool, typer.Option(help="bfloat16 where the device is fast with it.")] = True,
    keep_stages: Annotated[
        bool, typer.Option("--keep-stages", help="Also a model folder after each stage, in OUT.stages.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Train a classifier with early exits from an encoder and labelled rows. Stopped, the same command goes on."""
    from ziggurat.jobs.training import train_classifier as job

    options = _train_options(_columns(text_column, pair_column, label_column), device, mixed_precision, keep_stages)
    with _shown(as_json, training_text) as show:
        show(job(train, out, recipe, model, options))


@app.command()
def adapt(
    checkpoint: Annotated[
        str, typer.Argument(metavar="CHECKPOINT", help="Fine-tuned Hugging Face classifier: folder or hub name.")
    ],
    train: Annotated[str, typer.Option("--train", help="Rows, with or without labels, like those it will see.")],
    out: Out,
    recipe: Annotated[str, typer.Option(help="Name of a shipped recipe, or a TOML file.")] = "adapt",
    text_column: TextColumn = "text",
    pair_column: PairColumn = None,
    label_column: LabelColumn = "label",
    device: Device = "auto",
    mixed_precision: Annotated[bool, typer.Option(help="bfloat16 where the device is fast with it.")] = True,
    as_json: Json = False,
) -> None:
    """Add early exits to a fine-tuned classifier; its full-depth answers stay as they are."""
    from ziggurat.jobs.training import adapt_classifier as job

    options = _train_options(_columns(text_column, pair_column, label_column), device, mixed_precision)
    with _shown(as_json, training_text) as show:
        show(job(checkpoint, train, out, recipe, options))


@app.command("eval")
def evaluate(
    model: Model,
    data: Data,
    operating_point: Point = "balanced",
    threshold: Threshold = None,
    score: Score = "entropy",
    text_column: TextColumn = "text",
    pair_column: PairColumn = None,
    label_column: LabelColumn = "label",
    device: Device = "auto",
    dtype: Dtype = "float32",
    threads: Threads = None,
    batch_size: BatchSize = 32,
    as_json: Json = False,
) -> None:
    """Measure accuracy, cost and speed on labelled rows, beside the same model at full depth."""
    from ziggurat.jobs.evaluation import evaluate as job

    columns = _columns(text_column, pair_column, label_column)
    options = _model_options(device, dtype, threads, batch_size)
    with _shown(as_json, evaluation_text) as show:
        show(job(model, data, operating_point, threshold, score, columns, options, progress=_interactive()))


@app.command()
def predict(
    model: Model,
    texts: Annotated[
        list[str] | None, typer.Argument(metavar="[TEXT]...", help="Texts to classify; or use --data.")
    ] = None,
    data: Annotated[str | None, typer.Option(help="File, folder or data set whose texts to classify.")] = None,
    out: Annotated[Path | None, typer.Option(help="JSONL file to write, one object per text.")] = None,
    operating_point: Point = "balanced",
    threshold: Threshold = None,
    score: Score = "entropy",
    text_column: TextColumn = "text",
    pair_column: PairColumn = None,
    device: Device = "auto",
    dtype: Dtype = "float32",
    threads: Threads = None,
    batch_size: BatchSize = 32,
    as_json: Json = False,
) -> None:
    """Classify texts, and say what each answer cost. With --json: one object with all answers."""
    from ziggurat.jobs.prediction import predict as job

    columns = _columns(text_column, pair_column, "label")
    options = _model_options(device, dtype, threads, batch_size)
    with _shown(as_json, prediction_text) as show:
        if bool(texts) == (data is not None):
            raise UserError("give either texts or --data, and one of them")
        answers = job(
            model, texts or None, data, operating_point, threshold, score, columns, options, out, _interactive()
        )
        show({"out": str(out), "n": len(answers)} if out else {"answers": answers})


@app.command()
def explain(
    model: Model,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="Text to explain.")],
    pair: Annotated[
        str | None, typer.Argument(metavar="[TEXT]", help="Second text, for a model that reads pairs.")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Also write an HTML page.")] = None,
    operating_point: Point = "balanced",
    threshold: Threshold = None,
    score: Score = "entropy",
    device: Device = "auto",
    dtype: Dtype = "float32",
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Show which tokens of a text left at which layer, and why its answer came where it did."""
    from ziggurat.jobs.explanation import explain as job

    options = _model_options(device, dtype, threads, 1)
    # https://no-color.org: set to anything but nothing means no colours.
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    view = partial(explanation_text, colour=colour, width=shutil.get_terminal_size((100, 24)).columns)
    with _shown(as_json, view) as show:
        show(job(model, text if pair is None else (text, pair), operating_point, threshold, score, options, html))


@app.command()
def bench(
    model: Model,
    data: Data,
    batch: Annotated[str, typer.Option(help="Batch sizes, comma-separated.")] = "1,32",
    points: Annotated[
        str | None, typer.Option(help="Operating points, comma-separated (default: all that the model has).")
    ] = None,
    texts: Annotated[int, typer.Option(help="How many texts are timed; accuracy is of all.")] = 512,
    repeats: Annotated[int, typer.Option(help="Rounds; medians are shown.", min=1)] = 5,
    out: Annotated[
        Path | None, typer.Option(help="File of result rows to append to, such as results/bench.jsonl.")
    ] = None,
    figure: Annotated[
        Path | None, typer.Option(help="Also draw accuracy against time and FLOPs: a .png and .svg.")
    ] = None,
    text_column: TextColumn = "text",
    pair_column: PairColumn = None,
    label_column: LabelColumn = "label",
    device: Device = "auto",
    dtype: Dtype = "float32",
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Time the model beside plain transformers on the same texts and threads, interleaved in one run."""
    from ziggurat.jobs.benching import bench as job
    from ziggurat.jobs.drawing import draw

    columns = _columns(text_column, pair_column, label_column)
    options = _model_options(device, dtype, threads, 32)
    with _shown(as_json, bench_text) as show:
        sizes = _numbers(batch, "--batch")
        names = None if points is None else [name.strip() for name in points.split(",") if name.strip()]
        with _ticker() as tick:
            rows = job(model, data, sizes, names, columns, options, texts, repeats, out, tick)
            drawn = [] if figure is None else draw(model, data, figure, columns, options, texts, repeats, tick)
            show({"rows": rows, "figures": [str(path) for path in drawn]})


@app.command()
def info(model: Model, as_json: Json = False) -> None:
    """Describe a model folder: architecture, heads, operating points, origin."""
    from ziggurat.jobs.information import info as job

    with _shown(as_json, information_text) as show:
        show(job(model))


def main() -> None:
    """The `ziggurat` command: a user's mistake is one line on stderr and exit code 2."""
    # Before any import of a Hugging Face library: their own bars and advice would drown ours.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    try:
        app()
    except UserError as error:
        typer.echo(f"ziggurat: {error}", err=True)
        sys.exit(2)
    except KeyboardInterrupt:
        typer.echo("ziggurat: interrupted; nothing was half-written", err=True)
        sys.exit(130)


@contextmanager
def _shown(as_json: bool, text: Callable[[dict[str, Any]], str]) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Collects a job's result and prints it when all is done; whatever libraries print meanwhile goes to stderr."""
    results: list[dict[str, Any]] = []
    with redirect_stdout(sys.stderr):
        yield results.append
    for result in results:
        if result:  # the silent processes of `accelerate launch` have none
            typer.echo(json.dumps(result, ensure_ascii=False) if as_json else text(result))


@contextmanager
def _ticker() -> Iterator[Callable[[str], None]]:
    """A count of finished timings on stderr, for people."""
    from tqdm import tqdm

    with tqdm(unit=" timings", disable=not _interactive(), leave=False) as bar:

        def tick(name: str) -> None:
            bar.set_description(name)
            bar.update()

        yield tick


def _interactive() -> bool:
    return sys.stderr.isatty()


def _columns(text: str, pair: str | None, label: str) -> Columns:
    from ziggurat.data.sources import Columns

    return Columns(text, pair, label)


def _model_options(device: str, dtype: str, threads: int | None, batch_size: int) -> ModelOptions:
    from ziggurat.jobs.opening import ModelOptions

    return ModelOptions(device, dtype, threads, batch_size)


def _train_options(columns: Columns, device: str, mixed_precision: bool, keep_stages: bool = False) -> TrainOptions:
    from ziggurat.jobs.training import TrainOptions

    return TrainOptions(columns, device, mixed_precision=mixed_precision, keep_stages=keep_stages)


def _numbers(text: str, option: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise UserError(f"{option} {text!r}: give whole numbers separated by commas, such as 1,32") from None
