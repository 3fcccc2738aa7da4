"""The differentiable forward, layer by layer, over packed batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from ziggurat.data.packing import PackedBatch
from ziggurat.encoder.attention import attend, attend_and_score
from ziggurat.encoder.linear import RowLinear
from ziggurat.encoder.spec import EncoderSpec

ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "gelu": functional.gelu,
    "gelu_tanh": partial(functional.gelu, approximate="tanh"),
    "relu": functional.relu,
    "tanh": torch.tanh,
}


class Embeddings(nn.Module):
    """Word + position, + segment and task where the architecture has them; LayerNorm; a linear map to `hidden`."""

    def __init__(self, spec: EncoderSpec) -> None:
        super().__init__()
        width = spec.embedded
        self.position_offset, self.reads_segments = spec.position_offset, spec.segments > 1
        self.word = nn.Embedding(spec.vocabulary, width)
        self.position = nn.Embedding(spec.positions + spec.position_offset, width)
        self.segment = nn.Embedding(spec.segments, width) if spec.segments else None
        self.task = nn.Embedding(spec.task_types, width) if spec.task_types else None
        self.norm = nn.LayerNorm(width, spec.layer_norm_eps)
        self.dropout = nn.Dropout(spec.dropout)
        self.project = RowLinear(width, spec.hidden) if spec.embedding_width else nn.Identity()

    def forward(self, batch: PackedBatch) -> PackedBatch:
        """States (n_tokens, 2) of token and segment ids → (n_tokens, d)."""
        device = self.word.weight.device
        ids = torch.as_tensor(batch.states, device=device)
        positions = torch.as_tensor(batch.positions, device=device)
        states = self.word(ids[:, 0]) + self.position(positions + self.position_offset)
        if self.segment is not None:
            # One kind of segment is in every token, whatever ids a tokenizer made for BERT gives to a pair.
            states = states + (self.segment(ids[:, 1]) if self.reads_segments else self.segment.weight[0])
        if self.task is not None:
            states = states + self.task.weight[0]
        return batch.with_states(self.project(self.dropout(self.norm(states))))


class Layer(nn.Module):
    """One post-norm Transformer layer: attention, then feed-forward, each with residual and LayerNorm."""

    def __init__(self, spec: EncoderSpec) -> None:
        super().__init__()
        self.heads = spec.heads
        self.attention_dropout = spec.attention_dropout
        self.activation = ACTIVATIONS[spec.activation]
        self.qkv = RowLinear(spec.hidden, 3 * spec.hidden)
        self.out = RowLinear(spec.hidden, spec.hidden)
        self.attention_norm = nn.LayerNorm(spec.hidden, spec.layer_norm_eps)
        self.up = RowLinear(spec.hidden, spec.intermediate)
        self.down = RowLinear(spec.intermediate, spec.hidden)
        self.output_norm = nn.LayerNorm(spec.hidden, spec.layer_norm_eps)
        self.dropout = nn.Dropout(spec.dropout)

    def forward(self, batch: PackedBatch) -> PackedBatch:
        """States (n_tokens, d) → (n_tokens, d)."""
        return self.finish(batch, self.context(batch))

    def context(self, batch: PackedBatch) -> Tensor:
        """What attention mixes for each token, (n_tokens, d)."""
        return attend(self.qkv(batch.states), batch.lengths, self.heads, self._dropout)

    def scored_context(
        self, batch: PackedBatch, from_others: bool = False, active: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The same, and how much attention each token received, (n_tokens); see `attend_and_score`."""
        qkv = self.qkv(batch.states)
        return attend_and_score(qkv, batch.lengths, self.heads, self._dropout, from_others, active)

    def finish(self, batch: PackedBatch, context: Tensor) -> PackedBatch:
        """The rest of the layer, token by token: the states that entered it and their context → (n_tokens, d)."""
        states = self.attention_norm(batch.states + self.dropout(self.out(context)))
        inner = self.activation(self.up(states))
        return batch.with_states(self.output_norm(states + self.dropout(self.down(inner))))

    @property
    def _dropout(self) -> float:
        return self.attention_dropout if self.training else 0.0


class Encoder(nn.Module):
    """Embeddings and layers; the engine calls them one by one, training all in a row."""

    def __init__(self, spec: EncoderSpec) -> None:
        super().__init__()
        self.embeddings = Embeddings(spec)
        self.layers = nn.ModuleList(Layer(spec) for _ in range(spec.layers))


def first_tokens(batch: PackedBatch) -> Tensor:
    """The state of each sequence's first token, (n_seqs, d)."""
    return batch.states[torch.from_numpy(batch.cu_seqlens[:-1])]


def initialise(module: nn.Module, std: float) -> None:
    """BERT's start for fresh weights: normal with this deviation, biases zero."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, std=std)
            nn.init.zeros_(part.bias)
        elif isinstance(part, nn.Embedding):
            nn.init.normal_(part.weight, std=std)
