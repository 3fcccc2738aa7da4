"""Helpers around the machine and the process: cores, threads, progress bar, text that is safe to print."""

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
_TTY_SECONDS, _FILE_SECONDS = 0.1, 30.0  # between updates of a bar, in a terminal and in a log file


def bar(
    name: str | None, total: int, unit: str, shown: bool = True, done: int = 0, keep: bool = False
) -> tqdm[NoReturn]:
    """A progress bar over `total` units that starts at `done`. With `keep` it stays on the screen when it is full."""
    from tqdm import tqdm  # not above: every command line loads this file

    interval = _TTY_SECONDS if sys.stderr.isatty() else _FILE_SECONDS
    return tqdm(
        desc=name, total=total, unit=f" {unit}", mininterval=interval, disable=not shown, initial=done, leave=keep
    )


_ROOT = Path("/")
_CONTROL_GROUPS = "/sys/fs/cgroup"  # the usual mount point


def n_cores(root: Path = _ROOT) -> int:
    """Number of cores that this process may use: its CPU affinity, limited by the container's quota (rounded up).

    `root` is the folder of `/proc` and `/sys`; tests pass another one.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, ceil(min([allowed, *_quotas(root)])))


def default_threads() -> int:
    """The default number of threads: `OMP_NUM_THREADS` as OpenMP reads it, else all cores."""
    stated = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(stated) if stated.isdecimal() and int(stated) > 0 else n_cores()


def cpu_name() -> str:
    """The processor's model name."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _quotas(root: Path) -> Iterator[float]:
    """CPU quotas, in cores, of this process's control group and of its visible parents."""
    groups = _groups(root)
    for kind, top, mounted in _mounts(root):
        folder = root / mounted.lstrip("/")
        for step in ["", *_below(top, groups.get(kind, "/"))]:
            folder = folder / step
            quota = _unified_quota(folder) if kind == "cgroup2" else _quota(folder)
            if quota is not None:
                yield quota


def _below(top: str, group: str) -> list[str]:
    """Path components from group `top` down to `group`; none if it is not below: containers may see only a part."""
    above, steps = ([step for step in path.split("/") if step] for path in (top, group))
    inside = steps[: len(above)] == above and ".." not in steps
    return steps[len(above) :] if inside else []


def _groups(root: Path) -> dict[str, str]:
    """Paths of this process's control group: in the unified tree (version 2), in the CPU controller's (1)."""
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
    """For both trees: kind of file system, topmost visible group, mount point."""
    found = []
    for line in _text(root / "proc/self/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        fields, about = before.split(), after.split()
        unified, controlled = about[:1] == ["cgroup2"], about[:1] == ["cgroup"] and "cpu" in about[-1].split(",")
        if len(fields) > 4 and (unified or controlled):
            found.append((about[0], _unescaped(fields[3]), _unescaped(fields[4])))
    return found or [("cgroup2", "/", _CONTROL_GROUPS), ("cgroup", "/", f"{_CONTROL_GROUPS}/cpu")]


def _unescaped(path: str) -> str:
    """Decodes a path in the kernel's tables, where a blank is written as backslash 040."""
    return re.sub(r"\\(\d{3})", lambda code: chr(int(code[1], 8)), path)


def _unified_quota(folder: Path) -> float | None:
    quota, _, period = _text(folder / "cpu.max").partition(" ")
    return _ratio(quota, period)


def _quota(folder: Path) -> float | None:
    return _ratio(_text(folder / "cpu.cfs_quota_us"), _text(folder / "cpu.cfs_period_us"))


def _ratio(quota: str, period: str) -> float | None:
    """Cores = quota / period, both in microseconds; None = no limit (`max`, -1), or not a number."""
    try:
        limit, length = int(quota), int(period)
    except ValueError:
        return None
    return limit / length if limit > 0 and length > 0 else None


def _text(path: Path) -> str:
    """The text of a file of the kernel; "" if it does not exist or may not be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


Value = TypeVar("Value")


class cached_property(Generic[Value]):
    """`functools.cached_property` without a lock.

    Until Python 3.11, the standard one holds a lock of all instances while it computes a value. A process forked
    meanwhile would wait for that lock forever. Here two threads may compute the value twice; the later result stays.
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
        instance.__dict__[self._name] = value  # from now on this is found first
        return value


_JOINERS = "\u200c\u200d"  # joiners occur inside words and emoji and are harmless
# Characters that JSON allows, but that disturb terminals, line readers or UTF-8: control characters, line ends,
# direction marks, surrogates.
_ESCAPED = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
_SURROGATES = re.compile("[\ud800-\udfff]")


def legible(text: str) -> str:
    """Replaces each unprintable character by a space; the length stays the same."""
    return "".join(char if char.isprintable() or char in _JOINERS else " " for char in text)


def legible_values(values: Any) -> Any:
    """JSON values, tuples or frozen records, with all texts legible, keys included."""
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
        texts = {field.name: legible_values(getattr(values, field.name)) for field in fields(values) if field.init}
        return replace(values, **texts)
    return values


def json_values(value: Any) -> Any:
    """A frozen record as JSON values: its fields by name, in them lists for tuples and strings for paths."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: json_values(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {key: json_values(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [json_values(part) for part in value]
    return str(value) if isinstance(value, Path) else value


def json_text(values: Any, **how: Any) -> str:
    """Exact JSON of `values` that is safe in every file and terminal; one line, unless options `how` of `json.dumps`
    say otherwise.
    """
    return _ESCAPED.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(values, ensure_ascii=False, **how))


def utf8(text: str) -> bytes:
    """UTF-8 of a text, with U+FFFD in place of lone surrogates."""
    return _SURROGATES.sub("\ufffd", text).encode()
