"""Where rows come from: a source, a data set by its name, the command line itself or what is piped into it."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ziggurat.cli.options import PerhapsData
from ziggurat.errors import UserError

if TYPE_CHECKING:
    from ziggurat.engine.classifier import Text

STDIN = "-"

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
    typer.Option(
        "--train", help="Rows to train on: file, FOLDER or FOLDER@SPLIT, stdlib-docs, or hf:NAME@SPLIT; or --task."
    ),
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


def given_texts(texts: list[str], text_pair: str | None, data: str | None) -> list[Text] | None:
    """What a command line gives to classify; None = the rows of `data`. UserError for a mix-up."""
    if bool(texts) == (data is not None):
        raise UserError("give either texts or --data (or --task), and one of them")
    if STDIN in texts and (len(texts) > 1 or text_pair is not None):
        raise UserError(f"{STDIN} stands for texts from standard input, and goes with no other one")
    if texts != [STDIN]:
        _refuse_files([*texts, *([] if text_pair is None else [text_pair])])
    if text_pair is None:
        return [*_piped()] if texts == [STDIN] else [*texts] or None
    if data is not None:
        raise UserError("--text-pair goes with a text; with --data name the second texts' column with --pair-column")
    if len(texts) > 1:
        raise UserError(f"--text-pair goes with one text, not {len(texts)}; put several pairs into a file for --data")
    return [(texts[0], text_pair)]


def one_text(text: str) -> str:
    """The text itself, or the one line of standard input that "-" stands for; UserError for several."""
    if text != STDIN:
        _refuse_files([text])
        return text
    lines = _piped()
    if len(lines) > 1:
        raise UserError(f"stdin: {len(lines)} lines; one text can be explained, give one line")
    return lines[0]


def _refuse_files(texts: Iterable[str]) -> None:
    """UserError for the name of a file of rows, which as a text would be classified itself; of one that is not there a
    warning.
    """
    from ziggurat.data.decoding import format_of
    from ziggurat.data.tables import READERS

    for text in texts:
        if os.path.isfile(text) or (os.sep in text and os.path.isdir(text)):  # of Path both raise for long names
            raise UserError(
                f"{text}: is a file, and would be classified by its name; for its rows write --data {text}, for the "
                f"name itself pipe it in: echo {text} | ziggurat predict MODEL {STDIN}"
            )
        if text == text.strip() and " " not in text and format_of(Path(text)) in READERS:
            message = "%s: there is no such file, so its name is read as a text; for the rows of a file write --data"
            logging.getLogger(__name__).warning(message, text)


def _piped() -> list[str]:
    """Lines of standard input, each a text; UserError where there is none, or one is no UTF-8."""
    lines = []
    for number, line in enumerate(sys.stdin.buffer, start=1):
        try:
            lines.append(line.decode("utf-8").rstrip("\r\n"))
        except UnicodeDecodeError:
            raise UserError(f"stdin, line {number}: is not UTF-8; convert it") from None
    if not lines:
        raise UserError("stdin: no lines; pipe one text per line into it")
    return lines


def _source(given: str | None, task: str | None, folder: Path | None, option: str, training: bool) -> str:
    """The one source that options name; UserError for none or two."""
    from ziggurat.data.catalogue import task_source

    if (given is None) == (task is None):
        wanted = "give rows with" if given is None else "give rows once, with"
        raise UserError(f"{wanted} {option} FILE, or with --task NAME")
    if given is not None and folder is not None:
        raise UserError(f"--data-dir goes with --task; give the folder as {option}")
    return str(given) if task is None else task_source(task, training, None if folder is None else str(folder))
