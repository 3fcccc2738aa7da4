"""Reading files that somebody else may have spoilt: regular files alone, and whatever is wrong with one is one line."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any

from ziggurat.errors import UserError

DEEPEST = 100  # levels of JSON that are read: what we write has about ten
_CHUNK = 1 << 20  # bytes that are hashed at a time
# Without O_NONBLOCK the system waits for somebody who writes into a pipe, before we can see that it is one.
_FLAGS = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)


@contextmanager
def opened(path: Path, missing: str) -> Iterator[BufferedReader]:
    """The regular file at `path`, open for reading; a link leads to what it points to.

    UserError with the text `missing` where there is none, or with a line that names it where it is something else (a
    folder, a pipe, a device, a link to itself), may not be read, or fails while the block reads it.
    """
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | _FLAGS)) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise UserError(f"{path}: is no file but a pipe or a device; put the file in its place")
            yield file
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(missing) from None
    except IsADirectoryError:
        raise UserError(f"{path}: is a folder, not a file; name the file") from None
    except PermissionError:
        raise UserError(f"{path}: you may not read it; ask its owner for `chmod a+r`") from None
    except OSError as error:
        why = "is a link that leads to itself" if error.errno == errno.ELOOP else f"cannot be read ({error.strerror})"
        raise UserError(f"{path}: {why}; copy it again") from None


def read_bytes(path: Path, missing: str) -> bytes:
    """All of a regular file; UserError as `opened`."""
    with opened(path, missing) as file:
        return file.read(os.fstat(file.fileno()).st_size)  # not more: some files never end


def read_json(path: Path, missing: str) -> dict[str, Any]:
    """A JSON object; UserError as `opened`, or one that names the file if it is broken."""
    return parse_json(read_bytes(path, missing), path)


def parse_json(content: bytes, path: Path) -> dict[str, Any]:
    """The JSON object in a file's content; UserError that names the file if it is broken."""
    try:
        values = loads(content)
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON ({error}); restore it from a backup or train again") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: not a JSON object; restore it from a backup or train again")
    return values


def loads(content: bytes) -> Any:
    """The value that JSON in UTF-8 stands for; ValueError for whatever cannot be read, in one line."""
    try:
        values = json.loads(content.decode("utf-8"))
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if _depth(values) > DEEPEST:
        raise ValueError("nested too deeply")
    return values


def _depth(value: Any) -> int:
    """Levels of lists and objects, counted as far as one more than `DEEPEST`."""
    level, depth = [value], 0
    while depth <= DEEPEST:
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            break
        depth += 1
    return depth


def digest_of(values: Any) -> str:
    """SHA-256 of JSON values, however they are laid out in a file."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def file_digest(path: Path, missing: str) -> str:
    """SHA-256 of a regular file's content; UserError as `opened`."""
    digest = hashlib.sha256()
    with opened(path, missing) as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
