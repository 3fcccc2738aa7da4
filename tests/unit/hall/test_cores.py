"""How many cores a process may use, on trees that look as the kernel's do in and outside of containers."""

from __future__ import annotations

import os

import pytest

from ziggurat.system import default_threads, n_cores

UNIFIED = "31 23 0:28 {top} {at} rw,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate"
SEPARATE = "33 31 0:29 {top} {at} rw,relatime - cgroup cgroup rw,{controllers}"


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A function that makes a tree of files and counts the cores of a process that may run on 64."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(64)), raising=False)

    def make(group: str, mounts: list[str], **files: str) -> int:
        files |= {"proc/self/cgroup": group, "proc/self/mountinfo": "\n".join(mounts)}
        for name, content in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content + "\n")
        return n_cores(tmp_path)

    return make


@pytest.mark.parametrize(
    ("quota", "cores"),
    [("100000 100000", 1), ("150000 100000", 2), ("10000 100000", 1), ("400000 50000", 8), ("max 100000", 64)],
)
def test_a_quota_is_rounded_up_to_whole_cores(machine, quota, cores):
    mounts = [UNIFIED.format(top="/", at="/sys/fs/cgroup")]
    assert machine("0::/", mounts, **{"sys/fs/cgroup/cpu.max": quota}) == cores


@pytest.mark.parametrize("content", ["", "max", "some text", "1", "-1 100000", "100000 0", "0 100000"])
def test_what_is_no_quota_limits_nothing(machine, content):
    mounts = [UNIFIED.format(top="/", at="/sys/fs/cgroup")]
    assert machine("0::/", mounts, **{"sys/fs/cgroup/cpu.max": content}) == 64


def test_the_least_quota_of_all_groups_around_counts(machine):
    at = "sys/fs/cgroup/site.slice/app.service"
    quotas = {"sys/fs/cgroup/site.slice/cpu.max": "300000 100000", f"{at}/cpu.max": "max 100000"}
    mounts = [UNIFIED.format(top="/", at="/sys/fs/cgroup")]
    assert machine("0::/site.slice/app.service", mounts, **quotas) == 3
    assert machine("0::/site.slice/app.service", mounts, **quotas | {f"{at}/cpu.max": "20000 10000"}) == 2


@pytest.mark.parametrize(
    ("top", "group"),
    [("/", "/"), ("/pods/a1", "/pods/a1"), ("/pods/a1", "/pods/b2"), ("/", "/../outside"), ("/pods/a", "/pods/a1")],
)
def test_a_container_that_sees_its_own_part_alone_has_its_quota(machine, top, group):
    mounts = [UNIFIED.format(top=top, at="/sys/fs/cgroup")]
    assert machine(f"0::{group}", mounts, **{"sys/fs/cgroup/cpu.max": "500000 100000"}) == 5


def test_a_group_within_a_container_that_sees_its_own_part_alone(machine):
    mounts = [UNIFIED.format(top="/pods/a1", at="/sys/fs/cgroup")]
    quotas = {"sys/fs/cgroup/cpu.max": "500000 100000", "sys/fs/cgroup/job/cpu.max": "200000 100000"}
    assert machine("0::/pods/a1/job", mounts, **quotas) == 2


@pytest.mark.parametrize("at", ["sys/fs/cgroup/cpu,cpuacct", "sys/fs/cgroup/cpu", "mnt/my groups"])
def test_quotas_of_the_first_version(machine, at):
    mounts = [
        SEPARATE.format(top="/", at="/sys/fs/cgroup/cpuset", controllers="cpuset"),
        SEPARATE.format(top="/docker/c0ffee", at="/" + at.replace(" ", r"\040"), controllers="cpu,cpuacct"),
    ]
    groups = "5:cpuset:/other\n4:cpu,cpuacct:/docker/c0ffee\n0::/"
    quota = {f"{at}/cpu.cfs_quota_us": "250000", f"{at}/cpu.cfs_period_us": "100000"}
    assert machine(groups, mounts, **quota) == 3
    assert machine(groups, mounts, **quota | {f"{at}/cpu.cfs_quota_us": "-1"}) == 64


def test_both_versions_at_once(machine):
    mounts = [
        SEPARATE.format(top="/", at="/sys/fs/cgroup/cpu", controllers="cpu"),
        UNIFIED.format(top="/", at="/sys/fs/cgroup/unified"),
    ]
    quota = {"sys/fs/cgroup/cpu/a/cpu.cfs_quota_us": "400000", "sys/fs/cgroup/cpu/a/cpu.cfs_period_us": "100000"}
    assert machine("1:cpu:/a\n0::/b", mounts, **quota) == 4
    assert machine("1:cpu:/a\n0::/b", mounts, **quota | {"sys/fs/cgroup/unified/b/cpu.max": "100000 100000"}) == 1


def test_without_a_mount_table_the_usual_place_is_read(machine, tmp_path):
    assert machine("0::/", [], **{"sys/fs/cgroup/cpu.max": "700000 100000"}) == 7
    assert n_cores(tmp_path / "nothing") == 64


def test_a_process_uses_no_more_cores_than_it_may_run_on(machine, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {3, 5})
    mounts = [UNIFIED.format(top="/", at="/sys/fs/cgroup")]
    assert machine("0::/", mounts, **{"sys/fs/cgroup/cpu.max": "500000 100000"}) == 2


@pytest.mark.parametrize(
    ("said", "threads"), [("3", 3), (" 5,2", 5), ("0", None), ("-2", None), ("many", None), ("", None)]
)
def test_threads_are_as_many_as_openmp_is_told_else_all_cores(monkeypatch, said, threads):
    monkeypatch.setenv("OMP_NUM_THREADS", said)
    assert default_threads() == (threads or n_cores())
