"""The one kind of progress bar that trainings have."""

from __future__ import annotations

import sys
from typing import NoReturn

from tqdm import tqdm

_TTY_SECONDS, _FILE_SECONDS = 0.1, 30.0  # between two looks of a bar, for people and for log files


def bar(name: str, total: int, unit: str, shown: bool = True, done: int = 0) -> tqdm[NoReturn]:
    """A bar on stderr over `total` units, `done` of them before."""
    often = _TTY_SECONDS if sys.stderr.isatty() else _FILE_SECONDS
    return tqdm(total=total, desc=name, unit=f" {unit}", mininterval=often, disable=not shown, initial=done)
