"""Which engine runs a model: the compiled one where it can, PyTorch otherwise. Decided once, when a model is opened."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from ziggurat import native
from ziggurat.config import DEVICES
from ziggurat.encoder.model_files import ModelFiles
from ziggurat.engine.backend import Backend
from ziggurat.errors import UserError, install

ENGINES = ("auto", "native", "torch")
DTYPES = {"native": ("float32", "bfloat16", "int8"), "torch": ("float32", "bfloat16")}


def refuse_unknown(engine: str, device: str, dtype: str, threads: int | None = None) -> None:
    """UserError for options that no model can be opened with, whether or not it has a choice of engines."""
    options = ((engine, ENGINES, "engine"), (device, DEVICES, "device"), (dtype, DTYPES["native"], "dtype"))
    for value, known, what in options:
        if value not in known:
            raise UserError(f"{what} {value!r} is not known; known: {', '.join(known)}")
    if threads is not None and threads < 1:
        raise UserError(f"threads {threads}: must be at least 1")


def choose_engine(engine: str = "auto", device: str = "auto", dtype: str = "float32") -> str:
    """`native` or `torch`; UserError for what is not known, or for an engine that is not there or cannot do it."""
    refuse_unknown(engine, device, dtype)
    chosen = engine if engine != "auto" else _fitting(device, dtype)
    if chosen == "native" and device == "cuda":
        raise UserError("device 'cuda': the compiled engine runs on CPUs; use --backend torch")
    if chosen == "native" and (reason := native.why_missing()):
        raise UserError(f"no compiled engine: {reason}")
    if dtype not in DTYPES[chosen]:
        reason = native.why_missing() or "drop --backend and --device"
        raise UserError(f"dtype {dtype!r} needs the compiled engine ({reason}); or use float32")
    if chosen == "torch" and not _has_torch():
        reason = native.why_missing()
        other = f" ({reason})" if reason else ", or drop --backend and --device"
        raise UserError(f"no engine: torch is not installed; {install('torch')}{other}")
    return chosen


def _fitting(device: str, dtype: str) -> str:
    """A GPU is torch's; on CPUs the compiled engine is faster."""
    gpu = device == "cuda" or (device == "auto" and dtype != "int8" and _sees_gpu())
    return "torch" if gpu or native.why_missing() else "native"


def _sees_gpu() -> bool:
    """Whether torch would find a GPU. Importing torch takes seconds, so a machine without a driver is not asked."""
    if not any(Path("/dev", name).exists() for name in ("nvidia0", "dxg", "kfd")) or not _has_torch():
        return False
    import torch

    return bool(torch.cuda.is_available())


def _has_torch() -> bool:
    return importlib.util.find_spec("torch") is not None


def open_backend(model: ModelFiles, engine: str, device: str, dtype: str, threads: int | None) -> Backend:
    """The backend of what was read of a model folder; UserError if its parts do not fit together."""
    if choose_engine(engine, device, dtype) == "native":
        from ziggurat.engine import native_backend

        return native_backend.backend_of(model, dtype, threads)
    from ziggurat.engine import torch_backend

    return torch_backend.backend_of(model, device, dtype, threads)
