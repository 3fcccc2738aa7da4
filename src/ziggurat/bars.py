"""The one kind of progress bar that there is: on stderr, and seldom where that is a file."""

from __future__ import annotations

import sys
from typing import NoReturn

from tqdm import tqdm

_TTY_SECONDS, _FILE_SECONDS = 0.1, 30.0  # between two looks of a bar, for people and for log files


def bar(
    name: str | None, total: int, unit: str, shown: bool = True, done: int = 0, stays: bool = False
) -> tqdm[NoReturn]:
    """A bar over `total` units, `done` of them before; it `stays` when it is full, or vanishes."""
    often = _TTY_SECONDS if sys.stderr.isatty() else _FILE_SECONDS
    return tqdm(
        desc=name, total=total, unit=f" {unit}", mininterval=often, disable=not shown, initial=done, leave=stays
    )
