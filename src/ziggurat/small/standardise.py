"""Where heads begin to read: states with mean 0 and deviation 1, as the train rows have them when a stage starts."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor, nn

from ziggurat.encoder.torch.parts import ReadingLinear

ROWS = 4096  # that are looked at
# Deviation that a feature is taken to have on top, in its own size. MiniLM has one that is 20 times the others' and of
# which all texts have the same to five digits: read more finely, it would tell float32's rounding.
_SMALLEST = 1e-3


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
        mean, squares = self.sum / self.count, self.squares / self.count
        deviation = np.sqrt(np.maximum(squares - mean**2, 0) + _SMALLEST**2 * squares)
        deviation[deviation == 0] = 1
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
