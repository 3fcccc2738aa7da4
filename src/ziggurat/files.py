"""Writes files and folders whole or not at all: first into a hidden folder beside the target, then a rename."""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ziggurat.errors import UserError
from ziggurat.locks import locked_folder

_FULL = 1 << 20  # bytes: a disk with less free space counts as full
_HIDDEN = ".part"  # suffix of the hidden folder's name
_RANDOM = "[a-z0-9_]{8}"  # the part of the name that `mkdtemp` makes up
_WORK = "made"  # sub-folder to work in: the hidden folder itself is locked, and writers may be nested
_BEFORE = "before"  # sub-folder of that, for what is about to be replaced


@contextmanager
def _hidden_folder(path: Path) -> Iterator[Path]:
    """Yields a hidden folder beside `path` to write into; it is removed when the block ends.

    A killed process leaves its hidden folder. The next call for the same path removes it; a lock protects the folders
    of running processes.
    """
    with ExitStack() as cleanup:
        with _swept(path):  # no other process sweeps before the hidden folder is locked
            hidden = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=_HIDDEN, dir=path.parent))
            cleanup.callback(shutil.rmtree, hidden, ignore_errors=True)
            cleanup.enter_context(locked_folder(hidden))
        folder = hidden / _WORK
        folder.mkdir()
        yield folder


@contextmanager
def _swept(path: Path) -> Iterator[None]:
    """Removes hidden folders that killed processes left beside `path`; puts back what they had moved aside."""
    name = re.compile(re.escape(f".{path.name}.") + _RANDOM + re.escape(_HIDDEN))
    with locked_folder(path.parent) as locked:
        entries = [*os.scandir(path.parent)] if locked else []
        for hidden in [Path(entry) for entry in entries if name.fullmatch(entry.name) and not entry.is_symlink()]:
            with locked_folder(hidden, wait=False) as abandoned:
                before = hidden / _WORK / _BEFORE
                if abandoned and before.is_dir() and not path.exists():
                    before.rename(path)
                if abandoned:
                    shutil.rmtree(hidden, ignore_errors=True)
        yield


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yields a temporary path that replaces `path` when the block ends, and is removed if the block fails.

    An existing file keeps its mode; a link keeps its target, which is replaced. Devices and pipes (/dev/stdout) are
    written to.
    """
    with refusals_explained(path):
        path = path.resolve() if path.is_symlink() else path
        device = path.exists() and not path.is_file() and not path.is_dir()
        folder = Path(tempfile.gettempdir()) if device else path.parent
        folder.mkdir(parents=True, exist_ok=True)
        with _hidden_folder(folder / path.name) as temporary:
            made = temporary / path.name
            made.touch()
            yield made
            if device:
                with made.open("rb") as source, path.open("wb") as target:
                    shutil.copyfileobj(source, target)
            else:
                # Libraries make files with mode 0600, which other users and servers could not read.
                made.chmod(stat.S_IMODE(path.stat().st_mode) if path.is_file() else 0o666 & ~_umask())
                made.replace(path)


def require_target(path: Path, *sources: str | Path | None) -> None:
    """UserError if no file can be written at `path`, or if it is one of the `sources`: found before the work starts.

    A source is a file, a folder of rows (all its files but HTML pages are read), None, or a name that is no path.
    """
    if any(source is not None and _is_read(path, Path(source)) for source in sources):
        raise UserError(f"{path}: is an input of this command; choose another name")
    with refusals_explained(path):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not path.exists():
            with _hidden_folder(next(parent for parent in path.absolute().parents if parent.exists()) / path.name):
                pass


def _is_read(path: Path, source: Path) -> bool:
    if not path.is_file() or not source.exists():
        return False
    if source.is_dir():
        return path.suffix != ".html" and path.resolve().is_relative_to(source.resolve())
    return path.samefile(source)


def _umask() -> int:
    mask = os.umask(0o022)  # the only way to read the mask is to set it
    os.umask(mask)
    return mask


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yields a temporary folder beside `path` that becomes `path`; UserError if `path` is not empty."""
    refuse_full_folder(path)
    with refusals_explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with _hidden_folder(path) as temporary:
            made = temporary / path.name
            made.mkdir()
            yield made
            share(made)
            put(made, path)


@contextmanager
def changed_folder(path: Path) -> Iterator[Path]:
    """Yields a copy of a folder, which replaces it when the block ends; if the block fails, the folder is unchanged."""
    with refusals_explained(path), _hidden_folder(path) as temporary:
        changed, before = temporary / "changed", temporary / _BEFORE
        shutil.copytree(path, changed)
        yield changed
        share(changed, like=path)
        try:
            path.rename(before)
            changed.rename(path)
        except BaseException:
            if before.exists() and not path.exists():
                before.rename(path)
            raise


def share(folder: Path, like: Path | None = None) -> None:
    """Gives a folder and all its files the modes of the user's umask; files that are also in `like` get its modes.

    Libraries and `mkdtemp` make files and folders that other users cannot read.
    """
    mask = _umask()
    for path in (folder, *folder.rglob("*")):
        same = None if like is None else like / path.relative_to(folder)
        if path.is_symlink():
            continue
        if same is not None and same.exists():
            path.chmod(stat.S_IMODE(same.stat().st_mode))
        else:
            path.chmod((0o777 if path.is_dir() else 0o666) & ~mask)


def refuse_full_folder(path: Path) -> None:
    """UserError if `path` exists and is not an empty folder, or if it is the current folder."""
    with refusals_explained(path), _swept(path):
        # A name that is too long is an error of the system here.
        occupied = path.exists() and not (path.is_dir() and not any(path.iterdir()))
    if occupied:
        raise UserError(f"{path}: exists and is not empty; choose another --out or remove it")
    if path.resolve() == Path.cwd():
        raise UserError(f"{path}: is the folder that you are in; name a new one in it, such as {path / 'model'}")


def put(made: Path, out: Path) -> None:
    """Moves a finished folder to `out`, which may be an empty folder or a link to one.

    A mounted folder cannot be replaced, so its files are moved into it. UserError if another process was faster.
    """
    out = out.resolve()
    if out.is_dir():
        refuse_full_folder(out)
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
        if error.errno == errno.ENOTEMPTY:
            refuse_full_folder(out)
        if error.errno != errno.EXDEV:
            raise
        with _hidden_folder(out) as temporary:  # a link to another disk
            shutil.copytree(made, temporary / out.name).replace(out)
        shutil.rmtree(made)


_POINTER = b"version https://git-lfs.github.com/spec/"
_LARGEST_POINTER = 1024  # bytes, by the specification of Git LFS


def refuse_pointer(path: Path) -> None:
    """UserError if a file is a Git LFS pointer, whose content has not been fetched yet."""
    try:
        small = path.is_file() and path.stat().st_size < _LARGEST_POINTER
        content = path.read_bytes() if small else b""
    except OSError:
        return  # the reader reports why it cannot be read
    if content.startswith(_POINTER):
        raise UserError(f"{path}: a Git LFS pointer, not the file itself; run `git lfs pull` in its repository")


def refuse_pointers(folder: Path) -> None:
    """`refuse_pointer` for each file in a model's folder and in those of its tiers."""
    for pattern in ("*", "tiers/*/*"):
        for path in sorted(folder.glob(pattern)):
            refuse_pointer(path)


def is_file(path: Path) -> bool:
    """Whether `path` is a file; False for a name that is not valid."""
    try:
        return path.is_file()
    except OSError:
        return False


@contextmanager
def refusals_explained(path: Path) -> Iterator[None]:
    """Turns the system's refusals to write below `path` into a UserError that names the fix."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        number = _number(error, path)
        if number not in _FIXES:
            raise
        target = _target(path)
        raise UserError(f"{target}: {os.strerror(number)}; {_FIXES[number]}; nothing was half-written") from error


def _target(path: Path) -> Path:
    """The final path of a file in a hidden folder; other paths unchanged."""
    for part in reversed((path, *path.parents)):
        if hidden := re.fullmatch(r"\.(.+)\." + _RANDOM + re.escape(_HIDDEN), part.name):
            return part.with_name(hidden[1])
    return path


def _number(error: Exception, path: Path) -> int | None:
    """The system's error number. Libraries may wrap it in other errors, so free disk space is checked too."""
    if isinstance(error, OSError):
        return error.errno
    wrapped = re.search(r"\(os error (\d+)\)", str(error))  # the format of Rust's errors
    if wrapped and int(wrapped[1]) in _OF_WRITING:
        return int(wrapped[1])
    return errno.ENOSPC if _disk_is_full(path) else None


def _disk_is_full(path: Path) -> bool:
    existing = next(parent for parent in (path.absolute(), *path.absolute().parents) if parent.exists())
    return shutil.disk_usage(existing).free < _FULL


_OF_WRITING = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)  # reading cannot cause these
_FIXES = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some of your quota",
    errno.EFBIG: "the file system or `ulimit -f` allows no larger file; choose another disk or raise the limit",
    errno.ELOOP: "a part of the path is a link to itself",
    errno.EACCES: "choose a folder that you may write to",
    errno.EPERM: "choose a folder that you may write to",
    errno.EROFS: "choose a folder that you may write to",
    errno.EISDIR: "choose another name",
    errno.ENOENT: "choose a folder that exists or can be made",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ENOTDIR: "a part of the path is a file",
    errno.EEXIST: "a part of the path is a file",
}
