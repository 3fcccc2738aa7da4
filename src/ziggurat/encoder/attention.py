"""Attention over a packed batch: sequences of similar length share one call, so that little is padded."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from ziggurat.data.packing import cumulate, padded_slots

# Sequences are grouped by length rounded up to this share of it: finer groups pad less but cost more calls.
_GROUP_RATIO = 1.2


def attend(qkv: Tensor, lengths: np.ndarray, n_heads: int, dropout: float = 0.0) -> Tensor:
    """Softmax attention within each sequence.

    `qkv` (n_tokens, 3 d) holds queries, keys and values side by side; `lengths` (n_seqs) the tokens of each sequence.
    Returns the context (n_tokens, d), heads concatenated.
    """
    if qkv.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
        # Half precision gains nothing in products this small, and oneDNN would generate a kernel for each of them.
        with torch.autocast("cpu", enabled=False):
            return attend(qkv.float(), lengths, n_heads, dropout)
    if len(lengths) == 1:
        return _attend_grid(qkv, lengths, n_heads, dropout)
    context = qkv.new_empty(len(qkv), qkv.shape[1] // 3)
    starts = cumulate(lengths)[:-1]
    pieces: list[Tensor] = []
    places: list[np.ndarray] = []
    for group in group_by_length(lengths):
        tokens = _tokens_of(starts[group], lengths[group])
        if len(tokens) == len(qkv) and len(group) and (np.diff(group) == 1).all():
            return _attend_grid(qkv, lengths, n_heads, dropout)
        pieces.append(_attend_grid(qkv[torch.from_numpy(tokens)], lengths[group], n_heads, dropout))
        places.append(tokens)
    order = torch.from_numpy(np.concatenate(places)).to(qkv.device)
    return context.index_copy(0, order, torch.cat(pieces))


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


def _tokens_of(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Packed indices of these sequences' tokens, sequence by sequence."""
    return np.arange(lengths.sum()) + np.repeat(starts - cumulate(lengths)[:-1], lengths)


def _attend_grid(qkv: Tensor, lengths: np.ndarray, n_heads: int, dropout: float) -> Tensor:
    """`attend` for sequences of similar length, as one padded call."""
    n_seqs, longest = len(lengths), int(lengths.max())
    ragged = len(qkv) != n_seqs * longest
    mask = None
    if ragged:
        slots = torch.from_numpy(padded_slots(lengths)).to(qkv.device)
        # Zeros and not empty memory: a masked key's value is multiplied by 0, and 0 x NaN is NaN.
        qkv = qkv.new_zeros(n_seqs * longest, qkv.shape[1]).index_copy(0, slots, qkv)
        real = np.arange(longest) < lengths[:, None]
        mask = torch.from_numpy(real).to(qkv.device)[:, None, None, :]
    query, key, value = qkv.view(n_seqs, longest, 3, n_heads, -1).permute(2, 0, 3, 1, 4)
    context = scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout)
    flat = context.transpose(1, 2).reshape(n_seqs * longest, -1)
    return flat.index_select(0, slots) if ragged else flat
