"""The command line, run within the test."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from ziggurat.cli import main


@pytest.fixture
def ziggurat(capsys, monkeypatch) -> Callable:
    """A function that runs a command line and returns exit code, stdout and stderr."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["ziggurat", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        captured = capsys.readouterr()
        return stop.value.code or 0, captured.out, captured.err

    return run


@pytest.fixture
def succeeds(ziggurat) -> Callable:
    """A function that runs a command line which must succeed, and returns what it prints."""

    def run(*arguments):
        code, out, err = ziggurat(*arguments)
        assert code == 0, err
        return out

    return run


@pytest.fixture
def fails(ziggurat) -> Callable:
    """A function that runs a command line and returns its one line of complaint."""

    def run(*arguments):
        code, out, err = ziggurat(*arguments)
        lines = [line for line in err.splitlines() if line.startswith("ziggurat: ")]
        assert (code, out, len(lines)) == (2, "", 1), err
        assert "Traceback" not in err
        return lines[0]

    return run
