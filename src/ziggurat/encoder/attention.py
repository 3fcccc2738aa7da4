"""Attention over a packed batch: sequences of similar length share one call, so that little is padded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import dropout as drop
from torch.nn.functional import scaled_dot_product_attention

from ziggurat.data.packing import cumulate, padded_slots

# Sequences are grouped by length rounded up to this share of it: finer groups pad less but cost more calls.
_GROUP_RATIO = 1.2


def attend(qkv: Tensor, lengths: np.ndarray, n_heads: int, dropout: float = 0.0) -> Tensor:
    """Softmax attention within each sequence.

    `qkv` (n_tokens, 3 d) holds queries, keys and values side by side; `lengths` (n_seqs) the tokens of each sequence.
    Returns the context (n_tokens, d), heads concatenated.
    """
    (context,) = _in_groups(qkv, lengths, lambda grid: (grid.fused(n_heads, dropout),))
    return context


def attend_and_score(
    qkv: Tensor,
    lengths: np.ndarray,
    n_heads: int,
    dropout: float = 0.0,
    from_others: bool = False,
    active: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """`attend`, and how much attention each token received: context (n_tokens, d), scores (n_tokens).

    The score is the column sum of the head-averaged probabilities over the sequence's queries, before dropout (LTP eq.
    3.7, MP eq. 7); its mean over a sequence's tokens is 1. `from_others` leaves out what a token gives to itself.
    `active` (n_tokens) in (0, 1] softly removes tokens: as keys by their logarithm, as queries by their weight.
    """
    soft = active is not None
    states = torch.cat([qkv, active[:, None]], dim=1) if soft else qkv
    context, received = _in_groups(states, lengths, lambda grid: grid.scored(n_heads, dropout, from_others, soft))
    return context, received.squeeze(1)


def score_gap(qkv: Tensor, other: Tensor, lengths: np.ndarray, n_heads: int) -> Tensor:
    """Mean square of the difference between two attentions' scores before softmax (TinyBERT eq. 7): a scalar.

    `qkv` (n_tokens, 3 d) and `other` (n_tokens, 3 e) as in `attend`, of as many heads; each side's scores are divided
    by the root of its own head width. The mean is over heads and all pairs of a sequence's tokens, of all sequences.
    """

    def squares(grid: _Grid) -> tuple[Tensor]:
        sides = grid.states.split([qkv.shape[1], other.shape[1]], dim=-1)
        one, two = (_Grid(side, grid.real).products(n_heads) for side in sides)
        gap = one - two if grid.real is None else (one - two).masked_fill(~grid.real[:, None, None, :], 0.0)
        return (gap.square().sum(dim=(1, 3)).unsqueeze(-1),)

    (sums,) = _in_groups(torch.cat([qkv, other], dim=1).float(), lengths, squares)
    return sums.sum() / float(n_heads * (lengths**2).sum())


def group_by_length(lengths: np.ndarray) -> list[np.ndarray]:
    """Indices of the sequences of each group, longest over shortest at most `_GROUP_RATIO` (or 8 tokens) apart."""
    order = np.argsort(lengths, kind="stable")
    groups, start = [], 0
    ordered = lengths[order]
    while start < len(order):
        limit = max(int(ordered[start] * _GROUP_RATIO), int(ordered[start]) + 8)
        stop = int(np.searchsorted(ordered, limit, side="right"))
        groups.append(np.sort(order[start:stop]))
        start = stop
    return groups


@dataclass(frozen=True)
class _Grid:
    """Sequences of similar length, padded: states (n_seqs, longest, width), real (n_seqs, longest) or None = all."""

    states: Tensor
    real: Tensor | None

    def heads(self, n_heads: int) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys, values, each (n_seqs, n_heads, longest, head width)."""
        n_seqs, longest, width = self.states.shape
        parts = self.states[:, :, : width // 3 * 3].reshape(n_seqs, longest, 3, n_heads, -1).permute(2, 0, 3, 1, 4)
        return parts[0], parts[1], parts[2]

    def products(self, n_heads: int) -> Tensor:
        """Scores before softmax, padding included: (n_seqs, n_heads, longest, longest)."""
        query, key, _ = self.heads(n_heads)
        return (query * query.shape[-1] ** -0.5) @ key.transpose(2, 3)

    def fused(self, n_heads: int, dropout: float) -> Tensor:
        """The context by PyTorch's fused attention: (n_seqs, longest, d)."""
        query, key, value = self.heads(n_heads)
        mask = None if self.real is None else self.real[:, None, None, :]
        context = scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout)
        return context.transpose(1, 2).flatten(2)

    def scored(self, n_heads: int, dropout: float, from_others: bool, soft: bool) -> tuple[Tensor, Tensor]:
        """The context (n_seqs, longest, d) and the scores (n_seqs, longest, 1). Probabilities are written out."""
        value = self.heads(n_heads)[2]
        products = self.products(n_heads)
        if soft:
            weights = self.states[:, :, -1]
            products = products + weights.float().clamp_min(1e-30).log().to(products.dtype)[:, None, None, :]
        if self.real is not None:
            products = products.masked_fill(~self.real[:, None, None, :], float("-inf"))
        shares = products.softmax(dim=-1)
        mean = shares.mean(dim=1)
        if from_others:
            mean = mean - torch.diag_embed(mean.diagonal(dim1=1, dim2=2))
        # Padding queries weigh nothing: where there are weights, those in the grid's padding are 0.
        if not soft:
            weights = mean.new_ones(mean.shape[:2]) if self.real is None else self.real.to(mean.dtype)
        received = (weights[:, None, :] @ mean).transpose(1, 2)
        context = (drop(shares, dropout) @ value if dropout else shares @ value).transpose(1, 2).flatten(2)
        return context, received


Call = Callable[[_Grid], tuple[Tensor, ...]]


def _in_groups(states: Tensor, lengths: np.ndarray, call: Call) -> tuple[Tensor, ...]:
    """`call` on padded groups of similar length: (n_tokens, width) → (n_tokens, width of each answer)."""
    if states.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
        # Half precision gains nothing in products this small, and oneDNN would generate a kernel for each of them.
        with torch.autocast("cpu", enabled=False):
            return _in_groups(states.float(), lengths, call)
    groups = group_by_length(lengths)
    if len(groups) == 1:
        return _on_grid(states, lengths, call)
    starts = cumulate(lengths)[:-1]
    tokens = [_tokens_of(starts[group], lengths[group]) for group in groups]
    pieces = [
        _on_grid(states[torch.from_numpy(mine)], lengths[group], call)
        for mine, group in zip(tokens, groups, strict=True)
    ]
    order = torch.from_numpy(np.concatenate(tokens)).to(states.device)
    answers = [torch.cat(parts) for parts in zip(*pieces, strict=True)]
    return tuple(torch.empty_like(answer).index_copy(0, order, answer) for answer in answers)


def _tokens_of(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Packed indices of these sequences' tokens, sequence by sequence."""
    return np.arange(lengths.sum()) + np.repeat(starts - cumulate(lengths)[:-1], lengths)


def _on_grid(states: Tensor, lengths: np.ndarray, call: Call) -> tuple[Tensor, ...]:
    """`call` on sequences of similar length as one padded grid."""
    n_seqs, longest = len(lengths), int(lengths.max())
    if len(states) == n_seqs * longest:
        return tuple(answer.flatten(0, 1) for answer in call(_Grid(states.view(n_seqs, longest, -1), None)))
    slots = torch.from_numpy(padded_slots(lengths)).to(states.device)
    # Zeros and not empty memory: a masked key's value is multiplied by 0, and 0 x NaN is NaN.
    grid = states.new_zeros(n_seqs * longest, states.shape[1]).index_copy(0, slots, states)
    real = torch.from_numpy(np.arange(longest) < lengths[:, None]).to(states.device)
    answers = call(_Grid(grid.view(n_seqs, longest, -1), real))
    return tuple(answer.flatten(0, 1).index_select(0, slots) for answer in answers)
