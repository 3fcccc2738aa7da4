"""Linear maps over packed rows, whose number is never twice the same."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class RowLinear(nn.Linear):
    """nn.Linear for (n_tokens, d_in), where n_tokens differs from batch to batch."""

    def forward(self, states: Tensor) -> Tensor:
        """(n, d_in) → (n, d_out)."""
        return row_linear(states, self.weight, self.bias)


class ReadingLinear(RowLinear):
    """The map through which a head reads states. While it learns they may be standardised first; `fold` ends that.

    What a head learns from is small beside what all texts share: in the lower layers of MiniLM a first token differs
    between texts by a hundredth of its size, which neither AdamW at a usual rate nor bfloat16 can tell from a constant.
    """

    mean: Tensor | None
    deviation: Tensor | None

    def __init__(self, d_in: int, d_out: int, bias: bool = True, device: torch.device | str | None = None) -> None:
        super().__init__(d_in, d_out, bias, device)
        self.register_buffer("mean", None)
        self.register_buffer("deviation", None)

    def forward(self, states: Tensor) -> Tensor:
        """(n, d_in) → (n, d_out)."""
        if self.mean is not None:
            states = (states.float() - self.mean) / self.deviation
        return super().forward(states)

    @torch.no_grad()
    def standardise(self, mean: Tensor, deviation: Tensor) -> None:
        """From now on the map reads (states - mean) / deviation, both (d_in), and still says the same."""
        self.fold()
        self.bias.copy_(self.bias.double() + self.weight.double() @ mean.double())
        self.weight.mul_(deviation)
        self.mean, self.deviation = mean, deviation

    @torch.no_grad()
    def fold(self) -> None:
        """Makes the standardisation, if there is one, a part of weight and bias: the same map of the states."""
        if self.mean is None:
            return
        weight = self.weight.double() / self.deviation.double()
        self.bias.copy_(self.bias.double() - weight @ self.mean.double())
        self.weight.copy_(weight)
        self.mean = self.deviation = None


def row_linear(states: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`functional.linear` for any number of rows: (n, d_in), (d_out, d_in), (d_out) → (n, d_out).

    oneDNN, which computes bfloat16 on CPUs, generates a kernel for every number of rows that it meets and keeps a
    thousand of them: time at every step, and gigabytes. Rounding rows up bounds how many kernels there are.
    """
    if states.device.type == "cpu" and (states.dtype == torch.bfloat16 or torch.is_autocast_enabled("cpu")):
        return functional.linear(pad_rows(states), weight, bias)[: len(states)]
    return functional.linear(states, weight, bias)


def pad_rows(states: Tensor) -> Tensor:
    """Rows of zeros up to the next of 16 sizes per doubling (at most 7 % more, or 7 rows): (n, d) → (≥ n, d)."""
    n = len(states)
    step = max(8, (1 << max(n - 1, 1).bit_length()) // 32)
    return functional.pad(states, (0, 0, 0, -n % step)) if n % step else states
