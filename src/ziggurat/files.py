"""Writing files so that nothing is ever half-written: a hidden folder beside the target, then a rename."""

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

_FULL = 1 << 20  # bytes: a disk with less space than this is full
_HIDDEN = ".part"  # ends the name of the hidden folder in which something is made
_RANDOM = "[a-z0-9_]{8}"  # what `mkdtemp` puts before that
_ROOM = "made"  # in it: the hidden folder itself is locked, and what is made may be made in the same way
_BEFORE = "before"  # in that, what is about to be replaced


@contextmanager
def _room_for(path: Path) -> Iterator[Path]:
    """Yields a hidden folder beside `path`, to make in it what will be there; it goes when the block ends.

    A killed run cannot remove its own, so the next one for the same path does; that of a living one is locked.
    """
    with ExitStack() as held:
        with _swept(path):  # no other process sweeps before the hidden folder is locked
            hidden = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=_HIDDEN, dir=path.parent))
            held.callback(shutil.rmtree, hidden, ignore_errors=True)
            held.enter_context(locked_folder(hidden))
        room = hidden / _ROOM
        room.mkdir()
        yield room


@contextmanager
def _swept(path: Path) -> Iterator[None]:
    """Removes what killed runs left beside `path`; what one of them had moved aside and not replaced comes back."""
    name = re.compile(re.escape(f".{path.name}.") + _RANDOM + re.escape(_HIDDEN))
    with locked_folder(path.parent) as alone:
        beside = [*os.scandir(path.parent)] if alone else []
        for hidden in [Path(entry) for entry in beside if name.fullmatch(entry.name) and not entry.is_symlink()]:
            with locked_folder(hidden, wait=False) as dead:
                before = hidden / _ROOM / _BEFORE
                if dead and before.is_dir() and not path.exists():
                    before.rename(path)
                if dead:
                    shutil.rmtree(hidden, ignore_errors=True)
        yield


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
        with _room_for(folder / path.name) as room:
            made = room / path.name
            made.touch()
            yield made
            if device:
                with made.open("rb") as source, path.open("wb") as target:
                    shutil.copyfileobj(source, target)
            else:
                # A library's own 0600 would hide the result from a colleague or a server.
                made.chmod(stat.S_IMODE(path.stat().st_mode) if path.is_file() else 0o666 & ~_umask())
                made.replace(path)


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
            with _room_for(next(parent for parent in path.absolute().parents if parent.exists()) / path.name):
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
        with _room_for(path) as room:
            made = room / path.name
            made.mkdir()
            yield made
            share(made)
            put(made, path)


@contextmanager
def changed_folder(path: Path) -> Iterator[Path]:
    """Yields a copy of a folder that takes its place when the block ends; if the block fails nothing has changed."""
    with refusals_explained(path), _room_for(path) as room:
        changed, before = room / "changed", room / _BEFORE
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
    """Gives a folder and all in it the modes that the user's umask asks for; a file of `like` keeps the mode it has.

    Libraries make some files, and `mkdtemp` makes folders, that other users cannot read.
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
    """UserError if `path` is there and no empty folder, or if it is the one that one is in."""
    with refusals_explained(path), _swept(path):
        # Of a name that is too long the system says so here.
        taken = path.exists() and not (path.is_dir() and not any(path.iterdir()))
    if taken:
        raise UserError(f"{path}: exists and is not empty; choose another --out or remove it")
    if path.resolve() == Path.cwd():
        raise UserError(f"{path}: is the folder that you are in; name a new one in it, such as {path / 'model'}")


def put(made: Path, out: Path) -> None:
    """Moves a finished folder to its place, which may be an empty folder, or a link to one.

    A mounted folder cannot be replaced: it is filled, file by file. UserError where another run was there first.
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
        with _room_for(out) as room:  # a link to another disk
            shutil.copytree(made, room / out.name).replace(out)
        shutil.rmtree(made)


_POINTER = b"version https://git-lfs.github.com/spec/"
_LARGEST_POINTER = 1024  # bytes, as Git LFS has it


def refuse_pointer(path: Path) -> None:
    """UserError where a file is what Git has in the place of a large one that has not been fetched yet."""
    try:
        small = path.is_file() and path.stat().st_size < _LARGEST_POINTER
        content = path.read_bytes() if small else b""
    except OSError:
        return  # reading it says why it cannot be read
    if content.startswith(_POINTER):
        raise UserError(f"{path}: a Git LFS pointer, not the file itself; run `git lfs pull` in its repository")


def refuse_pointers(folder: Path) -> None:
    """The same of each file of a model's folder, and of its tiers."""
    for pattern in ("*", "tiers/*/*"):
        for path in sorted(folder.glob(pattern)):
            refuse_pointer(path)


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
        number = _number(error, path)
        if number not in _FIXES:
            raise
        place = _as_asked(path)
        raise UserError(f"{place}: {os.strerror(number)}; {_FIXES[number]}; nothing was half-written") from error


def _as_asked(path: Path) -> Path:
    """What was to be written, where `path` is in the hidden folder for it."""
    for place in reversed((path, *path.parents)):
        if hidden := re.fullmatch(r"\.(.+)\." + _RANDOM + re.escape(_HIDDEN), place.name):
            return place.with_name(hidden[1])
    return path


def _number(error: Exception, path: Path) -> int | None:
    """The system's number of a refusal; libraries wrap it in errors of their own, so the disk itself is asked too."""
    if isinstance(error, OSError):
        return error.errno
    told = re.search(r"\(os error (\d+)\)", str(error))  # as Rust writes it
    if told and int(told[1]) in _OF_WRITING:
        return int(told[1])
    return errno.ENOSPC if _disk_is_full(path) else None


def _disk_is_full(path: Path) -> bool:
    existing = next(parent for parent in (path.absolute(), *path.absolute().parents) if parent.exists())
    return shutil.disk_usage(existing).free < _FULL


_OF_WRITING = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)  # what no reading can meet
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
