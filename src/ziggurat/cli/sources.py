"""Where rows and texts come from: a file, a data set by its name, the command line or standard input."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from ziggurat.errors import UserError

if TYPE_CHECKING:
    from ziggurat.engine.opened import Text

STDIN = "-"


def training_source(train: str | None, task: str | None, data_dir: Path | None) -> str:
    """Rows to train on; of a task its training split."""
    return _source(train, task, data_dir, "--train", training=True)


def unseen_source(data: str | None, task: str | None, data_dir: Path | None) -> str:
    """Rows to calibrate with; of a task its training split, of which training kept some out."""
    return _source(data, task, data_dir, "--data", training=True)


def measured_source(data: str | None, task: str | None, data_dir: Path | None) -> str:
    """Rows to measure on; of a task the split on which models are compared."""
    return _source(data, task, data_dir, "--data", training=False)


def optional_source(data: str | None, task: str | None, data_dir: Path | None) -> str | None:
    """The same for a command that works without rows."""
    if data is None and task is None and data_dir is None:
        return None
    return measured_source(data, task, data_dir)


def given_texts(texts: list[str], text_pair: str | None, data: str | None) -> list[Text] | None:
    """The texts on a command line; None = the rows of `data`. UserError where both are given, or neither."""
    if bool(texts) == (data is not None):
        raise UserError("give either texts or --data (or --task), and one of them")
    if STDIN in texts and (len(texts) > 1 or text_pair is not None):
        raise UserError(f"{STDIN} stands for texts from standard input, and goes with no other one")
    if texts != [STDIN]:
        check_not_files([*texts, *([] if text_pair is None else [text_pair])], "predict")
    if text_pair is None:
        return [*_piped()] if texts == [STDIN] else [*texts] or None
    if data is not None:
        raise UserError("--text-pair goes with a text; with --data name the second texts' column with --pair-column")
    if len(texts) > 1:
        raise UserError(f"--text-pair goes with one text, not {len(texts)}; put several pairs into a file for --data")
    return [(texts[0], text_pair)]


def explained_text(text: str, pair: str | None) -> Text:
    """The text, or pair of texts, to explain; "-" stands for the one line of standard input. UserError for several."""
    check_not_files([side for side in (text, pair) if side not in (None, STDIN)], "explain")
    if text == STDIN:
        lines = _piped()
        if len(lines) > 1:
            raise UserError(f"stdin: {len(lines)} lines; one text can be explained, give one line")
        text = lines[0]
    return text if pair is None else (text, pair)


def check_not_files(texts: Iterable[str], command: str) -> None:
    """UserError for a text that is the name of an existing file: the model would read the name, not the file.

    A warning for what only looks like the name of a file of rows.
    """
    from ziggurat.data.decoding import format_of
    from ziggurat.data.tables import READERS

    for text in texts:
        if os.path.isfile(text) or (os.sep in text and os.path.isdir(text)):  # of Path both raise for long names
            rows = f"ziggurat predict MODEL --data {text}"
            raise UserError(
                f"{text}: is a file, and its name would be read as the text; for its rows use `{rows}`, for the name "
                f"itself pipe it in: echo {text} | ziggurat {command} MODEL {STDIN}"
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
