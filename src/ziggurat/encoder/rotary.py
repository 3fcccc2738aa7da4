"""Rotary positions (Su et al. 2021): queries and keys are turned, so that products know how far apart they are."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def rotate(qkv: Tensor, positions: np.ndarray, n_heads: int, base: float) -> Tensor:
    """Queries and keys of (n_tokens, 3 d) turned by where each token stood in its text, `positions` (n_tokens).

    Column j of a head and column width / 2 + j are turned together by position / base ** (2 j / width), computed in
    float32 like the models were trained: at position 8,191 another rounding is another angle.
    """
    n, width = len(qkv), qkv.shape[1] // (3 * n_heads)
    steps = torch.arange(0, width, 2, dtype=torch.float32, device=qkv.device) / width
    angles = torch.from_numpy(positions).to(qkv.device).float()[:, None] * (1.0 / base**steps)
    cosine, sine = angles.cos()[:, None, None], angles.sin()[:, None, None]
    parts = qkv.view(n, 3, n_heads, width)
    one, other = parts[:, :2].float().chunk(2, dim=-1)
    turned = torch.cat([one * cosine - other * sine, other * cosine + one * sine], dim=-1)
    return torch.cat([turned.to(qkv.dtype), parts[:, 2:]], dim=1).flatten(1)
