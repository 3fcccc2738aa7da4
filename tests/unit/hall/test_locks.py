"""Locks keep others out while their process lives, and not a moment longer."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from ziggurat import locks
from ziggurat.errors import UserError
from ziggurat.files import changed_folder, refuse_full_folder, whole_file, whole_folder
from ziggurat.locks import locked_file, locked_folder

pytestmark = pytest.mark.skipif(os.name != "posix", reason="locks are POSIX's")

HOLDS = """
import sys, time
from pathlib import Path
from ziggurat import files, locks
with {context} as made:
    {work}
    print("there", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holding():
    """A function that starts a process which stays in a context, and returns when it is there."""
    started = []

    def start(context: str, work: str = "pass") -> subprocess.Popen:
        code = HOLDS.format(context=context, work=work)
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout.readline() == "there\n"
        return process

    yield start
    for process in started:
        kill(process)


def kill(process: subprocess.Popen) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_lock_is_held_by_one_and_goes_with_its_process(tmp_path, holding):
    path = tmp_path / "lock"
    process = holding(f"locks.locked_file(Path({str(path)!r}))")
    with pytest.raises(UserError, match="somebody is at work"), locked_file(path, "somebody is at work"):
        pytest.fail("the block must not run")
    kill(process)
    with locked_file(path, "somebody is at work"):
        assert path.exists()
    assert names(tmp_path) == []


def test_who_waits_gets_the_lock_when_it_is_free(tmp_path):
    path, inside, most = tmp_path / "lock", [], []

    def work():
        for _ in range(50):
            with locked_file(path):
                inside.append(1)
                most.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1 and len(most) == 200 and names(tmp_path) == []


def test_without_locks_work_goes_on_and_nothing_is_removed(tmp_path, monkeypatch):
    left = tmp_path / ".out.abcdefgh.part"
    left.mkdir()
    monkeypatch.setattr(locks, "_fcntl", None)
    with locked_file(tmp_path / "lock", "busy"), locked_file(tmp_path / "lock", "busy"):
        pass
    with locked_folder(tmp_path) as locked:
        assert not locked
    with whole_folder(tmp_path / "out"):
        pass
    assert names(tmp_path) == [".out.abcdefgh.part", "out"]


def test_leftovers_of_a_killed_run_go_and_a_living_runs_stay(tmp_path, holding):
    out, file = tmp_path / "out", tmp_path / "answers.jsonl"
    write = "(made / 'half').write_text('half')"
    dead = holding(f"files.whole_folder(Path({str(out)!r}))", write)
    living = holding(f"files.whole_folder(Path({str(out)!r}))", write)
    other = holding(f"files.whole_file(Path({str(file)!r}))", "made.write_text('half')")
    assert len(names(tmp_path)) == 3
    for process in (dead, other):
        kill(process)
    assert len(names(tmp_path)) == 3
    with whole_folder(out) as made:
        (made / "a").write_text("whole")
    with whole_file(file) as made:
        made.write_text("whole")
    assert len(names(tmp_path)) == 3  # both results, and what the living one makes
    kill(living)
    with pytest.raises(UserError, match="not empty"):  # who is refused tidies up too
        refuse_full_folder(out)
    assert names(tmp_path) == ["answers.jsonl", "out"]
    assert names(out) == ["a"] and file.read_text() == "whole"


def test_names_of_others_are_left_alone(tmp_path):
    kept = [".out.settings.json", ".out.abc.part", ".out.x.abcdefgh.part", ".outer.abcdefgh.part", "out.abcdefgh.part"]
    for name in kept:
        (tmp_path / name).mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / ".out.abcdefgh.part").symlink_to(tmp_path / "elsewhere")
    with whole_folder(tmp_path / "out"):
        pass
    assert names(tmp_path) == sorted([*kept, "elsewhere", ".out.abcdefgh.part", "out"])


def test_a_folder_that_a_killed_run_had_moved_aside_comes_back(tmp_path):
    model = tmp_path / "model"
    before = tmp_path / ".model.abcdefgh.part" / "made" / "before"
    before.mkdir(parents=True)
    (before / "a").write_text("1")
    with pytest.raises(UserError, match="not empty"):
        refuse_full_folder(model)
    assert names(tmp_path) == ["model"] and (model / "a").read_text() == "1"


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_change_stopped_between_its_two_renames_is_undone(tmp_path, monkeypatch, error):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "a").write_text("1")
    rename = type(folder).rename

    def stopped(path, target):
        if path.name == "changed":
            raise error
        return rename(path, target)

    monkeypatch.setattr(type(folder), "rename", stopped)
    with pytest.raises(error), changed_folder(folder) as made:
        (made / "a").write_text("2")
    assert names(tmp_path) == ["model"] and (folder / "a").read_text() == "1"


def test_two_that_make_one_folder_do_not_mix(tmp_path):
    out = tmp_path / "out"
    with pytest.raises(UserError, match="out: exists and is not empty"), whole_folder(out) as slow:
        (slow / "a").write_text("slow")
        (slow / "tiers").mkdir()
        with whole_folder(out) as fast:
            (fast / "b").write_text("fast")
    assert names(tmp_path) == ["out"] and names(out) == ["b"]
