"""Which device computes."""

from __future__ import annotations

import torch

from ziggurat.config import DEVICES
from ziggurat.errors import UserError


def resolve_device(name: str) -> torch.device:
    """`auto` is the GPU where there is one; UserError for an unknown or an absent device."""
    if name not in DEVICES:
        raise UserError(f"device {name!r} is not known; known: {', '.join(DEVICES)}")
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("device 'cuda': torch sees no GPU; use --device cpu, or install a CUDA build of torch")
    use_gpu = name == "cuda" or (name == "auto" and torch.cuda.is_available())
    return torch.device("cuda" if use_gpu else "cpu")


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 is faster than float32 there: every supported GPU, and CPUs with AVX-512 BF16 or AMX."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
