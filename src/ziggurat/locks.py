"""Locks of the kernel on files and folders. They end with their process, even if it is killed.

Windows and some network file systems have no such locks. There, nothing waits, and leftovers of other processes stay.
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
    """Locks a folder until the block ends; yields False if another process has the lock or the system has no locks."""
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
    """Locks by means of a lock file, which is removed when the block ends.

    While another process has the lock, waits for it, or with `busy` raises a UserError with that text.
    """
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        locked = _lock(handle, wait=busy is None)
        if locked is not False and (locked is None or _is_still(handle, path)):
            break
        os.close(handle)
        if not locked:
            raise UserError(str(busy))
    try:
        yield
    finally:
        # Removed while still locked: a waiting process then sees that the name is gone, and makes a new file.
        path.unlink(missing_ok=True)
        os.close(handle)


def _lock(handle: int, wait: bool) -> bool | None:
    """Locks an open file; returns whether that worked, None if the system has no locks."""
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
    """Whether `path` still names this open file."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False
