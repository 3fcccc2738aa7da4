"""The one safetensors file of a small model's weights, with a version of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import numpy as np
from safetensors.numpy import save_file

from ziggurat.encoder.mapped import TensorFile
from ziggurat.errors import UserError, brief
from ziggurat.files import whole_file

Tier = TypeVar("Tier")


def save_tier(path: Path, kind: str, version: int, tensors: Mapping[str, np.ndarray]) -> None:
    """Writes a tier of this kind ("static", …) and version of its format."""
    whole = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    with whole_file(path) as made:
        save_file(whole, made, {"format": f"ziggurat {kind} tier", "format_version": str(version)})


def tier_of(file: TensorFile, path: Path, kind: str, version: int, make: Callable[..., Tier]) -> Tier:
    """What `make` makes of the tensors, by name, of the file that was at `path`.

    UserError if it is newer than `version`, or `make` refuses its tensors.
    """
    found = str(file.metadata.get("format_version", ""))
    if found.isdecimal() and int(found[:9]) > version:
        raise UserError(f"{path}: format_version {brief(found)} is newer than {version}; upgrade ziggurat")
    try:
        return make(**file.tensors)
    except (TypeError, ValueError) as error:
        raise UserError(f"{path}: not a {kind} tier ({error}); train it again") from None
