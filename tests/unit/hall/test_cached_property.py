"""Properties that are computed once: for all threads, and for children that are forked meanwhile."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path

import ziggurat
from ziggurat.system import cached_property


@dataclass(frozen=True)
class Slow:
    begun: threading.Event
    goes_on: threading.Event

    @cached_property
    def value(self) -> list[int]:
        """What it says."""
        self.begun.set()
        assert self.goes_on.wait(30)
        return [1]


def test_it_is_computed_once_and_documented():
    going = threading.Event()
    going.set()
    slow = Slow(threading.Event(), going)
    assert slow.value is slow.value == [1]
    assert Slow.value.__doc__ == "What it says."


def test_one_instance_does_not_wait_for_another():
    slow, quick = Slow(threading.Event(), threading.Event()), Slow(threading.Event(), threading.Event())
    thread = threading.Thread(target=lambda: slow.value)
    thread.start()
    assert slow.begun.wait(30)
    quick.goes_on.set()
    assert quick.value == [1]
    assert thread.is_alive()
    slow.goes_on.set()
    thread.join()


def test_no_other_kind_is_used():
    """That of Python 3.11 has a lock, which a fork may leave locked in the child."""
    for path in Path(ziggurat.__file__).parent.rglob("*.py"):
        assert "from functools import cached_property" not in path.read_text("utf-8"), path
