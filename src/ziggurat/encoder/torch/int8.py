"""Simulates the compiled engine's INT8 with floats: to train for it, and to measure its loss of accuracy.

Weights are symmetric int8 with one scale per output channel. Activations are symmetric int8 with one scale per token,
from the token's largest value. So no calibration data is needed, and a token's output of a linear map does not depend
on its batch, to the bit. Attention's last digits may depend on the batch; then a value is sometimes rounded to the next
code. LTP (section 4.6) has static scales instead. The code that it builds on, I-BERT, also computes softmax, GELU and
LayerNorm with integers; here these stay floats, and so do the two products inside attention.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn

from ziggurat.encoder.torch.parts import RowLinear, row_linear
from ziggurat.errors import UserError

LARGEST = 127  # -128 is unused: a symmetric range needs no zero point
# Maps of a head that see every token. All others see one row per sequence, are cheap, and decide exits.
EACH_TOKEN = ("narrow", "key_value")


class Int8Linear(RowLinear):
    """A linear map that computes like int8 arithmetic; it replaces `linear` and shares its parameters.

    The state dict is that of `linear`. Gradients pass straight through the rounding to the float parameters. Weights
    are rounded at every call, since training changes them.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear.in_features, linear.out_features, bias=linear.bias is not None, device="meta")
        self.weight, self.bias = linear.weight, linear.bias
        self.plain = type(linear)  # class that `without_int8` restores
        self.train(linear.training)

    def forward(self, states: Tensor) -> Tensor:
        """(n, d_in) → (n, d_out)."""
        rows, row_scales = quantise_rows(states)
        channels, channel_scales = quantise_rows(self.weight)
        # Multiply codes instead of rounded floats: bfloat16 holds every code exactly, and float32 every sum below 2²⁴,
        # in any order of addition. float16 would overflow.
        sums = row_linear(rows.to(self.weight.dtype), channels.to(self.weight.dtype), None)
        answers = sums * row_scales * channel_scales.T
        return (answers if self.bias is None else answers + self.bias).to(sums.dtype)


def quantise_rows(values: Tensor) -> tuple[Tensor, Tensor]:
    """Symmetric int8 by rows: (n, d) → codes (n, d), whole numbers -127 … 127 stored as floats, and scales (n, 1).

    codes × scales ≈ values, with an error of at most half a scale. Halves are rounded to even, as processors do. The
    gradient of the codes is that of values / scales (straight-through, with constant scales). No value exceeds the
    largest code, so there is no clipping. float64 stays float64; all other types are computed in float32.
    """
    values = values.to(torch.promote_types(values.dtype, torch.float32))
    scales = values.detach().abs().amax(dim=1, keepdim=True) / LARGEST
    # Avoid division by zero for a row of zeros, or of numbers whose scale is subnormal.
    scales = torch.where(scales < torch.finfo(scales.dtype).tiny, 1.0, scales)
    return _RoundStraightThrough.apply(values / scales), scales


@torch.no_grad()
def int8_weights(linear: nn.Linear) -> tuple[Tensor, Tensor]:
    """A linear map as the compiled engine stores it: codes (d_out, d_in) int8 and scales (d_out) float32."""
    codes, scales = quantise_rows(linear.weight)
    return codes.to(torch.int8), scales.flatten().float()


def float_parts(model: nn.Module) -> tuple[str, ...]:
    """Parts of an EncoderModel that stay floats in the compiled engine: all maps that do not see every token.

    Embeddings are a lookup without a product (LTP excludes them too).
    """
    maps = [name for name, part in model.named_modules() if isinstance(part, nn.Linear) and name.startswith("exits.")]
    once = [name for name in maps if name.rpartition(".")[2] not in EACH_TOKEN]
    return ("encoder.embeddings", "classifier", *once)


def simulate_int8(model: nn.Module, exclude: Collection[str] | None = None) -> tuple[str, ...]:
    """Makes the model's linear maps compute like int8 arithmetic, in place; returns the names of all such maps.

    `exclude` names modules (`encoder.layers.0`, `encoder.layers.3.down`, `exits`) that stay floats, including their
    children. None = `float_parts`, as in the compiled engine. LTP's choice is `("encoder.embeddings",)`: heads and
    classifier are int8 too. Maps that are simulated already are left alone. UserError for an unknown name.
    `without_int8` reverts it.
    """
    parts = dict(model.named_modules())
    exclude = float_parts(model) if exclude is None else exclude
    if unknown := [name for name in exclude if name not in parts]:
        raise UserError(
            f"int8: the model has no part {unknown[0]!r} to exclude; parts are named like 'encoder.embeddings'"
        )
    for name, part in parts.items():
        excluded = any(name == other or name.startswith(f"{other}.") for other in exclude)
        if isinstance(part, nn.Linear) and not isinstance(part, Int8Linear) and not excluded:
            model.set_submodule(name, Int8Linear(part))
    return tuple(name for name, part in model.named_modules() if isinstance(part, Int8Linear))


def without_int8(model: nn.Module) -> None:
    """Restores class and arithmetic of every simulated linear map, in place; parameters stay the same objects."""
    for name, part in list(model.named_modules()):
        if isinstance(part, Int8Linear):
            plain = part.plain(part.in_features, part.out_features, bias=part.bias is not None, device="meta")
            plain.weight, plain.bias = part.weight, part.bias
            model.set_submodule(name, plain.train(part.training))


class _RoundStraightThrough(torch.autograd.Function):
    """Rounds in the forward pass; the backward pass ignores the rounding."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return values.round()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient
