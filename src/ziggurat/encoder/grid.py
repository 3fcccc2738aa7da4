"""Sequences of similar length as one padded grid, and attention within each: all at once, or some queries at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint

from ziggurat.encoder.dropout import drop

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
