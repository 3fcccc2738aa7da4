"""Result rows: what they must say, that none is lost, and where they come from."""

import json
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from ziggurat.errors import UserError
from ziggurat.measure import SCHEMA, append_row, checked_row, provenance, read_rows_file, rows

ORIGIN = {"date": "2026-01-01T00:00:00+00:00", "commit": "abc"}
MEASURED = {
    "what": "early exit",
    "data": "docs",
    "split": "test",
    "model": "tiny",
    "device": "cpu",
    "threads": 2,
    "batch": 32,
    "dtype": "float32",
    "padding": "packed",
    "timed": "model",
    "n_texts": 200,
    "tokens_mean": 40.5,
    "tokens_p99": 90,
    "texts_per_second_p50": 150.0,
    "texts_per_second_p95": 140.0,
    "time_gain": 1.8,
    "flops_gain": 2.0,
    "accuracy": 0.9,
    "accuracy_low": 0.85,
    "accuracy_high": 0.94,
}
ROW = MEASURED | ORIGIN


@pytest.mark.parametrize("key", SCHEMA)
def test_a_row_without_any_one_key_is_refused(key):
    with pytest.raises(ValueError, match=f"'{key}' is missing"):
        checked_row({name: value for name, value in ROW.items() if name != key})


@pytest.mark.parametrize(
    "wrong",
    [{"threads": "2"}, {"threads": 2.5}, {"batch": True}, {"device": None}, {"accuracy": "90 %"}, {"padding": 128}],
)
def test_a_value_of_the_wrong_type_is_refused(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be"):
        checked_row(ROW | wrong)


@pytest.mark.parametrize(
    "wrong", [{"accuracy": 0.95}, {"accuracy_low": -0.1}, {"accuracy": 90.0, "accuracy_high": 94.0}]
)
def test_an_accuracy_outside_its_interval_is_refused(wrong):
    with pytest.raises(ValueError, match="must lie in its interval"):
        checked_row(ROW | wrong)


@pytest.mark.parametrize(
    ("flops_gain", "time_gain", "warns"), [(2.0, 0.9, True), (1.5, 0.9, False), (2.0, 1.0, False), (1.51, 0.99, True)]
)
def test_fewer_flops_in_more_time_carry_a_warning(flops_gain, time_gain, warns):
    row = checked_row(ROW | {"flops_gain": flops_gain, "time_gain": time_gain})
    assert ("warning" in row) is warns


def test_rows_come_back_as_they_were_appended(tmp_path):
    path = tmp_path / "results" / "bench.jsonl"
    first = append_row(path, MEASURED | {"label": "größer | schneller"}, ORIGIN)
    numpy_values = {"batch": np.int64(8), "accuracy": np.float32(0.875), "kept": np.array([3, 2])}
    append_row(path, MEASURED | numpy_values, ORIGIN)
    back = read_rows_file(path)
    assert back[0] == first == MEASURED | ORIGIN | {"label": "größer | schneller"}
    assert (back[1]["batch"], back[1]["accuracy"], back[1]["kept"]) == (8, 0.875, [3, 2])


def test_a_refused_row_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "bench.jsonl"
    append_row(path, MEASURED, ORIGIN)
    before = path.read_bytes()
    for wrong in ({"threads": None}, {"spread": float("nan")}, {"model": object()}, {"thing": object()}):
        with pytest.raises(ValueError):
            append_row(path, MEASURED | wrong, ORIGIN)
    assert path.read_bytes() == before


def test_writers_at_once_lose_no_row(tmp_path):
    path = tmp_path / "bench.jsonl"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda batch: append_row(path, MEASURED | {"batch": batch}, ORIGIN), range(1, 101)))
    assert sorted(row["batch"] for row in read_rows_file(path)) == list(range(1, 101))


def test_a_line_torn_by_a_crash_is_named_and_costs_no_other_row(tmp_path):
    path = tmp_path / "bench.jsonl"
    path.write_text(json.dumps(ROW) + "\n" + json.dumps(ROW)[:50], encoding="utf-8")
    append_row(path, MEASURED, ORIGIN)
    with pytest.raises(UserError, match=r"bench\.jsonl:2: not a JSON object; delete the line"):
        read_rows_file(path)
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text(lines[0] + "\n" + lines[2], encoding="utf-8")
    assert read_rows_file(path) == [ROW, ROW]


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"none\.jsonl: no such file"):
        read_rows_file(tmp_path / "none.jsonl")


def test_provenance_completes_a_row_and_is_json():
    origin = provenance()
    assert json.loads(json.dumps(origin)) == origin
    assert checked_row(MEASURED | origin)
    assert origin["versions"]["numpy"] == np.__version__
    assert origin["cpu"] and 1 <= origin["cores"] <= os.cpu_count()


def git(folder, *arguments):
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    return subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout


def test_commit_is_the_packages_own_and_says_when_it_is_dirty(tmp_path):
    package = tmp_path / "src" / "package"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    git(tmp_path, "init", "-q")
    assert rows._commit(package) == "none"  # somebody else's checkout: the package is not part of it
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "first")
    commit = git(tmp_path, "rev-parse", "HEAD").strip()
    (tmp_path / "results.jsonl").write_text("{}\n")
    assert rows._commit(package) == commit
    (package / "new.py").write_text("")
    assert rows._commit(package) == commit + "+dirty"


def test_without_git_there_is_no_commit(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert provenance()["commit"] == "none"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no disk that is always full")
def test_a_full_disk_is_a_line_for_people(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.symlink_to("/dev/full")
    with pytest.raises(UserError, match=r"rows\.jsonl: No space left on device; free some space"):
        append_row(path, MEASURED, ORIGIN)


def test_any_text_has_its_row(tmp_path):
    path = tmp_path / "rows.jsonl"
    append_row(path, MEASURED | {"model": "a\ud83d\n\u2028\x1b"}, ORIGIN)
    assert len(path.read_bytes().decode("utf-8").splitlines()) == 1
    assert read_rows_file(path)[0]["model"] == "a\ud83d\n\u2028\x1b"
