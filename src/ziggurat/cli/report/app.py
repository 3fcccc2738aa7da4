"""The group of commands `ziggurat report`."""

from __future__ import annotations

from importlib import import_module

import typer

HELP = "Analyses of models on labelled rows: tables and figures in a folder."
# Each is a function in the file of its name, in this folder.
ANALYSES = (
    "methods",
    "thresholds",
    "lengths",
    "quantiles",
    "trajectories",
    "correctness",
    "sweep",
    "deferral",
    "kernel",
)


def report_app() -> typer.Typer:
    """All analyses; their files are loaded now."""
    app = typer.Typer(help=HELP, no_args_is_help=True)
    for name in ANALYSES:
        app.command()(getattr(import_module(f"ziggurat.cli.report.{name}"), name))
    return app
