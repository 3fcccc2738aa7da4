"""Which device computes."""

from __future__ import annotations

import torch

from ziggurat.config import DEVICES
from ziggurat.errors import UserError
from ziggurat.machine import default_threads, n_cores


def resolve_device(name: str) -> torch.device:
    """`auto` is the GPU where there is one; UserError for an unknown or an absent device."""
    if name not in DEVICES:
        raise UserError(f"device {name!r} is not known; known: {', '.join(DEVICES)}")
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("device 'cuda': torch sees no GPU; use --device cpu, or install a CUDA build of torch")
    use_gpu = name == "cuda" or (name == "auto" and torch.cuda.is_available())
    return torch.device("cuda" if use_gpu else "cpu")


def limit_threads(threads: int | None = None) -> None:
    """Lets torch compute with so many threads of the CPU; None = as many as it has, but no more than there are cores.

    By itself torch takes all that the process may run on, and knows nothing of a container's quota.
    """
    torch.set_num_threads(threads or min(torch.get_num_threads(), max(n_cores(), default_threads())))


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 is faster than float32 there: every supported GPU, and CPUs with AVX-512 BF16 or AMX."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
