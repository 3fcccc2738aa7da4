"""The differentiable forward, layer by layer, over packed batches."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ziggurat.data.packing import PackedBatch
from ziggurat.encoder.attention import attend, attend_and_score
from ziggurat.encoder.linear import RowLinear
from ziggurat.encoder.spec import EncoderSpec


class Embeddings(nn.Module):
    """Word + position + segment, then LayerNorm."""

    def __init__(self, spec: EncoderSpec) -> None:
        super().__init__()
        self.word = nn.Embedding(spec.vocabulary, spec.hidden)
        self.position = nn.Embedding(spec.positions, spec.hidden)
        self.segment = nn.Embedding(spec.segments, spec.hidden)
        self.norm = nn.LayerNorm(spec.hidden, spec.layer_norm_eps)
        self.dropout = nn.Dropout(spec.dropout)

    def forward(self, batch: PackedBatch) -> PackedBatch:
        """States (n_tokens, 2) of token and segment ids → (n_tokens, d)."""
        device = self.word.weight.device
        ids = torch.as_tensor(batch.states, device=device)
        positions = torch.as_tensor(batch.positions, device=device)
        states = self.word(ids[:, 0]) + self.position(positions) + self.segment(ids[:, 1])
        return batch.with_states(self.dropout(self.norm(states)))


class Layer(nn.Module):
    """One post-norm Transformer layer: attention, then feed-forward, each with residual and LayerNorm."""

    def __init__(self, spec: EncoderSpec) -> None:
        super().__init__()
        self.heads = spec.heads
        self.attention_dropout = spec.attention_dropout
        self.approximate = "tanh" if spec.activation == "gelu_tanh" else "none"
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
        inner = functional.gelu(self.up(states), approximate=self.approximate)
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
