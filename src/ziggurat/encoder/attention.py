"""Attention over a packed batch: sequences of similar length share one call, so that little is padded."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ziggurat.data.packing import cumulate, padded_slots
from ziggurat.encoder.grid import Grid, Window

# Sequences are grouped by length rounded up to this share of it: finer groups pad less but cost more calls.
_GROUP_RATIO = 1.2


def attend(
    qkv: Tensor, lengths: np.ndarray, n_heads: int, dropout: float = 0.0, window: Window | None = None
) -> Tensor:
    """Softmax attention within each sequence.

    `qkv` (n_tokens, 3 d) holds queries, keys and values side by side; `lengths` (n_seqs) the tokens of each sequence.
    Returns the context (n_tokens, d), heads concatenated.
    """
    if window is not None and window.positions.max() <= window.reach:
        window = None
    (context,) = _in_groups(qkv, lengths, lambda grid: (grid.fused(n_heads, dropout),), window)
    return context


def attend_and_score(
    qkv: Tensor,
    lengths: np.ndarray,
    n_heads: int,
    dropout: float = 0.0,
    from_others: bool = False,
    active: Tensor | None = None,
    window: Window | None = None,
) -> tuple[Tensor, Tensor]:
    """`attend`, and how much attention each token received: context (n_tokens, d), scores (n_tokens).

    The score is the column sum of the head-averaged probabilities over the sequence's queries, before dropout (LTP eq.
    3.7, MP eq. 7); its mean over a sequence's tokens is 1. `from_others` leaves out what a token gives to itself.
    `active` (n_tokens) in (0, 1] softly removes tokens: as keys by their logarithm, as queries by their weight.

    With a window, tokens at the edges are seen by fewer queries, whose attention is spread over fewer tokens. There a
    probability counts by the number of tokens that its query sees (1 = even attention), a token's score is the mean of
    that over the queries that see it, and scores are scaled to mean 1, `from_others` too. Where all is in sight this is
    the column sum.
    """
    soft = active is not None
    states = torch.cat([qkv, active[:, None]], dim=1) if soft else qkv
    call = partial(Grid.scored, n_heads=n_heads, dropout=dropout, from_others=from_others, soft=soft)
    context, received = _in_groups(states, lengths, call, window)
    return context, received.squeeze(1)


def score_gap(qkv: Tensor, other: Tensor, lengths: np.ndarray, n_heads: int) -> Tensor:
    """Mean square of the difference between two attentions' scores before softmax (TinyBERT eq. 7): a scalar.

    `qkv` (n_tokens, 3 d) and `other` (n_tokens, 3 e) as in `attend`, of as many heads; each side's scores are divided
    by the root of its own head width. The mean is over heads and all pairs of a sequence's tokens, of all sequences.
    """

    def squares(grid: Grid) -> tuple[Tensor]:
        sides = grid.states.split([qkv.shape[1], other.shape[1]], dim=-1)
        one, two = (Grid(side, grid.real, None).products(n_heads) for side in sides)
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


Call = Callable[[Grid], tuple[Tensor, ...]]


def _in_groups(states: Tensor, lengths: np.ndarray, call: Call, window: Window | None = None) -> tuple[Tensor, ...]:
    """`call` on padded groups of similar length: (n_tokens, width) → (n_tokens, width of each answer)."""
    if states.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
        # Half precision gains nothing in products this small, and oneDNN would generate a kernel for each of them.
        with torch.autocast("cpu", enabled=False):
            return _in_groups(states.float(), lengths, call, window)
    groups = group_by_length(lengths)
    if len(groups) == 1:
        return _on_grid(states, lengths, call, window)
    starts = cumulate(lengths)[:-1]
    tokens = [_tokens_of(starts[group], lengths[group]) for group in groups]
    order = np.concatenate(tokens)
    sizes = [len(mine) for mine in tokens]
    pieces = [
        _on_grid(part, lengths[group], call, _of_tokens(window, mine))
        for part, group, mine in zip(_reordered(states, order).split(sizes), groups, tokens, strict=True)
    ]
    back = np.argsort(order)
    return tuple(_reordered(torch.cat(parts), back) for parts in zip(*pieces, strict=True))


class _Reordered(torch.autograd.Function):
    """Rows in another order. Autograd's own gradient of a selection starts from zeros for every row, for each group."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, order: Tensor, back: Tensor) -> Tensor:
        ctx.save_for_backward(back)
        return rows.index_select(0, order)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (back,) = ctx.saved_tensors
        return gradient.index_select(0, back), None, None


def _reordered(rows: Tensor, order: np.ndarray) -> Tensor:
    """Row i of the answer is row order[i]; `order` (n) has each row once."""
    if (order[1:] > order[:-1]).all():
        return rows
    there, back = (torch.from_numpy(places).to(rows.device) for places in (order, np.argsort(order)))
    return _Reordered.apply(rows, there, back)


def _tokens_of(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Packed indices of these sequences' tokens, sequence by sequence."""
    return np.arange(lengths.sum()) + np.repeat(starts - cumulate(lengths)[:-1], lengths)


def _of_tokens(window: Window | None, tokens: np.ndarray) -> Window | None:
    return None if window is None else Window(window.positions[tokens], window.reach)


def _on_grid(states: Tensor, lengths: np.ndarray, call: Call, window: Window | None) -> tuple[Tensor, ...]:
    """`call` on sequences of similar length as one padded grid."""
    n_seqs, longest = len(lengths), int(lengths.max())
    if window is not None:
        # The last token's place for padding, too: then it sees somebody, and its answer, which nobody reads, is finite.
        ends = cumulate(lengths)
        slots = np.minimum(ends[:-1, None] + np.arange(longest), ends[1:, None] - 1)
        window = Window(window.positions[slots], window.reach)
    if len(states) == n_seqs * longest:
        answers = call(Grid(states.view(n_seqs, longest, -1), None, window))
        return tuple(answer.flatten(0, 1) for answer in answers)
    slots = torch.from_numpy(padded_slots(lengths)).to(states.device)
    # Zeros and not empty memory: a masked key's value is multiplied by 0, and 0 x NaN is NaN.
    grid = states.new_zeros(n_seqs * longest, states.shape[1]).index_copy(0, slots, states)
    real = torch.from_numpy(np.arange(longest) < lengths[:, None]).to(states.device)
    answers = call(Grid(grid.view(n_seqs, longest, -1), real, window))
    return tuple(answer.flatten(0, 1).index_select(0, slots) for answer in answers)
