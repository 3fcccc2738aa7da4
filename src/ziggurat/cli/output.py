"""How a command prints: its result on stdout, warnings and progress on stderr."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, Protocol, TypeVar

import typer

from ziggurat.files import refusals_explained
from ziggurat.system import json_text, legible, legible_values


class Result(Protocol):
    """What a command shows: a frozen record."""

    def to_dict(self) -> Mapping[str, Any]:
        """As JSON values."""
        ...


R = TypeVar("R", bound=Result)


@contextmanager
def shown(as_json: bool, text: Callable[[R], str]) -> Iterator[Callable[[R | None], None]]:
    """Collects the result of a command and prints it when all is done; what libraries print goes to stderr.

    `text` makes of a result the lines that people see. With `as_json` one JSON object is printed in their place.
    """
    results: list[R] = []

    def show(result: R | None) -> None:
        if result is not None:  # the other processes of `accelerate launch` have none
            results.append(result)

    with redirect_stdout(sys.stderr), warnings_shown() as warnings:
        yield show
    for result in results:
        printed = _json_line(result.to_dict(), warnings) if as_json else text(legible_values(result))
        with refusals_explained(Path("standard output")):
            typer.echo(printed)


def _json_line(values: Mapping[str, Any], warnings: list[str]) -> str:
    """One line of JSON; in ASCII where standard output can encode no more."""
    result = dict(values) | ({"warnings": warnings} if warnings else {})
    line = json_text(result)
    try:
        line.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return json.dumps(result)
    return line


@contextmanager
def ticker() -> Iterator[Callable[[str], None]]:
    """Shows the number of finished timings on stderr, if that is a terminal."""
    from tqdm import tqdm

    with tqdm(unit=" timings", disable=not interactive(), leave=False) as bar:

        def tick(name: str) -> None:
            bar.set_description(legible(name))
            bar.update()

        yield tick


def interactive() -> bool:
    """Whether stderr is a terminal, so that progress bars make sense."""
    return sys.stderr.isatty()


def warn(message: str) -> None:
    """Prints a warning on stderr, in one line."""
    typer.echo(f"warning: {legible(message)}", err=True)


class _Warnings(logging.Handler):
    """Prints each warning once, however often it is logged, and keeps it."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Prints one."""
        message = legible(record.getMessage())
        if message not in self.messages:
            self.messages.append(message)
            warn(message)


@contextmanager
def warnings_shown() -> Iterator[list[str]]:
    """Prints what the library logs as warnings meanwhile; yields the list of them, which grows."""
    handler, logger = _Warnings(), logging.getLogger("ziggurat")
    logger.addHandler(handler)
    try:
        yield handler.messages
    finally:
        logger.removeHandler(handler)
