"""The command line: which file has which command, and how a mistake or Ctrl-C ends."""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Sequence
from importlib import import_module, metadata
from pathlib import Path
from typing import Annotated, Any

import typer

from ziggurat.cli.old_names import translated
from ziggurat.cli.report.app import HELP, report_app
from ziggurat.errors import Stopped, UserError
from ziggurat.system import default_threads, legible

COMMANDS = {  # by name: the file in this folder that has the function of the same name
    "demo": "demo",
    "train": "train",
    "adapt": "adapt",
    "cascade": "cascade",
    "calibrate": "calibrate",
    "eval": "evaluate",
    "predict": "predict",
    "explain": "explain",
    "bench": "bench",
    "compare": "compare",
    "profile": "profile",
    "info": "info",
    "seal": "seal",
}
_REPORT = "report"


def app_for(line: Sequence[str] = (), complete: bool = False) -> typer.Typer:
    """The command line. Where `line` begins with a command, that one alone: loading the files of all takes time.
    The analyses of `report` are in it where it is that command, or the line is to be `complete`.

    Command files import the other rooms inside of functions, so that help is shown before numpy would be loaded.
    """
    app = typer.Typer(
        callback=front,
        add_completion=False,
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )
    wanted = line[0] if line and line[0] in (*COMMANDS, _REPORT) else None
    for name, file in COMMANDS.items():
        if wanted in (name, None):
            app.command(name)(getattr(import_module(f"ziggurat.cli.{file}"), file))
    if complete or wanted == _REPORT:
        app.add_typer(report_app(), name=_REPORT)
    elif wanted is None:
        app.add_typer(typer.Typer(help=HELP), name=_REPORT)
    return app


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ziggurat {metadata.version('ziggurat')}")
        raise typer.Exit


def front(
    version: Annotated[bool, typer.Option("--version", callback=_version, help="Show the version and exit.")] = False,
) -> None:
    """Text classifiers that spend on each input only the compute it needs."""


def main() -> None:
    """The `ziggurat` command: a user's mistake is one line on stderr and exit code 2, Ctrl-C another and 130."""
    _prepare_process()
    try:
        line = translated(sys.argv[1:])
        code = app_for(line)(line, prog_name="ziggurat", standalone_mode=False) or 0
    except UserError as error:
        typer.echo(f"ziggurat: {legible(str(error))}", err=True)
        sys.exit(error.exit_code)
    except Exception as error:
        if not hasattr(error, "format_message"):  # an error of the command line has it; typer names no type for all
            raise
        typer.echo(_usage(error), err=True)
        sys.exit(UserError.exit_code)
    if code == Stopped.exit_code:  # how typer ends after a KeyboardInterrupt, without a message
        typer.echo("ziggurat: interrupted; nothing was half-written", err=True)
    sys.exit(code)


def _prepare_process() -> None:
    """Environment, standard streams and the format of warnings, before anything else is loaded."""
    # Before any import of a Hugging Face library: their own bars and advice would hide those of this command.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    # numpy starts its threads when it is imported: one for each core, whatever a container's quota, or it dies.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", str(default_threads()))
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed by the parent process, as with 2>&-
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115  # open until the end
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr is: letters that a terminal lacks are no error
    if logging.lastResort is not None:  # which writes our warnings
        logging.lastResort.setFormatter(_Legible())


class _Legible(logging.Formatter):
    """One line, whatever labels and names a warning quotes."""

    def format(self, record: logging.LogRecord) -> str:
        """The message alone."""
        return legible(record.getMessage())


def _usage(error: Any) -> str:
    """What is wrong with a command line, in one line; of a command that was given nothing its help."""
    message = str(error.format_message())
    if type(error).__name__ == "NoArgsIsHelpError":
        return message
    context = getattr(error, "ctx", None)
    command = "ziggurat" if context is None else context.command_path
    return f"ziggurat: {legible(message).removesuffix('.')}; see `{command} --help`"
