"""Standardises the input of heads: mean 0 and deviation 1 on the train rows at the start of a stage."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor, nn

from ziggurat.encoder.torch.parts import ReadingLinear

ROWS = 4096  # train rows that mean and deviation are computed from, at most
# Added to a deviation, relative to the feature's size. MiniLM has a feature 20 times as large as all others, which is
# equal for all texts to five digits: without this, float32's rounding would be amplified.
_SMALLEST = 1e-3


class _Moments:
    """Running sums of one map's inputs, in float64, since the deviation is small compared to the mean."""

    def __init__(self, width: int) -> None:
        self.count = 0
        self.sum, self.squares = np.zeros(width), np.zeros(width)

    def add(self, states: Tensor) -> None:
        """Adds states (n, width)."""
        values = states.double().cpu().numpy()
        self.count += len(values)
        self.sum += values.sum(axis=0)
        self.squares += (values**2).sum(axis=0)

    def mean_and_deviation(self) -> tuple[Tensor, Tensor]:
        """Mean and deviation of each feature, (width) float32 each."""
        mean, squares = self.sum / self.count, self.squares / self.count
        deviation = np.sqrt(np.maximum(squares - mean**2, 0) + _SMALLEST**2 * squares)
        deviation[deviation == 0] = 1
        return torch.from_numpy(mean).float(), torch.from_numpy(deviation).float()


@torch.no_grad()
def standardise(heads: Iterable[nn.Module], show: Callable[[], None]) -> None:
    """Makes the heads standardise their input until `fold`; `show()` must run them on a sample of rows.

    Maps without a bias are skipped, since a mean cannot be folded into them (poolers of ModernBERT).
    """
    maps = [part for head in heads for part in head.modules() if isinstance(part, ReadingLinear)]
    moments = {part: _Moments(part.in_features) for part in maps if part.bias is not None}
    hooks = [part.register_forward_pre_hook(lambda part, states: moments[part].add(states[0])) for part in moments]
    show()
    for hook in hooks:
        hook.remove()
    for part, sums in moments.items():
        part.standardise(*(numbers.to(part.weight.device) for numbers in sums.mean_and_deviation()))


def fold(module: nn.Module) -> None:
    """Merges every standardisation in the module into the weights of its map."""
    for part in module.modules():
        if isinstance(part, ReadingLinear):
            part.fold()
