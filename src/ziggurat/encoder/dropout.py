"""Dropout with cheap random numbers on a CPU, where torch's own take a fifth of a training step."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

_LEVELS = 1 << 16  # a number is dropped by 16 random bits: its probability is that of the nearest 65,536th


def drop(states: Tensor, share: float) -> Tensor:
    """`functional.dropout` in training: each number becomes 0 with probability `share`, the others grow to match.

    One draw from torch's generator seeds numpy's SFC64, so that what repeats the one repeats the other.
    """
    if states.device.type != "cpu" or not 0 < share < 1:
        return functional.dropout(states, share)
    dropped, count = round(share * _LEVELS), states.numel()
    random = np.random.Generator(np.random.SFC64(int(torch.randint(1 << 62, (1,)))))
    words = random.integers(0, 1 << 64, -(-count // 4), dtype=np.uint64).view(np.int16)[:count]
    kept = torch.from_numpy(words).view(states.shape) >= dropped - _LEVELS // 2
    # A product: selecting by random booleans is seven times as slow, and so is making numbers of them as such.
    return states * kept.view(torch.uint8).to(states.dtype).mul_(_LEVELS / (_LEVELS - dropped))


class Dropout(nn.Module):
    """`drop` in training, nothing otherwise."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, states: Tensor) -> Tensor:
        """The same shape."""
        return drop(states, self.share) if self.training and self.share else states
