"""Where heads begin to read: states with mean 0 and deviation 1, as the train rows have them when a stage starts."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor, nn

from ziggurat.encoder.linear import ReadingLinear

ROWS = 4096  # that are looked at
_SMALLEST = 1e-4  # deviation that a feature is taken to have, in the size of all: what float32 can tell, and no noise


class _Moments:
    """Running sums of what one map reads, in float64: the deviation is small beside the mean."""

    def __init__(self, width: int) -> None:
        self.count = 0
        self.sum, self.squares = np.zeros(width), np.zeros(width)

    def add(self, states: Tensor) -> None:
        """States (n, width)."""
        values = states.double().cpu().numpy()
        self.count += len(values)
        self.sum += values.sum(axis=0)
        self.squares += (values**2).sum(axis=0)

    def mean_and_deviation(self) -> tuple[Tensor, Tensor]:
        """Of each feature, (width) float32 each."""
        mean = self.sum / self.count
        variance = np.maximum(self.squares / self.count - mean**2, 0)
        size = np.sqrt((self.squares / self.count).mean())
        deviation = np.sqrt(variance + (_SMALLEST * size) ** 2)
        return torch.from_numpy(mean).float(), torch.from_numpy(deviation).float()


@torch.no_grad()
def standardise(heads: Iterable[nn.Module], show: Callable[[], None]) -> None:
    """Lets the heads read standardised states until `fold`; `show()` runs them on rows that say what is usual.

    A map without a bias has nothing to fold a mean into, and stays as it is (poolers of ModernBERT).
    """
    maps = [part for head in heads for part in head.modules() if isinstance(part, ReadingLinear)]
    seen = {part: _Moments(part.in_features) for part in maps if part.bias is not None}
    hooks = [part.register_forward_pre_hook(lambda part, states: seen[part].add(states[0])) for part in seen]
    show()
    for hook in hooks:
        hook.remove()
    for part, moments in seen.items():
        part.standardise(*(numbers.to(part.weight.device) for numbers in moments.mean_and_deviation()))


def fold(module: nn.Module) -> None:
    """Makes every standardisation below the module a part of the map that reads it."""
    for part in module.modules():
        if isinstance(part, ReadingLinear):
            part.fold()
