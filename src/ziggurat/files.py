"""Writing files so that nothing is ever half-written: a temporary name beside the target, then a rename."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ziggurat.errors import UserError

_FULL = 1 << 20  # bytes: a disk with less space than this is full


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yields a temporary path that takes the place of `path` when the block ends, and vanishes if it fails.

    A file that was there keeps its mode, a link what it points to; what is no file (/dev/stdout, a pipe) is written to.
    """
    with refusals_explained(path):
        path = path.resolve() if path.is_symlink() else path
        device = path.exists() and not path.is_file() and not path.is_dir()
        folder = Path(tempfile.gettempdir()) if device else path.parent
        folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=path.suffix, dir=folder)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            if device:
                with temporary.open("rb") as made, path.open("wb") as target:
                    shutil.copyfileobj(made, target)
            else:
                # mkstemp's own 0600 would hide the result from a colleague or a server.
                temporary.chmod(stat.S_IMODE(path.stat().st_mode) if path.is_file() else 0o666 & ~_umask())
                temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def require_target(path: Path, *sources: str | Path | None) -> None:
    """UserError where no file can be written at `path`, or where it is what is read: before the work, not after it.

    Sources are files, or folders of rows, in which every file but a page is read; or None, or no paths at all.
    """
    if any(source is not None and _is_read(path, Path(source)) for source in sources):
        raise UserError(f"{path}: is what is read; choose another name")
    with refusals_explained(path):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not path.exists():
            with tempfile.NamedTemporaryFile(dir=next(parent for parent in path.absolute().parents if parent.exists())):
                pass


def _is_read(path: Path, source: Path) -> bool:
    if not path.is_file() or not source.exists():
        return False
    if source.is_dir():
        return path.suffix != ".html" and path.resolve().is_relative_to(source.resolve())
    return path.samefile(source)


def _umask() -> int:
    mask = os.umask(0o022)  # it can only be asked by setting it
    os.umask(mask)
    return mask


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yields a temporary folder beside `path` that becomes `path`; UserError if `path` holds anything already."""
    refuse_full_folder(path)
    with refusals_explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        try:
            yield temporary
            temporary.chmod(0o755)
            put(temporary, path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def changed_folder(path: Path) -> Iterator[Path]:
    """Yields a copy of a folder that takes its place when the block ends; if the block fails nothing has changed."""
    with refusals_explained(path):
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        try:
            changed, before = temporary / "changed", temporary / "before"
            shutil.copytree(path, changed)
            yield changed
            path.rename(before)
            try:
                changed.rename(path)
            except OSError:
                before.rename(path)
                raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def refuse_full_folder(path: Path) -> None:
    """UserError if `path` is a file, a folder that holds something, or the one that one is in."""
    with refusals_explained(path):
        path.exists()  # of a name that is too long the system says so here
    if path.is_file() or (path.is_dir() and any(path.iterdir())):
        raise UserError(f"{path}: exists and is not empty; choose another --out or remove it")
    if path.resolve() == Path.cwd():
        raise UserError(f"{path}: is the folder that you are in; name a new one in it, such as {path / 'model'}")


def put(made: Path, out: Path) -> None:
    """Moves a finished folder to its place, which may be an empty folder, or a link to one.

    A mounted folder cannot be replaced: it is filled, file by file.
    """
    out = out.resolve()
    if out.is_dir():
        try:
            out.rmdir()
        except OSError:
            for part in sorted(made.iterdir()):
                shutil.move(part, out / part.name)
            made.rmdir()
            return
    try:
        made.replace(out)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        shutil.move(made, out)  # a link to another disk


def is_file(path: Path) -> bool:
    """Whether there is such a file; False for a name that no file can have."""
    try:
        return path.is_file()
    except OSError:
        return False


@contextmanager
def refusals_explained(path: Path) -> Iterator[None]:
    """The operating system's refusals to write below `path` as a UserError that names the fix."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        # Libraries wrap a full disk in errors of their own, so the disk itself is asked.
        number = error.errno if isinstance(error, OSError) else errno.ENOSPC if _disk_is_full(path) else None
        if number not in _FIXES:
            raise
        raise UserError(f"{path}: {os.strerror(number)}; {_FIXES[number]}; nothing was half-written") from error


def _disk_is_full(path: Path) -> bool:
    existing = next(parent for parent in (path.absolute(), *path.absolute().parents) if parent.exists())
    return shutil.disk_usage(existing).free < _FULL


_FIXES = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some of your quota",
    errno.EACCES: "choose a folder that you may write to",
    errno.EPERM: "choose a folder that you may write to",
    errno.EROFS: "choose a folder that you may write to",
    errno.EISDIR: "choose another name",
    errno.ENOENT: "choose a folder that exists or can be made",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ENOTDIR: "a part of the path is a file",
    errno.EEXIST: "a part of the path is a file",
}
