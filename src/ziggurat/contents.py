"""Reads files that may be damaged: regular files only, and every fault is a one-line UserError."""

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

DEEPEST = 100  # levels of nested JSON that are accepted; Ziggurat writes about ten
_CHUNK = 1 << 20  # bytes hashed at a time
# Without O_NONBLOCK, opening a pipe waits for a writer, before we can see that it is a pipe.
_FLAGS = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)


@contextmanager
def opened(path: Path, missing: str) -> Iterator[BufferedReader]:
    """Opens the regular file at `path` for reading; links are followed.

    A missing file is a UserError with the text `missing`. Anything else than a regular file (folder, pipe, device, a
    link to itself), a file without permission, and a failure while the block reads are UserErrors that name the path.
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
    """The whole content of a regular file; UserError as in `opened`."""
    with opened(path, missing) as file:
        return file.read(os.fstat(file.fileno()).st_size)  # bounded, since some files never end


def read_json(path: Path, missing: str) -> dict[str, Any]:
    """The JSON object in a file; UserError as in `opened`, or if the JSON is broken."""
    return parse_json(read_bytes(path, missing), path)


def parse_json(content: bytes, path: Path) -> dict[str, Any]:
    """The JSON object in the content of the file at `path`; UserError names the file if the JSON is broken."""
    try:
        values = loads(content)
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON ({error}); restore it from a backup or train again") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: not a JSON object; restore it from a backup or train again")
    return values


def loads(content: bytes) -> Any:
    """Parses JSON in UTF-8; ValueError, in one line, if it cannot be read."""
    try:
        values = json.loads(content.decode("utf-8"))
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if _depth(values) > DEEPEST:
        raise ValueError("nested too deeply")
    return values


def _depth(value: Any) -> int:
    """Nesting depth of lists and objects, counted up to `DEEPEST` + 1."""
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
    """SHA-256 of JSON values, independent of their layout in a file."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def file_digest(path: Path, missing: str) -> str:
    """SHA-256 of a regular file's content; UserError as in `opened`."""
    digest = hashlib.sha256()
    with opened(path, missing) as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
