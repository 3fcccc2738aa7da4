"""Building blocks: linear maps over packed rows, a fast dropout, choice of the device."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ziggurat.config import DEVICES
from ziggurat.errors import UserError
from ziggurat.system import default_threads, n_cores

_LEVELS = 1 << 16  # dropout compares 16 random bits: probabilities are rounded to multiples of 1 / 65,536


def drop(states: Tensor, share: float) -> Tensor:
    """`functional.dropout` in training: zeroes each number with probability `share` and scales the others up.

    One draw from torch's generator seeds numpy's SFC64, so fixing torch's seed also fixes this generator.
    """
    if states.device.type != "cpu" or not 0 < share < 1:
        return functional.dropout(states, share)
    dropped, count = round(share * _LEVELS), states.numel()
    random = np.random.Generator(np.random.SFC64(int(torch.randint(1 << 62, (1,)))))
    words = random.integers(0, 1 << 64, -(-count // 4), dtype=np.uint64).view(np.int16)[:count]
    mask = torch.from_numpy(words).view(states.shape) >= dropped - _LEVELS // 2
    # A product, because masked selection and conversion of booleans are both seven times slower.
    return states * mask.view(torch.uint8).to(states.dtype).mul_(_LEVELS / (_LEVELS - dropped))


class Dropout(nn.Module):
    """`drop` in training, identity otherwise."""

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
    """A head's first linear map. During training it may standardise its input; `fold` merges that into the weights.

    States of different texts are nearly equal: in the lower layers of MiniLM a first token varies between texts by a
    hundredth of its size. Neither AdamW at a usual rate nor bfloat16 can tell that from a constant.
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
        """Standardises the input by mean and deviation, both (d_in); weights change so that outputs stay the same."""
        self.fold()
        self.bias.copy_(self.bias.double() + self.weight.double() @ mean.double())
        self.weight.mul_(deviation)
        self.mean, self.deviation = mean, deviation

    @torch.no_grad()
    def fold(self) -> None:
        """Merges the standardisation, if there is one, into weight and bias; outputs stay the same."""
        if self.mean is None or self.deviation is None:
            return
        weight = self.weight.double() / self.deviation.double()
        self.bias.copy_(self.bias.double() - weight @ self.mean.double())
        self.weight.copy_(weight)
        self.mean = self.deviation = None


def row_linear(states: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`functional.linear` for any number of rows: (n, d_in), (d_out, d_in), (d_out) → (n, d_out).

    For bfloat16 on CPUs, oneDNN generates a kernel for every number of rows and caches a thousand of them, which costs
    time at every step, and gigabytes. Rounding the number of rows up bounds the number of kernels.
    """
    if states.device.type == "cpu" and (states.dtype == torch.bfloat16 or torch.is_autocast_enabled("cpu")):
        return functional.linear(pad_rows(states), weight, bias)[: len(states)]
    return functional.linear(states, weight, bias)


def pad_rows(states: Tensor) -> Tensor:
    """Pads with rows of zeros to one of 16 sizes per doubling (at most 7 % more, or 7 rows): (n, d) → (≥ n, d)."""
    n = len(states)
    step = max(8, (1 << max(n - 1, 1).bit_length()) // 32)
    return functional.pad(states, (0, 0, 0, -n % step)) if n % step else states


def resolve_device(name: str) -> torch.device:
    """The torch device; `auto` = GPU if there is one. UserError for an unknown or missing device."""
    if name not in DEVICES:
        raise UserError(f"device {name!r} is not known; known: {', '.join(DEVICES)}")
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("device 'cuda': torch sees no GPU; use --device cpu, or install a CUDA build of torch")
    use_gpu = name == "cuda" or (name == "auto" and torch.cuda.is_available())
    return torch.device("cuda" if use_gpu else "cpu")


def limit_threads(threads: int | None = None) -> None:
    """Sets torch's number of CPU threads; None = torch's default, limited to the available cores.

    The default ignores a container's CPU quota.
    """
    torch.set_num_threads(threads or min(torch.get_num_threads(), max(n_cores(), default_threads())))


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 is faster than float32 there: every supported GPU, and CPUs with AVX-512 BF16 or AMX."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
