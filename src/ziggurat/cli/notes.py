"""Warnings: one line each on stderr while the work goes on, and with --json a part of the result."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from ziggurat.system import legible


class _Notes(logging.Handler):
    """Says each warning once, however often rows are read anew, and keeps it."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Prints one."""
        message = legible(record.getMessage())
        if message not in self.said:
            self.said.append(message)
            typer.echo(f"warning: {message}", err=True)


@contextmanager
def warnings_shown() -> Iterator[list[str]]:
    """Shows what the library logs as warnings meanwhile; yields the list of them, which grows."""
    handler, logger = _Notes(), logging.getLogger("ziggurat")
    logger.addHandler(handler)
    try:
        yield handler.said
    finally:
        logger.removeHandler(handler)
