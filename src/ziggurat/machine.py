"""What this machine is, and how much of it this process may use."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterator
from math import ceil
from pathlib import Path

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
