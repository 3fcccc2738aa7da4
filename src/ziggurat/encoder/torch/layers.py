"""The differentiable forward, layer by layer, over packed batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ziggurat.data.packing import PackedBatch
from ziggurat.encoder.spec import EncoderSpec
from ziggurat.encoder.torch.attention import Window, attend, attend_and_score, rotate
from ziggurat.encoder.torch.parts import Dropout, RowLinear

ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "gelu": functional.gelu,
    "gelu_tanh": partial(functional.gelu, approximate="tanh"),
    "relu": functional.relu,
    "tanh": torch.tanh,
}


class Embeddings(nn.Module):
    """Sum of word, position, segment and task embeddings, as the architecture has them; LayerNorm; map to `hidden`."""

    def __init__(self, spec: EncoderSpec) -> None:
        super().__init__()
        width = spec.embedded
        self.position_offset, self.reads_segments = spec.position_offset, spec.segments > 1
        self.word = nn.Embedding(spec.vocabulary, width)
        self.position = None if spec.rotary else nn.Embedding(spec.positions + spec.position_offset, width)
        self.segment = nn.Embedding(spec.segments, width) if spec.segments else None
        self.task = nn.Embedding(spec.task_types, width) if spec.task_types else None
        self.norm = layer_norm(spec, width)
        self.dropout = Dropout(spec.dropout)
        self.project = RowLinear(width, spec.hidden) if spec.embedding_width else nn.Identity()

    def forward(self, batch: PackedBatch) -> PackedBatch:
        """States (n_tokens, 2) of token and segment ids → (n_tokens, d)."""
        device = self.word.weight.device
        ids = torch.as_tensor(batch.states, device=device)
        states = self.word(ids[:, 0])
        if self.position is not None:
            states = states + self.position(self._position_rows(batch, ids[:, 0]))
        if self.segment is not None:
            # With one segment, every token has it: ignore the ids that BERT's tokenizers give to pairs.
            states = states + (self.segment(ids[:, 1]) if self.reads_segments else self.segment.weight[0])
        if self.task is not None:
            states = states + self.task.weight[0]
        return batch.with_states(self.project(self.dropout(self.norm(states))))

    def _position_rows(self, batch: PackedBatch, ids: Tensor) -> Tensor:
        """Row of the position table for each token (n_tokens).

        With an offset (RoBERTa), the rows up to the padding id are for padding. A padding token inside a text reads
        padding's row, and later tokens do not count it.
        """
        positions = torch.as_tensor(batch.positions, device=ids.device)
        if not self.position_offset:
            return positions
        padding = ids == self.position_offset - 1
        before = padding.cumsum(0) - padding.long()
        first = torch.as_tensor(np.repeat(batch.cu_seqlens[:-1], batch.lengths), device=ids.device)
        return torch.where(padding, -1, positions - before + before[first]) + self.position_offset


class Layer(nn.Module):
    """One Transformer layer: attention, then feed-forward, each with a residual and a LayerNorm after or before it."""

    def __init__(self, spec: EncoderSpec, layer: int = 1) -> None:
        """`layer` (1 … L) selects the spec's per-layer settings."""
        super().__init__()
        self.norm_first, self.gated = spec.norm_first, spec.gated
        self.window = spec.window(layer)
        self.rotary_base = spec.rotary[layer - 1] if spec.rotary else None
        self.heads = spec.heads
        self.attention_dropout = spec.attention_dropout
        self.activation = ACTIVATIONS[spec.activation]
        self.qkv = RowLinear(spec.hidden, 3 * spec.hidden, spec.attention_bias)
        self.out = RowLinear(spec.hidden, spec.hidden, spec.attention_bias)
        # The first layer's input is already normalised by the embeddings.
        self.attention_norm = nn.Identity() if spec.norm_first and layer == 1 else layer_norm(spec)
        self.up = RowLinear(spec.hidden, spec.intermediate * (2 if spec.gated else 1), spec.feed_forward_bias)
        self.down = RowLinear(spec.intermediate, spec.hidden, spec.feed_forward_bias)
        self.output_norm = layer_norm(spec)
        self.dropout = Dropout(spec.dropout)

    def forward(self, batch: PackedBatch) -> PackedBatch:
        """States (n_tokens, d) → (n_tokens, d)."""
        return self.finish(batch, self.context(batch))

    def context(self, batch: PackedBatch) -> Tensor:
        """Attention's output for each token, (n_tokens, d)."""
        return attend(self.project(batch), batch.lengths, self.heads, self._dropout, self._sight(batch))

    def scored_context(
        self, batch: PackedBatch, from_others: bool = False, active: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """`context`, plus the attention that each token received, (n_tokens); see `attend_and_score`."""
        qkv, sight = self.project(batch), self._sight(batch)
        return attend_and_score(qkv, batch.lengths, self.heads, self._dropout, from_others, active, sight)

    def project(self, batch: PackedBatch) -> Tensor:
        """Queries, keys and values, with rotary positions applied: states (n_tokens, d) → (n_tokens, 3 d)."""
        qkv = self.qkv(self.attention_norm(batch.states) if self.norm_first else batch.states)
        # Positions are those in the original text, also after pruning.
        return qkv if self.rotary_base is None else rotate(qkv, batch.positions, self.heads, self.rotary_base)

    def finish(self, batch: PackedBatch, context: Tensor) -> PackedBatch:
        """The rest of the layer, after attention: input states of the layer and their context → (n_tokens, d)."""
        states = batch.states + self.dropout(self.out(context))
        if self.norm_first:
            return batch.with_states(states + self.dropout(self.feed_forward(self.output_norm(states))))
        states = self.attention_norm(states)
        return batch.with_states(self.output_norm(states + self.dropout(self.feed_forward(states))))

    def feed_forward(self, states: Tensor) -> Tensor:
        """Feed-forward: two linear maps with an activation, and a gate if configured: (n, d) → (n, d)."""
        if not self.gated:
            return self.down(self.activation(self.up(states)))
        inner, gate = self.up(states).chunk(2, dim=-1)
        return self.down(self.activation(inner) * gate)

    def _sight(self, batch: PackedBatch) -> Window | None:
        return Window(batch.positions, self.window) if self.window else None

    @property
    def _dropout(self) -> float:
        return self.attention_dropout if self.training else 0.0


class Encoder(nn.Module):
    """Embeddings and layers; the engine calls the layers one by one."""

    def __init__(self, spec: EncoderSpec) -> None:
        super().__init__()
        self.embeddings = Embeddings(spec)
        self.layers = nn.ModuleList(Layer(spec, layer) for layer in range(1, spec.layers + 1))


def layer_norm(spec: EncoderSpec, width: int | None = None) -> nn.LayerNorm:
    """A LayerNorm of the architecture; `width` None = width of the states."""
    return nn.LayerNorm(width or spec.hidden, spec.layer_norm_eps, bias=spec.norm_bias)


def first_tokens(batch: PackedBatch) -> Tensor:
    """The state of each sequence's first token, (n_seqs, d)."""
    return batch.states[torch.from_numpy(batch.cu_seqlens[:-1])]


def mean_tokens(batch: PackedBatch) -> Tensor:
    """The mean state of each sequence's tokens, (n_seqs, d)."""
    owner = torch.from_numpy(np.repeat(np.arange(batch.n_seqs), batch.lengths)).to(batch.states.device)
    sums = batch.states.new_zeros(batch.n_seqs, batch.states.shape[1]).index_add(0, owner, batch.states)
    return sums / torch.from_numpy(batch.lengths).to(sums)[:, None]


def initialise(module: nn.Module, std: float) -> None:
    """BERT's initialisation: normal with this deviation, biases zero."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, std=std)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, nn.Embedding):
            nn.init.normal_(part.weight, std=std)
