"""Tensors of a safetensors file: read into memory, for what goes on running, or mapped, for a look. No torch."""

from __future__ import annotations

import hashlib
import math
import mmap
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np

from ziggurat.contents import loads, opened
from ziggurat.errors import UserError, brief

_KINDS: Mapping[str, type[np.generic]] = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": np.uint16,  # the upper half of a float32
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U8": np.uint8,
    "BOOL": np.bool_,
}
_SMALL = ("F8_", "F6_", "F4")  # floats of so many bits, which scales elsewhere belong to
_METADATA = "__metadata__"


@dataclass(frozen=True, eq=False)
class TensorFile:
    """A whole safetensors file, held in memory: nothing that happens to the file afterwards can change it."""

    tensors: dict[str, np.ndarray]  # those of half precision in float32, others as they are
    metadata: Mapping[str, Any]
    digest: str  # SHA-256 of the bytes that were read


@dataclass(frozen=True)
class _Entry:
    """Where a tensor lies."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    def tensor(self, raw: np.ndarray) -> np.ndarray:
        """Its numbers from its bytes."""
        typed = raw.view(_KINDS[self.dtype]).reshape(self.shape)
        if self.dtype == "BF16":
            return (typed.astype(np.uint32) << 16).view(np.float32)
        with np.errstate(over="ignore"):  # what is too large becomes infinite, which is refused where numbers matter
            return typed.astype(np.float32) if self.dtype in ("F16", "F64") else typed


def read_tensors(path: Path) -> TensorFile:
    """All tensors of a file, each an array of its own. UserError as `map_tensors`, or if the file changes meanwhile."""
    with _refusals(path), opened(path, _missing(path)) as file:
        header, entries, metadata = _header(file)
        digest, tensors = hashlib.sha256(header), {}
        for entry in entries:  # in the order in which they lie in the file
            raw = np.empty(entry.end - entry.begin, dtype=np.uint8)
            if file.readinto(raw.data) != len(raw):
                raise ValueError("it got shorter while it was read")
            digest.update(raw.data)
            tensors[entry.name] = entry.tensor(raw)
        return TensorFile(tensors, metadata, digest.hexdigest())


def map_tensors(path: Path) -> dict[str, np.ndarray]:
    """The file's tensors as read-only views of it; those of half precision are copies in float32, others as they are.

    To look at names, shapes and few numbers: a view of a file that is cut off meanwhile ends the process. UserError if
    there is no such file, or if it is broken.
    """
    with _refusals(path), opened(path, _missing(path)) as file:
        header, entries, _ = _header(file)
        content = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), dtype=np.uint8)[len(header) :]
        tensors = {}
        for entry in entries:
            raw = content[entry.begin : entry.end]
            # A view that does not begin at a multiple of its numbers' size cannot be read everywhere.
            aligned = raw if raw.ctypes.data % np.dtype(_KINDS[entry.dtype]).itemsize == 0 else raw.copy()
            tensors[entry.name] = entry.tensor(aligned)
        return tensors


class _OtherNumbers(ValueError):
    """A file is whole, and its numbers are of a type that is not supported: floats of 8 bits."""


@contextmanager
def _refusals(path: Path) -> Iterator[None]:
    try:
        yield
    except _OtherNumbers as error:
        raise UserError(f"{path}: {error}; give the weights as floats of 16 or 32 bits") from None
    except ValueError as error:
        raise UserError(f"{path}: broken or truncated ({error}); copy it again from its source") from None


def _missing(path: Path) -> str:
    return f"{path}: not found; safetensors only (load the checkpoint in transformers and save_pretrained it)"


def _header(file: BufferedReader) -> tuple[bytes, list[_Entry], Mapping[str, Any]]:
    """The first bytes of a file, where its tensors lie behind them, in that order, and its metadata.

    ValueError for what the safetensors library refuses as well: tensors must fill the file without gaps.
    """
    whole = os.fstat(file.fileno()).st_size
    start = file.read(8)
    size = int.from_bytes(start, "little")
    if size > whole - 8:
        raise ValueError("the header is longer than the file")
    text = file.read(size)
    header = loads(text)
    if not isinstance(header, dict):
        raise ValueError("the header is no JSON object")
    metadata = header.pop(_METADATA, None) or {}
    if not isinstance(metadata, dict):
        raise ValueError("the metadata is no JSON object")
    entries = sorted((_entry(name, value) for name, value in header.items()), key=lambda one: (one.begin, one.end))
    filled = 0
    for entry in entries:
        if entry.begin != filled:
            raise ValueError(f"tensor {brief(entry.name)} does not begin where the one before it ends")
        filled = entry.end
    if filled > whole - 8 - size:
        raise ValueError("the file ends before its tensors do")
    if filled < whole - 8 - size:
        raise ValueError("the file goes on behind its tensors")
    return start + text, entries, metadata


def _entry(name: str, value: Any) -> _Entry:
    """What a header says of one tensor; ValueError where that is nothing that a tensor can be."""
    value = value if isinstance(value, dict) else {}
    dtype, shape, offsets = (value.get(key) for key in ("dtype", "shape", "data_offsets"))
    if isinstance(dtype, str) and dtype.startswith(_SMALL):
        raise _OtherNumbers(f"tensor {brief(name)}: numbers of type {brief(dtype)} are not read")
    if not isinstance(dtype, str) or dtype not in _KINDS:
        raise ValueError(f"tensor {brief(name)}: numbers of type {brief(dtype)} are not supported")
    if not _counts(shape) or not _counts(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise ValueError(f"tensor {brief(name)}: its shape or its place is no list of counts")
    if math.prod(shape) * np.dtype(_KINDS[dtype]).itemsize != offsets[1] - offsets[0]:
        raise ValueError(f"tensor {brief(name)}: its shape and the bytes that it takes do not agree")
    return _Entry(name, dtype, tuple(shape), *offsets)


def _counts(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and 0 <= value < 2**63 for value in values)
