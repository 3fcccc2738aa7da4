"""Attention over a packed batch: sequences of similar length form padded groups, so there is little padding."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint

from ziggurat.data.packing import cumulate, padded_slots
from ziggurat.encoder.torch.parts import drop

_PROBABILITIES = 1 << 25  # at most this many are in memory at a time: 128 MiB of float32
_CHECKPOINT = 1 << 27  # a call with more probabilities recomputes them for gradients instead of storing them
_LOCAL_ROWS = 256  # queries that share one range of keys in a layer with a window


@dataclass(frozen=True)
class Window:
    """A local attention window: tokens see each other if their positions differ by at most `reach`.

    Positions are those of the original text. So pruning a token brings no other token into the window.
    """

    positions: np.ndarray  # (n_tokens) int64, rising within each sequence
    reach: int


@dataclass(frozen=True)
class View:
    """A range of queries and the range of keys that they see; `mask` (n_seqs, queries or 1, keys), None = all."""

    queries: slice
    keys: slice
    mask: Tensor | None

    @property
    def pairs(self) -> int:
        """Number of (query, key) pairs."""
        return (self.queries.stop - self.queries.start) * (self.keys.stop - self.keys.start)


@dataclass(frozen=True)
class PaddedGroup:
    """Sequences of similar length, padded: states (n_seqs, longest, width), real (n_seqs, longest) bool, None = all.

    A window has positions (n_seqs, longest); padding has the position of the sequence's last token.
    """

    states: Tensor
    real: Tensor | None
    window: Window | None

    def heads(self, n_heads: int) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys, values, each (n_seqs, n_heads, longest, head width)."""
        n_seqs, longest, width = self.states.shape
        parts = self.states[:, :, : width // 3 * 3].reshape(n_seqs, longest, 3, n_heads, -1).permute(2, 0, 3, 1, 4)
        return parts[0], parts[1], parts[2]

    def products(self, n_heads: int) -> Tensor:
        """Scores before softmax, padding included: (n_seqs, n_heads, longest, longest)."""
        query, key, _ = self.heads(n_heads)
        return _products(query, key)

    def views(self, rows: int) -> Iterator[View]:
        """All queries, in ranges of at most `rows`."""
        longest = self.states.shape[1]
        for start in range(0, longest, rows):
            queries = slice(start, min(start + rows, longest))
            yield View(queries, *self._visible_to(queries))

    def _visible_to(self, queries: slice) -> tuple[slice, Tensor | None]:
        if self.window is None:
            return slice(0, self.states.shape[1]), None if self.real is None else self.real[:, None, :]
        positions, reach = self.window.positions, self.window.reach
        first, last = positions[:, queries.start, None] - reach, positions[:, queries.stop - 1, None] + reach
        keys = slice(int((positions < first).sum(1).min()), int((positions <= last).sum(1).max()))
        in_window = np.abs(positions[:, queries, None] - positions[:, None, keys]) <= reach
        mask = torch.from_numpy(in_window).to(self.states.device)
        return keys, mask if self.real is None else mask & self.real[:, None, keys]

    def fused(self, n_heads: int, dropout: float) -> Tensor:
        """The context by PyTorch's fused attention: (n_seqs, longest, d)."""
        query, key, value = self.heads(n_heads)
        rows = self.states.shape[1] if self.window is None else _LOCAL_ROWS
        contexts = []
        for view in self.views(rows):
            mask = None if view.mask is None else view.mask[:, None]
            qkv = query[:, :, view.queries], key[:, :, view.keys], value[:, :, view.keys]
            contexts.append(_mixed(*qkv, mask, dropout))
        context = contexts[0] if len(contexts) == 1 else torch.cat(contexts, dim=2)
        return context.transpose(1, 2).flatten(2)

    def scored(self, n_heads: int, dropout: float, from_others: bool, soft: bool) -> tuple[Tensor, Tensor]:
        """The context (n_seqs, longest, d) and the scores (n_seqs, longest, 1).

        Computes the probabilities explicitly, for as many queries at a time as `_PROBABILITIES` allows.
        """
        n_seqs, longest, _ = self.states.shape
        rows = max(1, _PROBABILITIES // (n_seqs * n_heads * longest))
        views = list(self.views(rows if self.window is None else min(rows, _LOCAL_ROWS)))
        weights = self._weights(soft)
        score = partial(self._score_view, n_heads=n_heads, dropout=dropout, from_others=from_others, soft=soft)
        if n_seqs * n_heads * sum(view.pairs for view in views) > _CHECKPOINT and torch.is_grad_enabled():
            score = partial(checkpoint, score, use_reentrant=False)
        contexts, received, visible = zip(*(score(view, self.states, weights) for view in views), strict=True)
        total = sum(
            pad(part, (view.keys.start, longest - view.keys.stop)) for view, part in zip(views, received, strict=True)
        )
        if self.window is not None:
            # If a token and its whole window have faded, both sums are 0: avoid 0 / 0.
            total = _mean_one(total / torch.cat(visible, dim=1).clamp_min(1e-6), weights)
        return torch.cat(contexts, dim=1), total[:, :, None]

    def _weights(self, soft: bool) -> Tensor:
        """Weight of each token, (n_seqs, longest); 0 for padding."""
        if soft:
            return self.states[:, :, -1]
        if self.real is None:
            return self.states.new_ones(self.states.shape[:2])
        return self.real.to(self.states.dtype)

    def _score_view(
        self,
        view: View,
        states: Tensor,
        weights: Tensor,
        *,
        n_heads: int,
        dropout: float,
        from_others: bool,
        soft: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Context (n_seqs, queries, d), received attention (n_seqs, keys), number of keys seen (n_seqs, queries)."""
        query, key, value = PaddedGroup(states, self.real, self.window).heads(n_heads)
        query, key, value = query[:, :, view.queries], key[:, :, view.keys], value[:, :, view.keys]
        products = _products(query, key)
        keys = weights[:, view.keys]
        if soft:
            products = products + keys.float().clamp_min(1e-30).log().to(products.dtype)[:, None, None, :]
        if view.mask is not None:
            products = products.masked_fill(~view.mask[:, None], float("-inf"))
        shares = products.softmax(dim=-1)
        mean = shares.mean(dim=1)
        if from_others:
            slots = torch.arange(states.shape[1], device=states.device)
            mean = mean.masked_fill(slots[view.queries, None] == slots[view.keys], 0.0)
        counts = visible = weights[:, view.queries]
        if self.window is not None and view.mask is not None:
            visible = (view.mask * keys[:, None, :]).sum(dim=2)
            counts = counts * visible
        received = (counts[:, None, :].to(mean.dtype) @ mean).squeeze(1)
        context = (drop(shares, dropout) @ value if dropout else shares @ value).transpose(1, 2).flatten(2)
        return context, received, visible


def _products(query: Tensor, key: Tensor) -> Tensor:
    return (query * query.shape[-1] ** -0.5) @ key.transpose(2, 3)


def _mixed(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropout: float) -> Tensor:
    """Softmax attention, (n_seqs, n_heads, queries, head width); `mask` is True for visible keys."""
    if not dropout or query.device.type != "cpu":
        return scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout)
    # On a CPU with dropout, torch has no fused kernel either.
    products = _products(query, key)
    if mask is not None:
        products = products.masked_fill(~mask, float("-inf"))
    return drop(products.softmax(dim=-1), dropout) @ value


def _mean_one(scores: Tensor, weights: Tensor) -> Tensor:
    """Scales scores (n_seqs, longest) to a weighted mean of 1 per sequence; rows of zeros stay zero."""
    total = (scores * weights).sum(dim=1, keepdim=True)
    return scores * (weights.sum(dim=1, keepdim=True) / torch.where(total > 0, total, 1.0))


# Largest ratio of lengths within a group: a smaller ratio means less padding but more calls.
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
    (context,) = _in_groups(qkv, lengths, lambda group: (group.fused(n_heads, dropout),), window)
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
    """`attend`, plus the attention that each token received: context (n_tokens, d), scores (n_tokens).

    The score is the column sum of the head-averaged probabilities over the sequence's queries, before dropout (LTP eq.
    3.7, MP eq. 7). Its mean over a sequence's tokens is 1. `from_others` excludes a token's attention to itself.
    `active` (n_tokens) in (0, 1] softly removes tokens: its logarithm is added to a key's scores, and queries are
    weighted by it.

    With a window, tokens at the edges are seen by fewer queries, and these see fewer tokens. So each probability is
    multiplied by the number of tokens that its query sees (1 = even attention). A token's score is the mean of these
    over the queries that see it. Scores are then scaled to mean 1, `from_others` too. If the window covers the whole
    text, this equals the column sum.
    """
    states = qkv if active is None else torch.cat([qkv, active[:, None]], dim=1)
    soft = active is not None
    call = partial(PaddedGroup.scored, n_heads=n_heads, dropout=dropout, from_others=from_others, soft=soft)
    context, received = _in_groups(states, lengths, call, window)
    return context, received.squeeze(1)


def score_gap(qkv: Tensor, other: Tensor, lengths: np.ndarray, n_heads: int) -> Tensor:
    """Mean squared difference of two attentions' scores before softmax (TinyBERT eq. 7): a scalar.

    `qkv` (n_tokens, 3 d) and `other` (n_tokens, 3 e) are as in `attend`, with the same number of heads. Each side's
    scores are divided by the root of its head width. The mean is over heads and all pairs of tokens of a sequence.
    """

    def squares(group: PaddedGroup) -> tuple[Tensor]:
        sides = group.states.split([qkv.shape[1], other.shape[1]], dim=-1)
        first, second = (PaddedGroup(side, group.real, None).products(n_heads) for side in sides)
        gap = first - second
        if group.real is not None:
            gap = gap.masked_fill(~group.real[:, None, None, :], 0.0)
        return (gap.square().sum(dim=(1, 3)).unsqueeze(-1),)

    (sums,) = _in_groups(torch.cat([qkv, other], dim=1).float(), lengths, squares)
    return sums.sum() / float(n_heads * (lengths**2).sum())


def group_by_length(lengths: np.ndarray) -> list[np.ndarray]:
    """Indices of the sequences of each group. Lengths in a group differ at most by `_GROUP_RATIO`, or by 8 tokens."""
    order = np.argsort(lengths, kind="stable")
    groups, start = [], 0
    ordered = lengths[order]
    while start < len(order):
        limit = max(int(ordered[start] * _GROUP_RATIO), int(ordered[start]) + 8)
        stop = int(np.searchsorted(ordered, limit, side="right"))
        groups.append(np.sort(order[start:stop]))
        start = stop
    return groups


Call = Callable[[PaddedGroup], tuple[Tensor, ...]]


def _in_groups(states: Tensor, lengths: np.ndarray, call: Call, window: Window | None = None) -> tuple[Tensor, ...]:
    """Applies `call` to padded groups of similar length: (n_tokens, width) → each result (n_tokens, its width)."""
    if states.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
        # Half precision is no faster for products this small, and oneDNN would generate a kernel for each shape.
        with torch.autocast("cpu", enabled=False):
            return _in_groups(states.float(), lengths, call, window)
    groups = group_by_length(lengths)
    if len(groups) == 1:
        return _on_group(states, lengths, call, window)
    starts = cumulate(lengths)[:-1]
    tokens = [_tokens_of(starts[group], lengths[group]) for group in groups]
    order = np.concatenate(tokens)
    sizes = [len(indices) for indices in tokens]
    pieces = [
        _on_group(part, lengths[group], call, _of_tokens(window, indices))
        for part, group, indices in zip(_reordered(states, order).split(sizes), groups, tokens, strict=True)
    ]
    back = np.argsort(order)
    return tuple(_reordered(torch.cat(parts), back) for parts in zip(*pieces, strict=True))


class _Reordered(torch.autograd.Function):
    """Permutes rows. Autograd's gradient of a selection would fill zeros for all rows, once for each group."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, order: Tensor, back: Tensor) -> Tensor:
        ctx.save_for_backward(back)
        return rows.index_select(0, order)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (back,) = ctx.saved_tensors
        return gradient.index_select(0, back), None, None


def _reordered(rows: Tensor, order: np.ndarray) -> Tensor:
    """Permuted rows: row i of the result is row order[i]; `order` (n) is a permutation."""
    if (order[1:] > order[:-1]).all():
        return rows
    forth, back = (torch.from_numpy(indices).to(rows.device) for indices in (order, np.argsort(order)))
    return _Reordered.apply(rows, forth, back)


def _tokens_of(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Indices of these sequences' tokens in the packed batch, sequence by sequence."""
    return np.arange(lengths.sum()) + np.repeat(starts - cumulate(lengths)[:-1], lengths)


def _of_tokens(window: Window | None, tokens: np.ndarray) -> Window | None:
    return None if window is None else Window(window.positions[tokens], window.reach)


def _on_group(states: Tensor, lengths: np.ndarray, call: Call, window: Window | None) -> tuple[Tensor, ...]:
    """Applies `call` to sequences of similar length as one padded group."""
    n_seqs, longest = len(lengths), int(lengths.max())
    if window is not None:
        # Padding gets the last token's position: so it sees a token, and its unused result is finite.
        ends = cumulate(lengths)
        slots = np.minimum(ends[:-1, None] + np.arange(longest), ends[1:, None] - 1)
        window = Window(window.positions[slots], window.reach)
    if len(states) == n_seqs * longest:
        answers = call(PaddedGroup(states.view(n_seqs, longest, -1), None, window))
        return tuple(answer.flatten(0, 1) for answer in answers)
    slots = torch.from_numpy(padded_slots(lengths)).to(states.device)
    # Zeros instead of empty memory: a masked key's value is multiplied by 0, and 0 x NaN is NaN.
    padded = states.new_zeros(n_seqs * longest, states.shape[1]).index_copy(0, slots, states)
    real = torch.from_numpy(np.arange(longest) < lengths[:, None]).to(states.device)
    answers = call(PaddedGroup(padded.view(n_seqs, longest, -1), real, window))
    return tuple(answer.flatten(0, 1).index_select(0, slots) for answer in answers)


def rotate(qkv: Tensor, positions: np.ndarray, n_heads: int, base: float) -> Tensor:
    """Rotary positions: rotates queries and keys of `qkv` (n_tokens, 3 d) by each token's position (n_tokens).

    Columns j and width / 2 + j of a head are rotated by the angle position / base ** (2 j / width). Angles are float32,
    as in training: at position 8,191, rounding matters.
    """
    n, width = len(qkv), qkv.shape[1] // (3 * n_heads)
    steps = torch.arange(0, width, 2, dtype=torch.float32, device=qkv.device) / width
    angles = torch.from_numpy(positions).to(qkv.device).float()[:, None] * (1.0 / base**steps)
    cosine, sine = angles.cos()[:, None, None], angles.sin()[:, None, None]
    parts = qkv.view(n, 3, n_heads, width)
    lower, upper = parts[:, :2].float().chunk(2, dim=-1)
    rotated = torch.cat([lower * cosine - upper * sine, upper * cosine + lower * sine], dim=-1)
    return torch.cat([rotated.to(qkv.dtype), parts[:, 2:]], dim=1).flatten(1)
