"""The command line: parses options, calls a job, prints. No work is done here."""

from __future__ import annotations

import io
import logging
import os
import shutil
import sys
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ziggurat.cli.calibration import calibrate
from ziggurat.cli.competition import CompetitionOptions, competition_options
from ziggurat.cli.explanation import explanation_text
from ziggurat.cli.options import (
    Device,
    ExitOptions,
    Json,
    Model,
    assembled,
    columns_of,
    device_options,
    exit_options,
    interactive,
    model_options,
    shown,
    ticker,
    unlabelled_columns_of,
    whole_numbers,
    words,
)
from ziggurat.cli.profiling import Profile, data_of, show_profile
from ziggurat.cli.report import report_app
from ziggurat.cli.sources import given_texts, measured_source, one_text, perhaps_measured_source
from ziggurat.cli.text import (
    bench_text,
    competition_text,
    demonstration_text,
    evaluation_text,
    information_text,
    prediction_text,
    sealing_text,
)
from ziggurat.cli.training import adapt, cascade, train
from ziggurat.errors import Stopped, UserError
from ziggurat.system import default_threads, legible

# Rooms are imported inside the commands: `ziggurat --help` answers before numpy would be loaded.
if TYPE_CHECKING:
    from ziggurat.data.sources import Columns
    from ziggurat.measure.subject import ModelOptions

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

app.add_typer(report_app, name="report")


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"ziggurat {metadata.version('ziggurat')}")
        raise typer.Exit


@app.callback()
def front(
    version: Annotated[bool, typer.Option("--version", callback=_version, help="Show the version and exit.")] = False,
) -> None:
    """Text classifiers that spend on each input only the compute it needs."""


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the model, the table and the figure.")] = Path("runs/demo"),
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Train an early-exit classifier on the built-in data and show what it saves. A few minutes on 2 cores."""
    from ziggurat.cli.demonstration import demonstrate

    with shown(as_json, demonstration_text) as show, ticker() as tick:
        show(demonstrate(out, device, tick))


app.command()(train)
app.command()(adapt)
app.command()(cascade)
app.command()(calibrate)


@app.command("eval")
@assembled(source=measured_source, exits=exit_options, columns=columns_of, options=model_options)
def evaluate(
    model: Model,
    source: str,
    exits: ExitOptions,
    columns: Columns,
    options: ModelOptions,
    metric: Annotated[
        str | None,
        typer.Option(help="Beside accuracy: f1, f1-macro, f1-micro, mcc, pearson, spearman (default: the task's own)."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure accuracy, cost and speed on labelled rows, beside the same model at full depth."""
    from ziggurat.measure.evaluate import evaluate as job

    metrics = None if metric is None else words(metric, "--metric")
    with shown(as_json, evaluation_text) as show:
        show(job(model, source, *exits, columns, options, progress=interactive(), metrics=metrics))


@app.command()
@assembled(source=perhaps_measured_source, exits=exit_options, columns=unlabelled_columns_of, options=model_options)
def predict(
    model: Model,
    source: str | None,
    texts: Annotated[
        list[str] | None,
        typer.Argument(metavar="[TEXT]...", help="Texts to classify, - for lines of stdin; or use --data or --task."),
    ] = None,
    text_pair: Annotated[
        str | None, typer.Option(help="Second text of the one TEXT, for a model that reads pairs.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="JSONL file to write, one object per text.")] = None,
    watch: Annotated[
        Path | None,
        typer.Option(help="File of a monitor that outlives the call: warns when a certified point's promise breaks."),
    ] = None,
    *,
    exits: ExitOptions,
    columns: Columns,
    options: ModelOptions,
    as_json: Json = False,
) -> None:
    """Classify texts, and say what each answer cost. With --json: one object with all answers."""
    from ziggurat.calibrate.prediction import predict as job

    with shown(as_json, prediction_text) as show:
        given = given_texts(texts or [], text_pair, source)
        answers = job(model, given, source, *exits, columns, options, out, interactive(), watch)
        show({"out": str(out), "n": len(answers)} if out else {"answers": answers})


@app.command()
@assembled(exits=exit_options, options=device_options)
def explain(
    model: Model,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="Text to explain, or - for the line on standard input.")],
    pair: Annotated[
        str | None,
        typer.Argument(metavar="[TEXT]", help="Second text, for a model that reads pairs; the one asked about."),
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Also write an HTML page.")] = None,
    *,
    exits: ExitOptions,
    options: ModelOptions,
    as_json: Json = False,
) -> None:
    """Show which tokens of a text left at which layer, and why its answer came where it did."""
    from ziggurat.explain.explain import explain as job

    # https://no-color.org: set to anything but nothing means no colours.
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    view = partial(explanation_text, colour=colour, width=shutil.get_terminal_size((100, 24)).columns)
    with shown(as_json, view) as show:
        first = one_text(text)
        show(job(model, first if pair is None else (first, pair), *exits, options, html))


@app.command()
@assembled(source=perhaps_measured_source, competition=competition_options, columns=columns_of, options=device_options)
def bench(
    model: Model,
    source: str | None,
    batch: Annotated[
        str | None,
        typer.Option(help="Batch sizes, comma-separated (default: 1,32; with --peers tried for each: 1,4,8,16,32,64)."),
    ] = None,
    points: Annotated[
        str | None, typer.Option(help="Operating points, comma-separated (default: all that the model has).")
    ] = None,
    texts: Annotated[int, typer.Option(help="How many texts are timed; accuracy is of all.", min=1)] = 512,
    repeats: Annotated[int, typer.Option(help="Rounds; medians are shown.", min=1)] = 5,
    out: Annotated[
        Path | None, typer.Option(help="File of result rows to append to, such as results/bench.jsonl.")
    ] = None,
    figure: Annotated[
        Path | None, typer.Option(help="Also draw accuracy against time and FLOPs: a .png and .svg.")
    ] = None,
    profile: Profile = False,
    *,
    competition: CompetitionOptions,
    columns: Columns,
    options: ModelOptions,
    as_json: Json = False,
) -> None:
    """Time the model beside plain transformers, or with --peers beside ONNX Runtime and OpenVINO too, in one run."""
    from ziggurat.analyses.drawing import draw, refuse_undrawable
    from ziggurat.bench.bench import bench as job

    sizes = None if batch is None else whole_numbers(batch, "--batch")
    names = None if points is None else words(points, "--points")
    if profile:
        others = competition.peers or out is not None or figure is not None
        return show_profile(model, source, sizes, names, columns, options, texts, repeats, others, as_json)
    data = data_of(source)
    if figure is not None:
        refuse_undrawable(model, figure)  # it is drawn last
    with shown(as_json, competition_text if competition.peers else bench_text) as show, ticker() as tick:
        if competition.peers:
            result = competition.run(model, data, sizes, names, columns, options, texts, repeats, out, tick)
        else:
            rows = job(model, data, sizes or (1, 32), names, columns, options, texts, repeats, out, tick)
            result = {"rows": rows}
        drawn = [] if figure is None else draw(model, data, figure, columns, options, texts, repeats, tick)
        show(result | {"figures": [str(path) for path in drawn]})


@app.command()
def info(model: Model, as_json: Json = False) -> None:
    """Describe a model folder: architecture, heads, operating points, origin."""
    from ziggurat.cli.information import info as job

    with shown(as_json, information_text) as show:
        show(job(model))


@app.command()
def seal(model: Model, as_json: Json = False) -> None:
    """Take a model folder as somebody has edited it, such as with other names of labels; its certificates go."""
    from ziggurat.cli.sealing import seal_folder as job

    with shown(as_json, sealing_text) as show:
        show(job(model))


def main() -> None:
    """The `ziggurat` command: a user's mistake is one line on stderr and exit code 2, Ctrl-C another and 130."""
    # Before any import of a Hugging Face library: their own bars and advice would drown ours.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    # numpy starts its threads when it is imported: one for each core, whatever a container's quota, or it dies.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", str(default_threads()))
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed by the parent process, as with 2>&-
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115  # for as long as we run
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr is: letters that a terminal lacks are no error
    if logging.lastResort is not None:  # which writes our warnings
        logging.lastResort.setFormatter(_Legible())
    try:
        code = app(standalone_mode=False) or 0
    except UserError as error:
        typer.echo(f"ziggurat: {legible(str(error))}", err=True)
        sys.exit(error.exit_code)
    except _UsageError as error:
        typer.echo(_usage(error), err=True)
        sys.exit(UserError.exit_code)
    if code == Stopped.exit_code:  # typer's own end of a KeyboardInterrupt, without a word
        typer.echo("ziggurat: interrupted; nothing was half-written", err=True)
    sys.exit(code)


class _Legible(logging.Formatter):
    """One line, whatever labels and names a warning quotes."""

    def format(self, record: logging.LogRecord) -> str:
        """The message alone."""
        return legible(record.getMessage())


_UsageError: Any = typer.BadParameter.__base__  # of whichever click it is that typer uses


def _usage(error: Any) -> str:
    """What is wrong with a command line in one line, or the help of a command that was given nothing."""
    said = str(error.format_message())
    command = "ziggurat" if error.ctx is None else error.ctx.command_path
    if type(error).__name__ == "NoArgsIsHelpError":
        return said
    return f"ziggurat: {legible(said).removesuffix('.')}; see `{command} --help`"
