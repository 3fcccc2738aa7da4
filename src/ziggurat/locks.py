"""Who works where: locks of the kernel, which go with their process, however it ends.

Windows and some network file systems know none of them; there nothing is waited for, and nothing of others removed.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ziggurat.errors import UserError

_fcntl: Any = importlib.import_module("fcntl") if os.name == "posix" else None


@contextmanager
def locked_folder(folder: Path, wait: bool = True) -> Iterator[bool]:
    """Locks a folder until the block ends; yields False if another process holds it or the system has no locks."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        yield False
        return
    try:
        yield _lock(handle, wait) is True
    finally:
        os.close(handle)


@contextmanager
def locked_file(path: Path, busy: str | None = None) -> Iterator[None]:
    """Locks with a file of its own, which goes when the block ends. While another process has the lock, it waits for
    it, or raises a UserError that says `busy`.
    """
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        got = _lock(handle, wait=busy is None)
        if got is not False and (got is None or _is_still(handle, path)):
            break
        os.close(handle)
        if not got:
            raise UserError(str(busy))
    try:
        yield
    finally:
        # Still locked, so that a waiting process sees that the name is gone, and makes the file anew.
        path.unlink(missing_ok=True)
        os.close(handle)


def _lock(handle: int, wait: bool) -> bool | None:
    """Whether this open file is locked now; None where there are no locks."""
    if _fcntl is None:
        return None
    try:
        _fcntl.flock(handle, _fcntl.LOCK_EX | (0 if wait else _fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _is_still(handle: int, path: Path) -> bool:
    """Whether the name is still that of this open file."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False
