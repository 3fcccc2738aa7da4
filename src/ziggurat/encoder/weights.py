"""Converts Hugging Face's tensors to Ziggurat's and back, by the architecture's table; safetensors files. No torch."""

from __future__ import annotations

import hashlib
import math
import mmap
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from safetensors.numpy import save_file

from ziggurat.contents import loads, opened
from ziggurat.encoder.architectures import ARCHITECTURES
from ziggurat.encoder.architectures.base import Table
from ziggurat.encoder.spec import EncoderSpec
from ziggurat.errors import UserError, brief
from ziggurat.files import whole_file
from ziggurat.types import Problem

Tensors = Mapping[str, Any]  # numpy arrays or torch tensors

POOLER = "classifier.dense"  # and its LayerNorm; missing in a masked-language-model checkpoint
CLASSES = "classifier.classes."  # only in a fine-tuned classifier
WORDS = "encoder.embeddings.word.weight"  # in every encoder
SPANS = "qa_outputs."  # replaces pooler and classes in a question-answering checkpoint, unless its spans are dense

# Names that wrappers add to tensor names: torch.compile, DataParallel, FSDP, activation checkpointing.
_ADAPTER = re.compile(r"lora_\w+|ia3_\w+|hada_\w+|lokr_\w+|oft_\w+|adapters|base_layer|modules_to_save|original_module")
_WRAPPERS = frozenset(("_orig_mod", "module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"))


def table_of(spec: EncoderSpec, problem: Problem) -> Table:
    """The architecture's table of tensors, for a classifier or a span model."""
    architecture = ARCHITECTURES[spec.model_type]
    table = architecture.table(spec)
    if problem is not Problem.QUESTION_ANSWERING or architecture.dense_spans:
        return table
    shared = {name: parts for name, parts in table.items() if not name.startswith("classifier.")}
    return shared | {f"{CLASSES}{kind}": (f"{SPANS}{kind}",) for kind in ("weight", "bias")}


def canonical_names(tensors: Tensors, spec: EncoderSpec, problem: Problem = Problem.SINGLE_LABEL) -> dict[str, Any]:
    """HF tensors with the names that transformers uses today for a classifier.

    Wrappers, and a module around the whole model, are removed from names. A missing prefix is added, old LayerNorm
    names are translated. UserError for duplicate names, several encoders, or an unmerged adapter.
    """
    architecture = ARCHITECTURES[spec.model_type]
    if adapted := next((name for name in tensors if any(map(_ADAPTER.fullmatch, name.split(".")))), None):
        raise UserError(
            f"the checkpoint holds an adapter's parts ({adapted!r}), which are not merged into the model; save what "
            ".merge_and_unload() of peft gives"
        )
    named = _renamed(tensors, _plain_name)
    outer = _outer_module(named, spec)
    named = _renamed(named, lambda name: name.removeprefix(outer))
    if any(name.startswith(architecture.prefix) for name in named):
        return named
    known = {part for parts in table_of(spec, problem).values() for part in parts}
    return {name if name in known else architecture.prefix + name: tensor for name, tensor in named.items()}


def _plain_name(name: str) -> str:
    """A tensor's name without wrappers, and with today's LayerNorm names."""
    plain = ".".join(part for part in name.split(".") if part not in _WRAPPERS)
    return plain.replace(".gamma", ".weight").replace(".beta", ".bias")


def _outer_module(names: Collection[str], spec: EncoderSpec) -> str:
    """Prefix of all names if the model was saved as a part of another module ("model.", "bert." twice)."""
    prefix = ARCHITECTURES[spec.model_type].prefix
    (words,) = ARCHITECTURES[spec.model_type].table(spec)[WORDS]
    bare = words.removeprefix(prefix)
    found = {name.removesuffix(bare) for name in names if f".{name}".endswith(f".{bare}")}
    outer = sorted({begin.removesuffix(prefix) if f".{begin}".endswith(f".{prefix}") else begin for begin in found})
    if len(outer) > 1:
        modules = ", ".join(repr(begin) for begin in outer)
        raise UserError(f"the checkpoint holds several encoders (tensors begin with {modules}); save one by itself")
    return outer[0] if outer else ""


def _renamed(tensors: Tensors, rename: Callable[[str], str]) -> dict[str, Any]:
    made = {rename(name): tensor for name, tensor in tensors.items()}
    if len(made) < len(tensors):
        names = [rename(name) for name in tensors]
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"the checkpoint holds {twice!r} twice, once in a wrapper; save it anew with save_pretrained")
    return made


def from_hf(
    tensors: Tensors, spec: EncoderSpec, join: Callable[[Sequence[Any]], Any], problem: Problem = Problem.SINGLE_LABEL
) -> dict[str, Any]:
    """Ziggurat's tensors from HF tensors. Pooler and classifier may be missing; UserError for any other."""
    named = canonical_names(tensors, spec, problem)
    converted: dict[str, Any] = {}
    for name, parts in table_of(spec, problem).items():
        missing = [part for part in parts if part not in named]
        if not missing:
            converted[name] = named[parts[0]] if len(parts) == 1 else _joined(named, parts, join)
        elif not name.startswith((POOLER, CLASSES)):
            raise UserError(
                f"the checkpoint has no tensor {missing[0]!r}, which a {spec.model_type} of {spec.layers} layers has; "
                "save weights and config.json again, together, with save_pretrained"
            )
    return converted


def _joined(named: Tensors, parts: Sequence[str], join: Callable[[Sequence[Any]], Any]) -> Any:
    """Concatenates tensors along their first axis; UserError unless the other axes agree."""
    for part in parts:
        if not named[part].ndim or named[part].shape[1:] != named[parts[0]].shape[1:]:
            raise UserError(f"the checkpoint's tensor {part!r} does not fit to {parts[0]!r}; copy its file again")
    return join([named[part] for part in parts])


def hf_names(name: str, spec: EncoderSpec, problem: Problem = Problem.SINGLE_LABEL) -> str:
    """HF names of one of Ziggurat's tensors, for messages; its own name if it has no HF name."""
    return " + ".join(table_of(spec, problem).get(name, (name,)))


def missing_classifier(names: Collection[str], spec: EncoderSpec) -> list[str]:
    """HF tensors of the architecture's classifier that are missing in `names`."""
    named = canonical_names(dict.fromkeys(names), spec)
    table = ARCHITECTURES[spec.model_type].table(spec)
    wanted = (part for name, parts in table.items() if name.startswith((POOLER, CLASSES)) for part in parts)
    return [part for part in wanted if part not in named]


def to_hf(tensors: Tensors, spec: EncoderSpec, problem: Problem = Problem.SINGLE_LABEL) -> dict[str, Any]:
    """Inverse of `from_hf`, bit-equal; parts of a joined tensor are views of it."""
    named: dict[str, Any] = {}
    for name, parts in table_of(spec, problem).items():
        rows = len(tensors[name]) // len(parts)
        for index, part in enumerate(parts):
            named[part] = tensors[name][index * rows : (index + 1) * rows]
    return named


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
_SMALL = ("F8_", "F6_", "F4")  # floats of 8, 6, 4 bits; their scales are in other tensors
_METADATA = "__metadata__"


@dataclass(frozen=True, eq=False)
class TensorFile:
    """A safetensors file in memory: later changes of the file have no effect."""

    tensors: dict[str, np.ndarray]  # half precision converted to float32, other types unchanged
    metadata: Mapping[str, Any]
    digest: str  # SHA-256 of the file


@dataclass(frozen=True)
class _Entry:
    """Position of a tensor in a file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    def tensor(self, raw: np.ndarray) -> np.ndarray:
        """The tensor from its bytes."""
        typed = raw.view(_KINDS[self.dtype]).reshape(self.shape)
        if self.dtype == "BF16":
            return (typed.astype(np.uint32) << 16).view(np.float32)
        with np.errstate(over="ignore"):  # overflow gives infinity, which later checks refuse
            return typed.astype(np.float32) if self.dtype in ("F16", "F64") else typed


def read_tensors(path: Path) -> TensorFile:
    """All tensors of a file, each in its own array. UserError as in `map_tensors`, or if the file changes meanwhile."""
    with _refusals(path), opened(path, _missing(path)) as file:
        header, entries, metadata = _header(file)
        digest, tensors = hashlib.sha256(header), {}
        for entry in entries:  # in file order
            raw = np.empty(entry.end - entry.begin, dtype=np.uint8)
            if file.readinto(raw.data) != len(raw):
                raise ValueError("it got shorter while it was read")
            digest.update(raw.data)
            tensors[entry.name] = entry.tensor(raw)
        return TensorFile(tensors, metadata, digest.hexdigest())


def map_tensors(path: Path) -> dict[str, np.ndarray]:
    """The file's tensors as read-only views (memory-mapped); half precision is copied to float32.

    For names, shapes and few numbers only: reading a view of a file that was truncated meanwhile ends the process.
    UserError if the file is missing or broken.
    """
    with _refusals(path), opened(path, _missing(path)) as file:
        header, entries, _ = _header(file)
        content = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), dtype=np.uint8)[len(header) :]
        tensors = {}
        for entry in entries:
            raw = content[entry.begin : entry.end]
            # Some processors cannot read unaligned numbers.
            aligned = raw if raw.ctypes.data % np.dtype(_KINDS[entry.dtype]).itemsize == 0 else raw.copy()
            tensors[entry.name] = entry.tensor(aligned)
        return tensors


class _OtherNumbers(ValueError):
    """The file is complete, but its number type (8-bit floats) is not supported."""


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
    """The header of a file: its bytes, the position of each tensor in file order, and the metadata.

    ValueError as in the safetensors library: tensors must fill the file without gaps.
    """
    file_size = os.fstat(file.fileno()).st_size
    start = file.read(8)
    size = int.from_bytes(start, "little")
    if size > file_size - 8:
        raise ValueError("the header is longer than the file")
    text = file.read(size)
    header = loads(text)
    if not isinstance(header, dict):
        raise ValueError("the header is no JSON object")
    metadata = header.pop(_METADATA, None) or {}
    if not isinstance(metadata, dict):
        raise ValueError("the metadata is no JSON object")
    entries = sorted(
        (_entry(name, value) for name, value in header.items()), key=lambda entry: (entry.begin, entry.end)
    )
    filled = 0
    for entry in entries:
        if entry.begin != filled:
            raise ValueError(f"tensor {brief(entry.name)} does not begin where the one before it ends")
        filled = entry.end
    if filled > file_size - 8 - size:
        raise ValueError("the file ends before its tensors do")
    if filled < file_size - 8 - size:
        raise ValueError("the file goes on behind its tensors")
    return start + text, entries, metadata


def _entry(name: str, value: Any) -> _Entry:
    """The header's entry of one tensor; ValueError if it is invalid."""
    value = value if isinstance(value, dict) else {}
    dtype, shape, offsets = (value.get(key) for key in ("dtype", "shape", "data_offsets"))
    if isinstance(dtype, str) and dtype.startswith(_SMALL):
        raise _OtherNumbers(f"tensor {brief(name)}: numbers of type {brief(dtype)} are not read")
    if not isinstance(dtype, str) or dtype not in _KINDS:
        raise ValueError(f"tensor {brief(name)}: numbers of type {brief(dtype)} are not supported")
    if not _counts(shape) or not _counts(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise ValueError(f"tensor {brief(name)}: its shape or its offsets are not lists of counts")
    if math.prod(shape) * np.dtype(_KINDS[dtype]).itemsize != offsets[1] - offsets[0]:
        raise ValueError(f"tensor {brief(name)}: its shape and its number of bytes disagree")
    return _Entry(name, dtype, tuple(shape), *offsets)


def _counts(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and 0 <= value < 2**63 for value in values)


Tier = TypeVar("Tier")


def save_tier(path: Path, kind: str, version: int, tensors: Mapping[str, np.ndarray]) -> None:
    """Writes the file of a small model; `kind` is "static", …, `version` that of the file format."""
    contiguous = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    with whole_file(path) as made:
        save_file(contiguous, made, {"format": f"ziggurat {kind} tier", "format_version": str(version)})


def tier_of(file: TensorFile, path: Path, kind: str, version: int, make: Callable[..., Tier]) -> Tier:
    """Calls `make` with the tensors, by name, of the file at `path`.

    UserError if the format is newer than `version`, or if `make` raises for its tensors.
    """
    found = str(file.metadata.get("format_version", ""))
    if found.isdecimal() and int(found[:9]) > version:
        raise UserError(f"{path}: format_version {brief(found)} is newer than {version}; upgrade ziggurat")
    try:
        return make(**file.tensors)
    except (TypeError, ValueError) as error:
        raise UserError(f"{path}: not a {kind} tier ({error}); train it again") from None
