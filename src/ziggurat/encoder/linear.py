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
