"""Parquet, Arrow and Feather, with the names of classes that `datasets` writes into them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ziggurat.errors import UserError, first_line, install


def arrow_table(path: Path, content: bytes) -> Any:
    """The `pyarrow.Table` in a file's bytes, in any of the three formats; UserError for a broken file."""
    try:
        import pyarrow
        import pyarrow.feather
        import pyarrow.ipc
        import pyarrow.parquet
    except ImportError as error:
        raise UserError(f"{path}: reading it needs pyarrow; {install('train')}") from error
    buffer = pyarrow.BufferReader(content)
    kind = "Parquet" if content.startswith(b"PAR1") or path.suffix.lower() == ".parquet" else "Arrow"
    try:
        if kind == "Parquet":
            return pyarrow.parquet.read_table(buffer)
        if content.startswith(b"FEA1"):
            return pyarrow.feather.read_table(buffer)
        opened = pyarrow.ipc.open_file if content.startswith(b"ARROW1") else pyarrow.ipc.open_stream
        return opened(buffer).read_all()
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{path}: not a readable {kind} file, write it again ({first_line(error)})") from error


def class_names(metadata: Mapping[bytes, bytes] | None) -> dict[str, Sequence[str]]:
    """Names of classes by column, for columns of class indices or of lists of class indices."""
    try:
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, TypeError, ValueError):
        return {}
    return names_in(features)


def names_in(features: Mapping[str, Any]) -> dict[str, Sequence[str]]:
    """The same from `datasets.Features.to_dict()`."""
    found: dict[str, Sequence[str]] = {}
    for column, feature in features.items():
        inner = feature[0] if isinstance(feature, list) and feature else feature
        inner = inner.get("feature", inner) if isinstance(inner, Mapping) else {}
        if isinstance(inner, Mapping) and inner.get("_type") == "ClassLabel" and inner.get("names"):
            found[column] = [str(name) for name in inner["names"]]
    return found


def named(cell: Any, names: Sequence[str]) -> Any:
    """The name of the class with an index, or the names for a list; None for -1, the hub's sign of a withheld label."""
    if isinstance(cell, list):
        return [names[index] for index in cell]
    return None if cell is None or cell < 0 else names[cell]
