"""Attention over a packed batch: sequences of similar length share one padded group, so that little is padded."""

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

_PROBABILITIES = 1 << 25  # that are written out at most at a time: 128 MiB of float32
_HELD = 1 << 27  # that are kept for gradients of one call; where there are more they are computed again
_LOCAL_ROWS = 256  # queries that share one range of keys in a local layer


@dataclass(frozen=True)
class Window:
    """Who sees whom in a local layer: tokens that stood at most `reach` places apart in their text.

    Places are those of the text, not of what pruning left of it: a token that leaves brings no other into sight.
    """

    positions: np.ndarray  # (n_tokens) int64, rising within each sequence
    reach: int


@dataclass(frozen=True)
class View:
    """Queries of a grid and the keys that any of them sees; `seen` (n_seqs, queries or 1, keys), None = all of them."""

    queries: slice
    keys: slice
    seen: Tensor | None

    @property
    def pairs(self) -> int:
        """Queries x keys."""
        return (self.queries.stop - self.queries.start) * (self.keys.stop - self.keys.start)


@dataclass(frozen=True)
class Grid:
    """Sequences of similar length, padded: states (n_seqs, longest, width), real (n_seqs, longest) or None = all.

    Where there is a window its positions are (n_seqs, longest), those of padding the last of the sequence.
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
        """All queries, at most `rows` at a time."""
        longest = self.states.shape[1]
        for start in range(0, longest, rows):
            queries = slice(start, min(start + rows, longest))
            yield View(queries, *self._seen_by(queries))

    def _seen_by(self, queries: slice) -> tuple[slice, Tensor | None]:
        if self.window is None:
            return slice(0, self.states.shape[1]), None if self.real is None else self.real[:, None, :]
        places, reach = self.window.positions, self.window.reach
        first, last = places[:, queries.start, None] - reach, places[:, queries.stop - 1, None] + reach
        keys = slice(int((places < first).sum(1).min()), int((places <= last).sum(1).max()))
        seen = np.abs(places[:, queries, None] - places[:, None, keys]) <= reach
        mask = torch.from_numpy(seen).to(self.states.device)
        return keys, mask if self.real is None else mask & self.real[:, None, keys]

    def fused(self, n_heads: int, dropout: float) -> Tensor:
        """The context by PyTorch's fused attention: (n_seqs, longest, d)."""
        query, key, value = self.heads(n_heads)
        rows = self.states.shape[1] if self.window is None else _LOCAL_ROWS
        contexts = []
        for view in self.views(rows):
            mask = None if view.seen is None else view.seen[:, None]
            mine = query[:, :, view.queries], key[:, :, view.keys], value[:, :, view.keys]
            contexts.append(_mixed(*mine, mask, dropout))
        context = contexts[0] if len(contexts) == 1 else torch.cat(contexts, dim=2)
        return context.transpose(1, 2).flatten(2)

    def scored(self, n_heads: int, dropout: float, from_others: bool, soft: bool) -> tuple[Tensor, Tensor]:
        """The context (n_seqs, longest, d) and the scores (n_seqs, longest, 1).

        Probabilities are written out, for as many queries at a time as `_PROBABILITIES` allows.
        """
        n_seqs, longest, _ = self.states.shape
        rows = max(1, _PROBABILITIES // (n_seqs * n_heads * longest))
        views = list(self.views(rows if self.window is None else min(rows, _LOCAL_ROWS)))
        weights = self._weights(soft)
        score = partial(self._score_view, n_heads=n_heads, dropout=dropout, from_others=from_others, soft=soft)
        if n_seqs * n_heads * sum(view.pairs for view in views) > _HELD and torch.is_grad_enabled():
            score = partial(checkpoint, score, use_reentrant=False)
        contexts, received, seen = zip(*(score(view, self.states, weights) for view in views), strict=True)
        total = sum(
            pad(part, (view.keys.start, longest - view.keys.stop)) for view, part in zip(views, received, strict=True)
        )
        if self.window is not None:
            # Where a token and all that it sees have faded away there is nothing to share, nor to divide by.
            total = _mean_one(total / torch.cat(seen, dim=1).clamp_min(1e-6), weights)
        return torch.cat(contexts, dim=1), total[:, :, None]

    def _weights(self, soft: bool) -> Tensor:
        """How much each token takes part, (n_seqs, longest); 0 in the grid's padding."""
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
        """Context (n_seqs, queries, d), what keys receive (n_seqs, keys), what queries see (n_seqs, queries)."""
        query, key, value = Grid(states, self.real, self.window).heads(n_heads)
        query, key, value = query[:, :, view.queries], key[:, :, view.keys], value[:, :, view.keys]
        products = _products(query, key)
        keys = weights[:, view.keys]
        if soft:
            products = products + keys.float().clamp_min(1e-30).log().to(products.dtype)[:, None, None, :]
        if view.seen is not None:
            products = products.masked_fill(~view.seen[:, None], float("-inf"))
        shares = products.softmax(dim=-1)
        mean = shares.mean(dim=1)
        if from_others:
            places = torch.arange(states.shape[1], device=states.device)
            mean = mean.masked_fill(places[view.queries, None] == places[view.keys], 0.0)
        counts = seen = weights[:, view.queries]
        if self.window is not None and view.seen is not None:
            seen = (view.seen * keys[:, None, :]).sum(dim=2)
            counts = counts * seen
        received = (counts[:, None, :].to(mean.dtype) @ mean).squeeze(1)
        context = (drop(shares, dropout) @ value if dropout else shares @ value).transpose(1, 2).flatten(2)
        return context, received, seen


def _products(query: Tensor, key: Tensor) -> Tensor:
    return (query * query.shape[-1] ** -0.5) @ key.transpose(2, 3)


def _mixed(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropout: float) -> Tensor:
    """Softmax attention, (n_seqs, n_heads, queries, head width); `mask` says which keys are seen."""
    if not dropout or query.device.type != "cpu":
        return scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout)
    # On a CPU torch writes the shares out as well where there is dropout.
    products = _products(query, key)
    if mask is not None:
        products = products.masked_fill(~mask, float("-inf"))
    return drop(products.softmax(dim=-1), dropout) @ value


def _mean_one(scores: Tensor, weights: Tensor) -> Tensor:
    """Scores (n_seqs, longest) scaled so that their mean by these weights is 1; a row of zeros stays."""
    total = (scores * weights).sum(dim=1, keepdim=True)
    return scores * (weights.sum(dim=1, keepdim=True) / torch.where(total > 0, total, 1.0))


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
    states = qkv if active is None else torch.cat([qkv, active[:, None]], dim=1)
    soft = active is not None
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


def rotate(qkv: Tensor, positions: np.ndarray, n_heads: int, base: float) -> Tensor:
    """Queries and keys of (n_tokens, 3 d) turned by where each token stood in its text, `positions` (n_tokens).

    Column j of a head and column width / 2 + j are turned together by position / base ** (2 j / width), computed in
    float32 like the models were trained: at position 8,191 another rounding is another angle.
    """
    n, width = len(qkv), qkv.shape[1] // (3 * n_heads)
    steps = torch.arange(0, width, 2, dtype=torch.float32, device=qkv.device) / width
    angles = torch.from_numpy(positions).to(qkv.device).float()[:, None] * (1.0 / base**steps)
    cosine, sine = angles.cos()[:, None, None], angles.sin()[:, None, None]
    parts = qkv.view(n, 3, n_heads, width)
    one, other = parts[:, :2].float().chunk(2, dim=-1)
    turned = torch.cat([one * cosine - other * sine, other * cosine + one * sine], dim=-1)
    return torch.cat([turned.to(qkv.dtype), parts[:, 2:]], dim=1).flatten(1)
