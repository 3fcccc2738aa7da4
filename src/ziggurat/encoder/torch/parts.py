"""Small parts: linear maps over packed rows, a fast dropout, the choice of the device."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ziggurat.config import DEVICES
from ziggurat.errors import UserError
from ziggurat.system import default_threads, n_cores

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
        if self.mean is None or self.deviation is None:
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
