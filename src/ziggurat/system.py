"""The machine, the process: cores, memory, names; the progress bar; text that is safe to print; a cached property."""

from __future__ import annotations

import json
import os
import platform
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, NoReturn, Self, TypeVar, overload

if TYPE_CHECKING:
    from tqdm import tqdm

Progress = Callable[[str], None] | None  # receives a line on the current step; None = no reports
_TTY_SECONDS, _FILE_SECONDS = 0.1, 30.0  # between two looks of a bar, for people and for log files


def bar(
    name: str | None, total: int, unit: str, shown: bool = True, done: int = 0, stays: bool = False
) -> tqdm[NoReturn]:
    """A bar over `total` units, `done` of them before; it `stays` when it is full, or vanishes."""
    from tqdm import tqdm  # not above: every command line loads this file

    often = _TTY_SECONDS if sys.stderr.isatty() else _FILE_SECONDS
    return tqdm(
        desc=name, total=total, unit=f" {unit}", mininterval=often, disable=not shown, initial=done, leave=stays
    )


_ROOT = Path("/")
_CONTROL_GROUPS = "/sys/fs/cgroup"  # where they are mounted if nothing says where


def n_cores(root: Path = _ROOT) -> int:
    """Cores that this process may use: those that it may run on, or what a container's CPU quota comes to, rounded up.

    `root` is where `/proc` and `/sys` are; tests have others.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, ceil(min([allowed, *_quotas(root)])))


def default_threads() -> int:
    """The default number of threads: `OMP_NUM_THREADS` as OpenMP reads it, else all cores."""
    said = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(said) if said.isdecimal() and int(said) > 0 else n_cores()


def cpu_name() -> str:
    """What the processor calls itself."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _quotas(root: Path) -> Iterator[float]:
    """CPU quotas, in cores, of this process's control group and of all groups around it that can be seen."""
    groups = _groups(root)
    for kind, top, mounted in _mounts(root):
        folder = root / mounted.lstrip("/")
        for step in ["", *_below(top, groups.get(kind, "/"))]:
            folder = folder / step
            quota = _unified_quota(folder) if kind == "cgroup2" else _quota(folder)
            if quota is not None:
                yield quota


def _below(top: str, group: str) -> list[str]:
    """The steps from one group to another; none where it is not below: containers may see their part alone."""
    above, steps = ([step for step in path.split("/") if step] for path in (top, group))
    inside = steps[: len(above)] == above and ".." not in steps
    return steps[len(above) :] if inside else []


def _groups(root: Path) -> dict[str, str]:
    """Path of this process's control group in the unified tree and in that of the CPU controller (version 1)."""
    found = {}
    for line in _text(root / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            found["cgroup2"] = path
        elif "cpu" in controllers.split(","):
            found["cgroup"] = path
    return found


def _mounts(root: Path) -> list[tuple[str, str, str]]:
    """Of both trees: the kind of file system, the topmost group that can be seen, and where."""
    found = []
    for line in _text(root / "proc/self/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        fields, about = before.split(), after.split()
        unified, controlled = about[:1] == ["cgroup2"], about[:1] == ["cgroup"] and "cpu" in about[-1].split(",")
        if len(fields) > 4 and (unified or controlled):
            found.append((about[0], _unescaped(fields[3]), _unescaped(fields[4])))
    return found or [("cgroup2", "/", _CONTROL_GROUPS), ("cgroup", "/", f"{_CONTROL_GROUPS}/cpu")]


def _unescaped(path: str) -> str:
    """A path as the kernel's tables write it: a blank as a backslash and 040."""
    return re.sub(r"\\(\d{3})", lambda code: chr(int(code[1], 8)), path)


def _unified_quota(folder: Path) -> float | None:
    quota, _, period = _text(folder / "cpu.max").partition(" ")
    return _ratio(quota, period)


def _quota(folder: Path) -> float | None:
    return _ratio(_text(folder / "cpu.cfs_quota_us"), _text(folder / "cpu.cfs_period_us"))


def _ratio(quota: str, period: str) -> float | None:
    """Both in microseconds; None = no limit (`max`, -1), or nothing that can be read."""
    try:
        most, of = int(quota), int(period)
    except ValueError:
        return None
    return most / of if most > 0 and of > 0 else None


def _text(path: Path) -> str:
    """What a file of the kernel says; "" where there is none, or none for us."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


Value = TypeVar("Value")


class cached_property(Generic[Value]):
    """As `functools.cached_property`, which until Python 3.11 holds one lock for all instances while it computes one.

    Where another thread is in there, a forked child would wait for that lock for ever. Here two threads may compute the
    same value, of which the later stays.
    """

    def __init__(self, compute: Callable[[Any], Value]) -> None:
        self._compute = compute
        self._name = compute.__name__
        self.__doc__ = compute.__doc__

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...

    @overload
    def __get__(self, instance: object, owner: type) -> Value: ...

    def __get__(self, instance: object | None, owner: type) -> Self | Value:
        if instance is None:
            return self
        value = self._compute(instance)
        instance.__dict__[self._name] = value  # found before this from now on
        return value


_JOINERS = "\u200c\u200d"  # inside words and emoji; they are as harmless as letters
# What JSON may leave as it is, but a terminal, a reader of lines or UTF-8 does not: further control characters, ends of
# lines, marks of direction, surrogates.
_ESCAPED = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
_SURROGATES = re.compile("[\ud800-\udfff]")


def legible(text: str) -> str:
    """The text with a space for each character that moves the cursor or cannot be shown; as long as before."""
    return "".join(one if one.isprintable() or one in _JOINERS else " " for one in text)


def legible_values(values: Any) -> Any:
    """JSON values, tuples or frozen records, with all texts legible, names of keys too."""
    if isinstance(values, str):
        return legible(values)
    if isinstance(values, dict):
        return {legible_values(key): legible_values(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        made = [legible_values(value) for value in values]
        return tuple(made) if isinstance(values, tuple) else made
    if isinstance(values, Path):
        return Path(legible(str(values)))
    if is_dataclass(values) and not isinstance(values, type):
        texts = {one.name: legible_values(getattr(values, one.name)) for one in fields(values) if one.init}
        return replace(values, **texts)
    return values


def json_values(value: Any) -> Any:
    """A frozen record as JSON values: its fields by name, in them lists for tuples and strings for paths."""
    if is_dataclass(value) and not isinstance(value, type):
        return {one.name: json_values(getattr(value, one.name)) for one in fields(value)}
    if isinstance(value, Mapping):
        return {key: json_values(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [json_values(part) for part in value]
    return str(value) if isinstance(value, Path) else value


def json_text(values: Any, **how: Any) -> str:
    """JSON that says exactly `values`, whatever the texts in it, and that any file or terminal can hold; one line
    unless `how`, of `json.dumps`, says otherwise.
    """
    return _ESCAPED.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(values, ensure_ascii=False, **how))


def utf8(text: str) -> bytes:
    """For files that have no way to say half a character: U+FFFD stands for it."""
    return _SURROGATES.sub("\ufffd", text).encode()
