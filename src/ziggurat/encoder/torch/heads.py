"""Exit heads: packed states in, logits (n_seqs, n_classes) out. Presets of FastBERT, DeeBERT/PABEE and S3."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from ziggurat.data.packing import PackedBatch, padded_slots
from ziggurat.encoder.flops import FASTBERT_WIDTH
from ziggurat.encoder.spec import EncoderSpec
from ziggurat.encoder.torch.layers import ACTIVATIONS, first_tokens, layer_norm, mean_tokens
from ziggurat.encoder.torch.parts import Dropout, ReadingLinear, RowLinear

FASTBERT_HEADS = 2


class FastBertHead(nn.Module):
    """d → 128 tanh, two-head attention of the first token over all live tokens, 128 → 128 tanh → classes (FastBERT).

    Modification: only the first token's attention is computed, since no other is used.
    """

    reads_first = False  # it reads all tokens

    def __init__(self, spec: EncoderSpec, n_classes: int) -> None:
        super().__init__()
        self.norm = reading_norm(spec)
        self.narrow = RowLinear(spec.hidden, FASTBERT_WIDTH)
        self.query = nn.Linear(FASTBERT_WIDTH, FASTBERT_WIDTH)
        self.key_value = RowLinear(FASTBERT_WIDTH, 2 * FASTBERT_WIDTH)
        self.out = nn.Linear(FASTBERT_WIDTH, FASTBERT_WIDTH)
        self.dense = nn.Linear(FASTBERT_WIDTH, FASTBERT_WIDTH)
        self.classes = nn.Linear(FASTBERT_WIDTH, n_classes)

    def forward(self, batch: PackedBatch) -> Tensor:
        """(n_tokens, d) → (n_seqs, n_classes)."""
        narrow = batch.with_states(torch.tanh(self.narrow(self.norm(batch.states))))
        query = self.query(first_tokens(narrow))
        key, value = self.key_value(narrow.states).chunk(2, dim=-1)
        context = self.out(attend_first(query, key, value, batch.lengths, FASTBERT_HEADS))
        return self.classes(torch.tanh(self.dense(context)))


class PoolerHead(nn.Module):
    """First token, d → d → classes (DeeBERT, PABEE); also the architecture's own classifier, the last rung.

    The activation in between is tanh, or that of the architecture's classifier. With mean pooling it reads the mean of
    all live tokens.
    """

    def __init__(self, spec: EncoderSpec, n_classes: int) -> None:
        super().__init__()
        self.norm = reading_norm(spec)
        self.reads_first = spec.pooling != "mean"
        self.pool = first_tokens if self.reads_first else mean_tokens
        self.dense = ReadingLinear(spec.hidden, spec.hidden, spec.head_bias)
        self.activation = ACTIVATIONS[spec.head_activation]
        self.dense_norm = layer_norm(spec) if spec.head_norm else nn.Identity()
        self.dropout = Dropout(spec.dropout)
        self.classes = nn.Linear(spec.hidden, n_classes)

    def forward(self, batch: PackedBatch) -> Tensor:
        """(n_tokens, d) → (n_seqs, n_classes)."""
        pooled = self.pool(batch.with_states(self.norm(batch.states)))
        return self.classes(self.dropout(self.dense_norm(self.activation(self.dense(pooled)))))


class LinearHead(nn.Module):
    """First token, d → classes (S3)."""

    reads_first = True  # it reads only the first token

    def __init__(self, spec: EncoderSpec, n_classes: int) -> None:
        super().__init__()
        self.norm = reading_norm(spec)
        self.classes = ReadingLinear(spec.hidden, n_classes)

    def forward(self, batch: PackedBatch) -> Tensor:
        """(n_tokens, d) → (n_seqs, n_classes)."""
        return self.classes(self.norm(first_tokens(batch)))


HEADS: Mapping[str, type[nn.Module]] = {"fastbert": FastBertHead, "pooler": PoolerHead, "linear": LinearHead}


def reading_norm(spec: EncoderSpec) -> nn.Module:
    """The LayerNorm at a head's input, for pre-norm architectures, whose layers do not end with one.

    The classifier has the model's final LayerNorm, and exit heads start with a copy of it.
    """
    return layer_norm(spec) if spec.norm_first else nn.Identity()


def attend_first(query: Tensor, key: Tensor, value: Tensor, lengths: np.ndarray, n_heads: int) -> Tensor:
    """Attention with one query per sequence: query (n_seqs, w), key and value (n_tokens, w) → (n_seqs, w)."""
    n_seqs, width = query.shape
    owner = torch.from_numpy(np.repeat(np.arange(n_seqs), lengths)).to(query.device)
    products = (key * query.index_select(0, owner)).view(-1, n_heads, width // n_heads).sum(-1)
    # Softmax over each sequence needs padding, but only of the scores: (n_seqs, longest, n_heads).
    slots = torch.from_numpy(padded_slots(lengths)).to(query.device)
    padded = products.new_full((n_seqs * int(lengths.max()), n_heads), float("-inf")).index_copy(0, slots, products)
    padded = (padded / (width // n_heads) ** 0.5).view(n_seqs, -1, n_heads).softmax(dim=1)
    shares = padded.view(-1, n_heads).index_select(0, slots).unsqueeze(-1)
    weighted = (value.view(-1, n_heads, width // n_heads) * shares).reshape(-1, width)
    return torch.zeros_like(query, dtype=weighted.dtype).index_add(0, owner, weighted)
