"""Nothing is ever half-written, and what the operating system refuses is told in one line."""

from __future__ import annotations

import errno
import os
import stat
import sys
from pathlib import Path

import pytest

from ziggurat.errors import UserError
from ziggurat.files import changed_folder, put, refuse_full_folder, require_target, whole_file, whole_folder

posix = pytest.mark.skipif(sys.platform == "win32", reason="permissions are POSIX's")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def test_a_file_is_there_when_the_block_ends_and_not_before(tmp_path):
    path = tmp_path / "new" / "folder" / "a.jsonl"
    with whole_file(path) as temporary:
        temporary.write_text("all of it")
        assert not path.exists()
        assert (
            temporary.is_relative_to(path.parent) and temporary.suffix == path.suffix
        )  # a rename away, of the same kind
    assert path.read_text() == "all of it"
    assert names(path.parent) == ["a.jsonl"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_failing_block_leaves_the_old_file_and_nothing_else(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(error), whole_file(path) as temporary:
        temporary.write_text("half")
        raise error
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_failing_block_leaves_no_folder(tmp_path, error):
    with pytest.raises(error), whole_folder(tmp_path / "out") as temporary:
        (temporary / "half").write_text("half")
        raise error
    assert names(tmp_path) == []


def test_a_folder_is_there_when_the_block_ends_and_not_before(tmp_path):
    out = tmp_path / "new" / "out"
    with whole_folder(out) as temporary:
        (temporary / "inner").mkdir()
        (temporary / "inner" / "a").write_text("all of it")
        assert not out.exists()
    assert (out / "inner" / "a").read_text() == "all of it"
    assert names(out.parent) == ["out"]


@posix
def test_others_may_read_what_was_written(tmp_path):
    with whole_file(tmp_path / "a") as temporary:
        temporary.write_text("")
    with whole_folder(tmp_path / "b"):
        pass
    assert mode(tmp_path / "a") == 0o644
    assert mode(tmp_path / "b") == 0o755


def test_an_empty_folder_is_taken_and_anything_else_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with whole_folder(tmp_path / "empty") as temporary:
        (temporary / "a").write_text("new")
    assert names(tmp_path / "empty") == ["a"]
    (tmp_path / "file").write_text("kept")
    for name in ("empty", "file"):
        with pytest.raises(UserError, match=f"{name}: exists and is not empty"), whole_folder(tmp_path / name):
            pytest.fail("the block must not run")
        with pytest.raises(UserError, match="choose another --out"):
            refuse_full_folder(tmp_path / name)
    assert (tmp_path / "empty" / "a").read_text() == "new"
    assert (tmp_path / "file").read_text() == "kept"
    assert names(tmp_path) == ["empty", "file"]
    refuse_full_folder(tmp_path / "none")


@pytest.mark.parametrize("whole", [whole_file, whole_folder])
@pytest.mark.parametrize(
    ("number", "fix"),
    [
        (errno.ENOSPC, "free some space"),
        (errno.EDQUOT, "quota"),
        (errno.EACCES, "may write to"),
        (errno.EROFS, "may write to"),
        (errno.EFBIG, "raise the limit"),
    ],
)
def test_a_full_or_forbidden_disk_is_a_user_error(tmp_path, whole, number, fix):
    out = tmp_path / "out"
    with pytest.raises(UserError) as caught, whole(out):
        raise OSError(number, os.strerror(number))
    message = str(caught.value)
    assert message.startswith(f"{out}: ") and fix in message and "\n" not in message
    assert names(tmp_path) == []


def test_a_wrapped_refusal_names_what_was_asked_for(tmp_path):
    with pytest.raises(UserError) as caught, whole_folder(tmp_path / "out") as made, whole_file(made / "weights"):
        raise ValueError("I/O error: File too large (os error 27)")
    assert str(caught.value).startswith(f"{tmp_path / 'out'}: File too large; ")
    with pytest.raises(ValueError, match="os error 2"), whole_folder(tmp_path / "out"):
        raise ValueError("No such file or directory (os error 2)")  # of what was read


@pytest.mark.parametrize("whole", [whole_file, whole_folder])
def test_a_disk_that_is_full_only_at_the_end_is_a_user_error_too(tmp_path, monkeypatch, whole):
    def full(*_):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(UserError, match="free some space"), whole(tmp_path / "out"):
        pass
    assert names(tmp_path) == []


@pytest.mark.parametrize("whole", [whole_file, whole_folder])
def test_a_path_through_a_file_is_a_user_error(tmp_path, whole):
    (tmp_path / "file").write_text("kept")
    with pytest.raises(UserError, match="part of the path is a file"), whole(tmp_path / "file" / "below" / "out"):
        pytest.fail("the block must not run")
    assert (tmp_path / "file").read_text() == "kept"


def test_an_error_without_a_known_fix_is_not_dressed_up(tmp_path):
    with pytest.raises(OSError, match="odd") as caught, whole_file(tmp_path / "a"):
        raise OSError(errno.EIO, "odd")
    assert not isinstance(caught.value, UserError)


def test_writing_a_file_over_a_folder_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match="Is a directory; choose another name"), whole_file(tmp_path / ".") as path:
        path.write_text("x")


@posix
def test_a_link_keeps_pointing_and_a_file_keeps_its_mode(tmp_path):
    real, link = tmp_path / "real.txt", tmp_path / "link.txt"
    real.write_text("old")
    real.chmod(0o600)
    link.symlink_to(real)
    with whole_file(link) as temporary:
        temporary.write_text("new")
    assert link.is_symlink() and real.read_text() == "new" and mode(real) == 0o600
    assert names(tmp_path) == ["link.txt", "real.txt"]


@posix
@pytest.mark.parametrize(
    ("mask", "file", "folder"), [(0o022, 0o644, 0o755), (0o077, 0o600, 0o700), (0o002, 0o664, 0o775)]
)
def test_all_of_a_new_folder_follows_the_umask(tmp_path, mask, file, folder):
    before = os.umask(mask)
    try:
        with whole_folder(tmp_path / "model") as made:
            (made / "tiers").mkdir(mode=0o700)
            for name in ("weights", "tiers/weights"):
                (made / name).touch(mode=0o600)
    finally:
        os.umask(before)
    assert {mode(tmp_path / "model" / name) for name in ("weights", "tiers/weights")} == {file}
    assert {mode(tmp_path / name) for name in ("model", "model/tiers")} == {folder}


@posix
def test_a_changed_folder_keeps_modes_and_new_files_the_umask(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir(mode=0o750)
    (folder / "mine").touch(mode=0o640)
    with changed_folder(folder) as changed:
        (changed / "mine").unlink()
        (changed / "mine").touch(mode=0o600)
        (changed / "new").touch(mode=0o600)
    assert [mode(path) for path in (folder, folder / "mine", folder / "new")] == [0o750, 0o640, 0o666 & ~umask()]


@posix
def test_a_new_file_heeds_the_umask(tmp_path):
    before = os.umask(0o077)
    try:
        with whole_file(tmp_path / "a.txt") as temporary:
            temporary.write_text("mine")
    finally:
        os.umask(before)
    assert mode(tmp_path / "a.txt") == 0o600


@posix
def test_what_is_no_file_is_written_to_and_stays_what_it_is(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    with whole_file(pipe) as temporary:
        temporary.write_text("through")
    assert os.read(reader, 100) == b"through"
    os.close(reader)
    assert stat.S_ISFIFO(pipe.stat().st_mode) and names(tmp_path) == ["pipe"]


def test_a_target_that_cannot_be_is_known_before_the_work(tmp_path):
    data = tmp_path / "rows.jsonl"
    data.write_text("{}")
    require_target(tmp_path / "new" / "folder" / "out.jsonl", data)
    require_target(data, "hf:some/rows@train")
    for target, says in (
        (data, "is an input of this command"),
        (tmp_path, "choose another name"),
        (data / "out", "part of the path"),
    ):
        with pytest.raises(UserError, match=says):
            require_target(target, data)
    assert names(tmp_path) == ["rows.jsonl"]


def test_an_input_file_is_no_target_but_a_page_beside_it_is(tmp_path):
    folder = tmp_path / "rows"
    folder.mkdir()
    for name in ("more.jsonl", "report.html"):
        (folder / name).write_text("{}")
    with pytest.raises(UserError, match=r"more\.jsonl: is an input of this command; choose another name"):
        require_target(folder / "more.jsonl", None, folder)
    require_target(folder / "report.html", tmp_path / "rows.jsonl", folder)
    require_target(folder / "new.jsonl", folder)


def test_a_folder_that_cannot_be_replaced_is_filled(tmp_path, monkeypatch):
    """As a mounted volume."""
    made, out = tmp_path / "made", tmp_path / "out"
    made.mkdir()
    out.mkdir()
    (made / "a").write_text("1")

    def busy(_):
        raise OSError(errno.EBUSY, "busy")

    monkeypatch.setattr(Path, "rmdir", lambda path: busy(path) if path == out else os.rmdir(path))
    put(made, out)
    assert names(tmp_path) == ["out"] and (out / "a").read_text() == "1"


def test_a_folder_is_changed_as_a_whole_or_stays_as_it_was(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "a").write_text("1")
    with pytest.raises(KeyError), changed_folder(folder) as made:
        (made / "a").write_text("2")
        raise KeyError
    assert (folder / "a").read_text() == "1" and names(tmp_path) == ["model"]
    with changed_folder(folder) as made:
        (made / "a").write_text("2")
        (made / "b").write_text("3")
        assert names(folder) == ["a"]
    assert (folder / "a").read_text() == "2" and names(folder) == ["a", "b"] and names(tmp_path) == ["model"]
