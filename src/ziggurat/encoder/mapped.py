"""Tensors of a safetensors file where they lie: mapped, so that processes on one folder share their pages. No torch."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from ziggurat.encoder.folder import CONFIG, WEIGHTS, read_json
from ziggurat.encoder.spec import read_spec
from ziggurat.encoder.weights import from_hf
from ziggurat.errors import UserError

_KINDS = {"F32": np.float32, "F16": np.float16, "F64": np.float64, "I64": np.int64, "I16": np.int16, "U8": np.uint8}


def map_tensors(path: Path) -> dict[str, np.ndarray]:
    """The file's tensors as read-only views of it; those of half precision are copies in float32, others as they are.

    UserError if there is no such file, or if it is broken.
    """
    try:
        return _map(path)
    except FileNotFoundError:
        raise UserError(
            f"{path}: not found; safetensors only (load the checkpoint in transformers and save_pretrained it)"
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: broken or truncated ({error}); copy it again from its source") from None


def _map(path: Path) -> dict[str, np.ndarray]:
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        if size > path.stat().st_size:
            raise ValueError("the header is longer than the file")
        header = json.loads(file.read(size))
    content = np.memmap(path, mode="r")[8 + size :]
    return {name: _view(content, entry) for name, entry in header.items() if name != "__metadata__"}


def _view(content: np.ndarray, entry: dict[str, object]) -> np.ndarray:
    """One tensor of the file's content from what the header says of it."""
    begin, end = entry["data_offsets"]  # type: ignore[misc]
    if not 0 <= begin <= end <= len(content):
        raise ValueError("the file ends before its tensors do")
    raw = content[begin:end]
    shape: tuple[int, ...] = tuple(entry["shape"])  # type: ignore[arg-type]
    if entry["dtype"] == "BF16":  # the upper half of a float32
        widened = raw.view(np.uint16).astype(np.uint32) << 16
        return widened.view(np.float32).reshape(shape)
    if entry["dtype"] not in _KINDS:
        raise ValueError(f"tensors of type {entry['dtype']} are not supported")
    kind = np.dtype(_KINDS[str(entry["dtype"])])
    # A view that does not begin at a multiple of its numbers' size cannot be read everywhere.
    aligned = raw if raw.ctypes.data % kind.itemsize == 0 else raw.copy()
    tensor = aligned.view(kind).reshape(shape)
    return tensor.astype(np.float32) if kind in (np.float16, np.float64) else tensor


def word_embeddings(folder: Path) -> np.ndarray:
    """What a model folder's encoder knows of its vocabulary's entries, (V, d); UserError for a model without layers."""
    spec = read_spec(read_json(folder / CONFIG, f"{folder}: no {CONFIG}; give a model that has layers"))
    tensors = from_hf(map_tensors(folder / WEIGHTS), spec, np.concatenate)
    found: np.ndarray = tensors["encoder.embeddings.word.weight"]
    return found.astype(np.float32)
