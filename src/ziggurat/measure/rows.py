"""Result rows: each published figure is a line of JSON in `results/*.jsonl` that is complete enough to reproduce it."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np

from ziggurat.errors import UserError
from ziggurat.files import refusals_explained
from ziggurat.system import cpu_name, json_text, n_cores

PACKAGES = ("ziggurat", "numpy", "torch", "transformers", "tokenizers", "onnx", "onnxruntime", "openvino", "nncf")

# Required keys of a row and their types. "Gain" is the full model's cost over this row's. Rows may have more keys, such
# as time_gain_padded (against the padded dense model), label, operating point.
SCHEMA: Mapping[str, type] = {
    "what": str,  # the system or method
    "data": str,
    "split": str,
    "model": str,
    "device": str,
    "threads": Integral,  # of the system
    "batch": Integral,  # texts
    "dtype": str,
    "padding": str,  # policy: "as it comes", "sorted", "packed"
    "timed": str,  # "model" (tensors in, tensors out) or "process" (texts in, answers out)
    "n_texts": Integral,
    "tokens_mean": Real,
    "tokens_p99": Real,
    "texts_per_second_p50": Real,
    "texts_per_second_p95": Real,  # at the 95th percentile of time, so the lower of the two
    "time_gain": Real,  # against the same model dense, unpadded, sorted by length, in the same run
    "flops_gain": Real,  # against the same model in full
    "accuracy": Real,  # shares, 0 … 1
    "accuracy_low": Real,  # 95 % interval
    "accuracy_high": Real,
    "date": str,
    "commit": str,
}


# Keys in place of accuracy if answers are no classes; `metric` is the name of a figure of `ziggurat eval`.
ACCURACY = ("accuracy", "accuracy_low", "accuracy_high")
OF_OTHERS: Mapping[str, type] = {"metric": str, "quality": Real}


def checked_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row, with a `warning` if fewer FLOPs took more time. ValueError names a missing key or a wrong value."""
    no_classes = "metric" in row
    schema = {key: kind for key, kind in SCHEMA.items() if not (no_classes and key in ACCURACY)}
    for key, kind in {**schema, **(OF_OTHERS if no_classes else {})}.items():
        if key not in row:
            raise ValueError(f"row of {row.get('what')!r}: key {key!r} is missing")
        if not isinstance(row[key], kind) or isinstance(row[key], bool):
            raise ValueError(f"row of {row.get('what')!r}: {key} must be {kind.__name__}, not {row[key]!r}")
    if not no_classes and not 0 <= row["accuracy_low"] <= row["accuracy"] <= row["accuracy_high"] <= 1:
        raise ValueError(f"row of {row['what']!r}: accuracy must lie in its interval, as shares of 1")
    if row["flops_gain"] > 1.5 and row["time_gain"] < 1.0:
        warning = f"{row['flops_gain']:.2f}x fewer FLOPs but only {row['time_gain']:.2f}x the speed"
        return {**row, "warning": warning}
    return dict(row)


def append_row(path: Path, row: Mapping[str, Any], origin: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Check `row` joined with `origin` (default: `provenance()`), append it to `path` and return it.

    ValueError as `checked_row`, or for a value that is no JSON (NaN, an object).
    """
    return append_record(path, checked_row({**(provenance() if origin is None else origin), **row}))


def append_record(path: Path, record: Mapping[str, Any]) -> dict[str, Any]:
    """Appends a record with any keys, such as a trial of a guarantee, and returns it."""
    line = json_text(record, allow_nan=False, default=_plain)
    # One O_APPEND write per row, so that two processes can share the file without losing rows. Rewriting and renaming
    # the file could lose them. Only a crash can leave a partial line; then the next row starts a new one.
    with refusals_explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        data = (b"\n" if _is_torn(path) else b"") + line.encode() + b"\n"
        with path.open("ab", buffering=0) as file:
            if file.write(data) != len(data):
                raise UserError(f"{path}: the last row was cut short, for the disk is full; free some space")
    return dict(record)


def read_rows_file(path: Path) -> list[dict[str, Any]]:
    """All rows of a file, in order. UserError names a line that is not a JSON object, or a missing file."""
    if not path.is_file():
        raise UserError(f"{path}: no such file of results; `ziggurat bench` writes one")
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            row = None
        if not isinstance(row, dict):
            raise UserError(f"{path}:{number}: not a JSON object; delete the line")
        rows.append(row)
    return rows


def provenance() -> dict[str, Any]:
    """Provenance: UTC date, commit of this code, Python, platform, CPU, its cores, versions of installed packages.

    `commit` ends in "+dirty" when the package's own files differ from it, and is "none" outside of a checkout.
    """
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(Path(__file__).resolve().parent.parent),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": cpu_name(),
        "cores": n_cores(),
        "versions": {name: version for name in PACKAGES if (version := _version(name)) is not None},
    }


def _is_torn(path: Path) -> bool:
    """Whether the file's last line is incomplete."""
    if not path.exists() or path.stat().st_size == 0:
        return False
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"


def _commit(package: Path) -> str:
    try:
        # A package installed within another project's checkout must not report that project's commit.
        _git(package, "ls-files", "--error-unmatch", "__init__.py")
        commit = _git(package, "rev-parse", "HEAD")
        # Only the package's files count: the results file itself changes with every row.
        return commit + ("+dirty" if _git(package, "status", "--porcelain", "--", ".") else "")
    except (OSError, subprocess.CalledProcessError):
        return "none"


def _git(folder: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments], cwd=folder, check=True, capture_output=True, text=True, encoding="utf-8"
    ).stdout.strip()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _plain(value: object) -> object:
    """JSON values for numpy values and paths."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    raise ValueError(f"{value!r} has no place in a row")
