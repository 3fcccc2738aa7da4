"""Where rows come from: a source, or a data set by its name."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ziggurat.cli.options import PerhapsData
from ziggurat.errors import UserError

Task = Annotated[
    str | None,
    typer.Option(
        metavar="NAME[@SPLIT]",
        help="A data set by its name, such as glue/mrpc, squad or ag_news (a wrong name lists all): from the hub, or "
        "from --data-dir.",
    ),
]
DataDir = Annotated[
    Path | None, typer.Option(help="Folder with the files of --task: its release, a copy of the hub's, or saved rows.")
]
Train = Annotated[
    str | None,
    typer.Option("--train", help="Rows to train on: file, folder, stdlib-docs, or hf:NAME@SPLIT; or --task."),
]


def training_source(train: Train = None, task: Task = None, data_dir: DataDir = None) -> str:
    """Rows to train on; of a task its training split."""
    return _source(train, task, data_dir, "--train", training=True)


def unseen_source(data: PerhapsData = None, task: Task = None, data_dir: DataDir = None) -> str:
    """Rows to calibrate with; of a task its training split, of which training kept some out."""
    return _source(data, task, data_dir, "--data", training=True)


def measured_source(data: PerhapsData = None, task: Task = None, data_dir: DataDir = None) -> str:
    """Rows to measure on; of a task the split on which models are compared."""
    return _source(data, task, data_dir, "--data", training=False)


def perhaps_measured_source(data: PerhapsData = None, task: Task = None, data_dir: DataDir = None) -> str | None:
    """The same for a command that can do without."""
    if data is None and task is None and data_dir is None:
        return None
    return measured_source(data, task, data_dir)


def _source(given: str | None, task: str | None, folder: Path | None, option: str, training: bool) -> str:
    """The one source that options name; UserError for none or two."""
    from ziggurat.data.named import task_source

    if (given is None) == (task is None):
        wanted = "give rows with" if given is None else "give rows once, with"
        raise UserError(f"{wanted} {option} FILE, or with --task NAME")
    if given is not None and folder is not None:
        raise UserError(f"--data-dir goes with --task; give the folder as {option}")
    return str(given) if task is None else task_source(task, training, None if folder is None else str(folder))
