"""An encoder with a ladder of heads: the object that is trained, saved and run."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ziggurat.data.packing import PackedBatch
from ziggurat.encoder.heads import HEADS, PoolerHead
from ziggurat.encoder.spec import EncoderSpec
from ziggurat.encoder.torch_encoder import Encoder, initialise
from ziggurat.errors import UserError
from ziggurat.types import Rung


class AdaptiveModel(nn.Module):
    """Encoder, its own classifier (the last rung), and one exit head for each layer in `head_layers` (1 … L - 1).

    UserError for a `head_kind` that is not a key of `HEADS`.
    """

    def __init__(self, spec: EncoderSpec, n_classes: int, head_kind: str, head_layers: Sequence[int]) -> None:
        super().__init__()
        if head_kind not in HEADS:
            raise UserError(f"head kind {head_kind!r} is not known; known: {', '.join(HEADS)}")
        self.spec = spec
        self.n_classes = n_classes
        self.head_kind = head_kind
        self.head_layers = tuple(head_layers)
        self.encoder = Encoder(spec)
        self.classifier = PoolerHead(spec, n_classes)
        self.exits = nn.ModuleDict({str(layer): HEADS[head_kind](spec, n_classes) for layer in self.head_layers})
        initialise(self, spec.initializer_range)

    @property
    def rungs(self) -> tuple[Rung, ...]:
        """Where it can answer, from cheap to dear; the last is the full model."""
        return tuple(Rung(layer) for layer in (*self.head_layers, self.spec.layers))

    def head_at(self, layer: int) -> nn.Module | None:
        """The head after `layer` layers (1 … L), None where there is none."""
        if layer == self.spec.layers:
            return self.classifier
        return self.exits[str(layer)] if layer in self.head_layers else None

    def forward(self, batch: PackedBatch) -> list[Tensor]:
        """Token ids (n_tokens, 2) → logits of every rung, each (n_seqs, n_classes)."""
        states = self.encoder.embeddings(batch)
        answers = []
        for index, layer in enumerate(self.encoder.layers, start=1):
            states = layer(states)
            if (head := self.head_at(index)) is not None:
                answers.append(head(states))
        return answers

    def full_logits(self, batch: PackedBatch) -> Tensor:
        """Token ids (n_tokens, 2) → logits of the full model alone, (n_seqs, n_classes)."""
        states = self.encoder.embeddings(batch)
        for layer in self.encoder.layers:
            states = layer(states)
        return self.classifier(states)

    def start_heads_from_pooler(self) -> None:
        """Copies the last rung's pooler into every exit that has one, as DeeBERT does."""
        for head in self.exits.values():
            if isinstance(head, PoolerHead):
                with torch.no_grad():
                    head.dense.load_state_dict(self.classifier.dense.state_dict())
