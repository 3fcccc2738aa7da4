"""An encoder with a ladder of heads: the object that is trained, saved and run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from ziggurat.data.packing import PackedBatch, slots_in
from ziggurat.encoder.heads import HEADS, PoolerHead
from ziggurat.encoder.pruning import TokenPruning
from ziggurat.encoder.spec import EncoderSpec
from ziggurat.encoder.torch_encoder import Encoder, initialise
from ziggurat.errors import UserError
from ziggurat.policies.prune import FROM_OTHERS, PREDICTED, TokenRule
from ziggurat.recipe import PruningConfig
from ziggurat.types import Problem, Rung


class AdaptiveModel(nn.Module):
    """Encoder, its own classifier (the last rung), one exit head for each layer in `head_layers` (1 … L - 1), pruning.

    UserError for a `head_kind` that is not a key of `exit_heads`.
    """

    exit_heads: ClassVar[Mapping[str, type[nn.Module]]] = HEADS

    def __init__(
        self,
        spec: EncoderSpec,
        n_classes: int,
        head_kind: str,
        head_layers: Sequence[int],
        pruning: PruningConfig | None = None,
        problem: Problem = Problem.SINGLE_LABEL,
    ) -> None:
        super().__init__()
        if head_kind not in self.exit_heads:
            raise UserError(f"head kind {head_kind!r} is not known; known: {', '.join(self.exit_heads)}")
        self.spec = spec
        self.problem = problem
        self.n_classes = n_classes
        self.head_kind = head_kind
        self.head_layers = tuple(head_layers)
        self.encoder = Encoder(spec)
        self.classifier = self.final_head(spec, n_classes)
        head = self.exit_heads[head_kind]
        self.exits = nn.ModuleDict({str(layer): head(spec, n_classes) for layer in self.head_layers})
        self.pruning = None if pruning is None else TokenPruning(pruning, spec)
        initialise(self, spec.initializer_range)

    @staticmethod
    def final_head(spec: EncoderSpec, n_classes: int) -> nn.Module:
        """The architecture's own classifier, fresh."""
        return PoolerHead(spec, n_classes)

    @property
    def rungs(self) -> tuple[Rung, ...]:
        """Where it can answer, from cheap to dear; the last is the full model."""
        return tuple(Rung(layer) for layer in (*self.head_layers, self.spec.layers))

    @property
    def token_rule(self) -> TokenRule | None:
        """The pruning rule of its parameters, None if it never prunes."""
        return None if self.pruning is None else self.pruning.rule()

    def head_at(self, layer: int) -> nn.Module | None:
        """The head after `layer` layers (1 … L), None where there is none."""
        if layer == self.spec.layers:
            return self.classifier
        return self.exits[str(layer)] if layer in self.head_layers else None

    def embed(self, batch: PackedBatch, tokens: TokenRule | None = None) -> PackedBatch:
        """Token ids (n_tokens, 2) → states (n_tokens, d) of those that are read."""
        read = None if tokens is None else tokens.reads(batch)
        return self.encoder.embeddings(batch if read is None else batch.take_tokens(read))

    def layer(self, layer: int, batch: PackedBatch, tokens: TokenRule | None = None) -> PackedBatch:
        """States before → after layer 1 … L; tokens leave between its attention and the rest (LTP)."""
        module = self.encoder.layers[layer - 1]
        if tokens is None or not tokens.prunes(layer):
            return module(batch)
        if tokens.score == PREDICTED:
            context, scores = module.context(batch), self.pruning.predicted(layer, batch)
        else:
            context, scores = module.scored_context(batch, tokens.score == FROM_OTHERS)
        keep = tokens.stays(layer, scores.detach().float().cpu().numpy(), batch)
        return module.finish(batch.take_tokens(keep), batch.with_states(context).take_tokens(keep).states)

    def forward(self, batch: PackedBatch, tokens: TokenRule | None = None) -> list[Tensor]:
        """Token ids (n_tokens, 2) → logits of every rung, each (n_seqs, n_classes)."""
        return [self.head_at(layer)(states) for layer, states in self.climb(batch, tokens)]

    def climb(self, batch: PackedBatch, tokens: TokenRule | None = None) -> Iterator[tuple[int, PackedBatch]]:
        """Token ids (n_tokens, 2) → rung by rung its layer (1 … L) and the states (n_tokens, d) that its head reads."""
        states = self.embed(batch, tokens)
        for layer in range(1, self.spec.layers + 1):
            states = self.layer(layer, states, tokens)
            if self.head_at(layer) is not None:
                yield layer, states

    def full_logits(self, batch: PackedBatch, tokens: TokenRule | None = None) -> Tensor:
        """Token ids (n_tokens, 2) → logits of the last rung alone, (n_seqs, n_classes)."""
        return self.logits_of(self.embed(batch, tokens), tokens)

    def logits_of(self, states: PackedBatch, tokens: TokenRule | None = None) -> Tensor:
        """Embedded tokens (n_tokens, d) → logits of the last rung alone, (n_seqs, n_classes)."""
        for layer in range(1, self.spec.layers + 1):
            states = self.layer(layer, states, tokens)
        return self.classifier(states)

    def answer(self, states: PackedBatch, restored: Tensor, batch: PackedBatch) -> Tensor:
        """Logits of the last rung from the last layer's states (n_tokens, d), as they are and restored, of `batch`."""
        return self.classifier(states)

    def restored_states(self, batch: PackedBatch, tokens: TokenRule | None = None) -> Tensor:
        """Token ids (n_tokens, 2) → the last state of every token of the input, (n_tokens, d), in the input's order.

        For outputs that need a state per token, such as spans: a token that leaves at layer l keeps the state that
        entered l, one that is not read its embedding (drop-and-restore, Length-Adaptive Transformer).
        """
        live = self.encoder.embeddings(batch)
        read = None if tokens is None else tokens.reads(batch)
        slots, states = [], []
        for layer in range(self.spec.layers + 1):
            if layer:
                after = self.layer(layer, live, tokens)
            else:
                after = live if read is None else live.take_tokens(read)
            mine = slots_in(batch, live)
            gone = np.isin(mine, slots_in(batch, after), invert=True)
            slots.append(mine[gone])
            states.append(live.states[torch.from_numpy(np.flatnonzero(gone))])
            live = after
        order = np.argsort(np.concatenate([*slots, slots_in(batch, live)]))
        return torch.cat([*states, live.states])[torch.from_numpy(order)]

    def start_heads_from_pooler(self) -> None:
        """Copies the last rung's pooler into every exit that has one, as DeeBERT does, and its norm into each."""
        for head in self.exits.values():
            head.norm.load_state_dict(self.classifier.norm.state_dict())
            if isinstance(head, PoolerHead):
                head.dense.load_state_dict(self.classifier.dense.state_dict())
                head.dense_norm.load_state_dict(self.classifier.dense_norm.state_dict())
