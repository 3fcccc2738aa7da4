"""INT8 in the compiled engine's scheme, simulated with floats: to train for it, and to see what it costs in accuracy.

Weights are symmetric int8 with one scale per output channel, activations symmetric int8 with one scale per token, taken
from the token's own largest value. So no calibration data is needed, and what a linear map answers for a token does not
depend on its batch mates, to the bit. A whole model's answer does as far as attention does: where the latter's last
digits differ, now and then a value is rounded to the next code. LTP (section 4.6) has static scales instead, and the
code that it builds on, I-BERT, computes softmax, GELU and LayerNorm with integers too; here those stay floats, and so
do the two products inside attention.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn

from ziggurat.encoder.torch.parts import RowLinear, row_linear
from ziggurat.errors import UserError

LARGEST = 127  # -128 stays unused: a range that is symmetric needs no zero point
# Maps of a head that see every token; all others see one row of a sequence, cost little, and decide who leaves.
EACH_TOKEN = ("narrow", "key_value")


class Int8Linear(RowLinear):
    """A linear map that answers as int8 arithmetic would, with the parameters of the one that it stands in for.

    Parameters, their names and their order in a state dict are those of `linear`; gradients pass straight through the
    rounding, to float parameters. Weights are rounded anew at every call, for training changes them.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear.in_features, linear.out_features, bias=linear.bias is not None, device="meta")
        self.weight, self.bias = linear.weight, linear.bias
        self.plain = type(linear)  # what `without_int8` puts back
        self.train(linear.training)

    def forward(self, states: Tensor) -> Tensor:
        """(n, d_in) → (n, d_out)."""
        rows, row_scales = quantise_rows(states)
        channels, channel_scales = quantise_rows(self.weight)
        # Codes and not rounded floats are multiplied: bfloat16 holds every code exactly, and float32 every sum below
        # 2²⁴, in whatever order a library adds. float16 would overflow.
        sums = row_linear(rows.to(self.weight.dtype), channels.to(self.weight.dtype), None)
        answers = sums * row_scales * channel_scales.T
        return (answers if self.bias is None else answers + self.bias).to(sums.dtype)


def quantise_rows(values: Tensor) -> tuple[Tensor, Tensor]:
    """Symmetric int8 by rows: (n, d) → codes (n, d), whole numbers from -127 to 127 kept as floats, and scales (n, 1).

    codes × scales ≈ values, at most half a scale away. Halves are rounded to even, as processors do. The gradient of
    the codes is that of values / scales (straight-through, scales held fixed; no value lies beyond the largest code,
    so there is nothing to clip). float64 is computed as such, everything else in float32.
    """
    values = values.to(torch.promote_types(values.dtype, torch.float32))
    scales = values.detach().abs().amax(dim=1, keepdim=True) / LARGEST
    # A row of zeros, or of numbers so small that their scale has lost its digits, has nothing to divide by.
    scales = torch.where(scales < torch.finfo(scales.dtype).tiny, 1.0, scales)
    return _RoundStraightThrough.apply(values / scales), scales


@torch.no_grad()
def int8_weights(linear: nn.Linear) -> tuple[Tensor, Tensor]:
    """What a compiled engine stores of a linear map: codes (d_out, d_in) int8 and scales (d_out) float32."""
    codes, scales = quantise_rows(linear.weight)
    return codes.to(torch.int8), scales.flatten().float()


def float_parts(model: nn.Module) -> tuple[str, ...]:
    """Parts of an EncoderModel that the compiled engine leaves floats: all but what it computes for every token.

    Embeddings are looked up and not multiplied (LTP leaves them out too).
    """
    maps = [name for name, part in model.named_modules() if isinstance(part, nn.Linear) and name.startswith("exits.")]
    once = [name for name in maps if name.rpartition(".")[2] not in EACH_TOKEN]
    return ("encoder.embeddings", "classifier", *once)


def simulate_int8(model: nn.Module, exclude: Collection[str] | None = None) -> tuple[str, ...]:
    """Lets the model's linear maps answer as int8 arithmetic would, in place; returns the names of those that do.

    `exclude` names modules of the model (`encoder.layers.0`, `encoder.layers.3.down`, `exits`) that stay floats, with
    all that is below them; None = `float_parts`, as in the compiled engine. `("encoder.embeddings",)` is LTP's choice:
    heads and classifier too. Maps that are simulated already stay so. UserError for a name that the model does not
    have. `without_int8` takes it back.
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
    """Gives every simulated linear map its own class and arithmetic back, in place; parameters are the same objects."""
    for name, part in list(model.named_modules()):
        if isinstance(part, Int8Linear):
            plain = part.plain(part.in_features, part.out_features, bias=part.bias is not None, device="meta")
            plain.weight, plain.bias = part.weight, part.bias
            model.set_submodule(name, plain.train(part.training))


class _RoundStraightThrough(torch.autograd.Function):
    """Rounds forward; backward the gradient passes as if it had not."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return values.round()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient
