"""An encoder with a ladder of heads, for whole inputs or for every token: the model that is trained, saved and run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from ziggurat.data.packing import PackedBatch, slots_in
from ziggurat.encoder.architectures import ARCHITECTURES
from ziggurat.encoder.flops import SPAN_HEAD
from ziggurat.encoder.spec import EncoderSpec
from ziggurat.encoder.torch.heads import HEADS, LinearHead, PoolerHead
from ziggurat.encoder.torch.layers import Encoder, initialise
from ziggurat.encoder.torch.pruning import TokenPruning
from ziggurat.errors import UserError
from ziggurat.policies.prune import FROM_OTHERS, PREDICTED, TokenRule
from ziggurat.recipe import PruningConfig
from ziggurat.types import ProblemType, Rung


class EncoderModel(nn.Module):
    """Encoder, its classifier (the last rung), one exit head per layer in `head_layers` (1 … L - 1), pruning.

    UserError for an unknown `head_kind`; known are the keys of `exit_heads`.
    """

    exit_heads: ClassVar[Mapping[str, type[nn.Module]]] = HEADS

    def __init__(
        self,
        spec: EncoderSpec,
        n_classes: int,
        head_kind: str,
        head_layers: Sequence[int],
        pruning: PruningConfig | None = None,
        problem: ProblemType = ProblemType.SINGLE_LABEL,
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
        """A new classifier of the architecture."""
        return PoolerHead(spec, n_classes)

    @property
    def rungs(self) -> tuple[Rung, ...]:
        """All rungs, from cheap to expensive; the last is the full model."""
        return tuple(Rung(layer) for layer in (*self.head_layers, self.spec.layers))

    @property
    def token_rule(self) -> TokenRule | None:
        """The pruning rule with the present parameters; None = no pruning."""
        return None if self.pruning is None else self.pruning.rule()

    def require_pruning(self) -> TokenPruning:
        """Its pruning; ValueError for a model that has none."""
        if self.pruning is None:
            raise ValueError("the model has no pruning")
        return self.pruning

    def head_at(self, layer: int) -> nn.Module | None:
        """The head after `layer` layers (1 … L); None = no head there."""
        if layer == self.spec.layers:
            return self.classifier
        return self.exits[str(layer)] if layer in self.head_layers else None

    def embed(self, batch: PackedBatch, tokens: TokenRule | None = None) -> PackedBatch:
        """Token ids (n_tokens, 2) → embedded states (n_read, d) of the tokens that the rule reads."""
        read = None if tokens is None else tokens.reads(batch)
        return self.encoder.embeddings(batch if read is None else batch.take_tokens(read))

    def layer(self, layer: int, batch: PackedBatch, tokens: TokenRule | None = None) -> PackedBatch:
        """States before → after layer 1 … L. Tokens are pruned after its attention and before the rest (LTP)."""
        if tokens is None or not tokens.prunes(layer):
            return self.encoder.layers[layer - 1](batch)
        context, scores = self.scored_context(layer, batch, tokens)
        keep = tokens.keep_mask(layer, scores.detach().float().cpu().numpy(), batch)
        return self.pruned(layer, batch, context, keep)

    def scored_context(self, layer: int, batch: PackedBatch, tokens: TokenRule) -> tuple[Tensor, Tensor]:
        """What attention mixes for each token (n_tokens, d) in layer 1 … L, and the rule's scores (n_tokens)."""
        module = self.encoder.layers[layer - 1]
        if tokens.score == PREDICTED:
            return module.context(batch), self.require_pruning().predicted(layer, batch)
        return module.scored_context(batch, tokens.score == FROM_OTHERS)

    def pruned(self, layer: int, batch: PackedBatch, context: Tensor, keep: np.ndarray) -> PackedBatch:
        """The rest of layer 1 … L for the tokens that stay, (n_tokens) bool."""
        context = batch.with_states(context).take_tokens(keep).states
        return self.encoder.layers[layer - 1].finish(batch.take_tokens(keep), context)

    def forward(self, batch: PackedBatch, tokens: TokenRule | None = None) -> list[Tensor]:
        """Token ids (n_tokens, 2) → logits of every rung, each (n_seqs, n_classes)."""
        climb = self.climb(batch, tokens)
        return [head(states) for layer, states in climb if (head := self.head_at(layer)) is not None]

    def climb(self, batch: PackedBatch, tokens: TokenRule | None = None) -> Iterator[tuple[int, PackedBatch]]:
        """Token ids (n_tokens, 2) → for each rung its layer (1 … L) and its head's input states (n_tokens, d)."""
        states = self.embed(batch, tokens)
        for layer in range(1, self.spec.layers + 1):
            states = self.layer(layer, states, tokens)
            if self.head_at(layer) is not None:
                yield layer, states

    def full_logits(self, batch: PackedBatch, tokens: TokenRule | None = None) -> Tensor:
        """Token ids (n_tokens, 2) → logits of the last rung only, (n_seqs, n_classes)."""
        return self.logits_of(self.embed(batch, tokens), tokens)

    def logits_of(self, states: PackedBatch, tokens: TokenRule | None = None) -> Tensor:
        """Embedded tokens (n_tokens, d) → logits of the last rung only, (n_seqs, n_classes)."""
        for layer in range(1, self.spec.layers + 1):
            states = self.layer(layer, states, tokens)
        return self.classifier(states)

    def answer(self, states: PackedBatch, restored: Tensor, batch: PackedBatch) -> Tensor:
        """Logits of the last rung for `batch`: from the last layer's states, or the restored states (n_tokens, d)."""
        return self.classifier(states)

    def restored_states(self, batch: PackedBatch, tokens: TokenRule | None = None) -> Tensor:
        """Token ids (n_tokens, 2) → the last state of every input token, (n_tokens, d), in the input's order.

        For outputs that need a state per token, such as spans. A token that is pruned at layer l keeps the state that
        entered l; a token that is not read keeps its embedding (drop-and-restore, Length-Adaptive Transformer).
        """
        live = self.encoder.embeddings(batch)
        read = None if tokens is None else tokens.reads(batch)
        slots, states = [], []
        for layer in range(self.spec.layers + 1):
            if layer:
                after = self.layer(layer, live, tokens)
            else:
                after = live if read is None else live.take_tokens(read)
            before = slots_in(batch, live)
            pruned = np.isin(before, slots_in(batch, after), invert=True)
            slots.append(before[pruned])
            states.append(live.states[torch.from_numpy(np.flatnonzero(pruned))])
            live = after
        order = np.argsort(np.concatenate([*slots, slots_in(batch, live)]))
        return torch.cat([*states, live.states])[torch.from_numpy(order)]

    def start_heads_from_pooler(self) -> None:
        """Copies the last rung's norm into all exit heads, and its pooler into heads with a pooler (like DeeBERT)."""
        for head in self.exits.values():
            head.norm.load_state_dict(self.classifier.norm.state_dict())
            if isinstance(head, PoolerHead):
                head.dense.load_state_dict(self.classifier.dense.state_dict())
                head.dense_norm.load_state_dict(self.classifier.dense_norm.state_dict())


IMPOSSIBLE = -1e4  # logit where no span may start or end: the probability is 0, but its logarithm is finite


class SpanHead(LinearHead):
    """Every token, d → 2: the answer's start and its end (BERT's `qa_outputs`)."""

    def forward(self, batch: PackedBatch) -> Tensor:
        """(n_tokens, d) → (n_tokens, 2)."""
        return self.classes(self.norm(batch.states))


class DenseSpanHead(PoolerHead):
    """Every token, d → d → 2: the architecture's classifier, applied to each token (ModernBERT)."""

    def __init__(self, spec: EncoderSpec, n_outputs: int) -> None:
        super().__init__(spec, n_outputs)
        self.pool = every_token


def every_token(batch: PackedBatch) -> Tensor:
    """All states unchanged, (n_tokens, d): the pooling of span heads."""
    return batch.states


class SpanModel(EncoderModel):
    """`EncoderModel` for spans. Heads read restored states: a pruned token keeps its last state.

    Batches have ids (n_tokens, 3); the third marks where a span may start or end (`data.windows`). Logits are two rows
    per sequence, for start and end: (n_seqs, 2, positions of the encoder), `IMPOSSIBLE` where no span is allowed.
    """

    exit_heads: ClassVar[Mapping[str, type[nn.Module]]] = {SPAN_HEAD: SpanHead}

    def __init__(self, spec: EncoderSpec, head_layers: Sequence[int], pruning: PruningConfig | None = None) -> None:
        super().__init__(spec, 2, SPAN_HEAD, head_layers, pruning, ProblemType.QUESTION_ANSWERING)

    @staticmethod
    def final_head(spec: EncoderSpec, n_classes: int) -> nn.Module:
        """A new span head of the architecture."""
        return (DenseSpanHead if ARCHITECTURES[spec.model_type].dense_spans else SpanHead)(spec, n_classes)

    def forward(self, batch: PackedBatch, tokens: TokenRule | None = None) -> list[Tensor]:
        """Ids (n_tokens, 3) → logits of every rung, each (n_seqs, 2, positions)."""
        restored = self.encoder.embeddings(batch)
        read = None if tokens is None else tokens.reads(batch)
        live = restored if read is None else restored.take_tokens(read)
        answers = []
        for layer in range(1, self.spec.layers + 1):
            live = self.layer(layer, live, tokens)
            restored = put_back(restored, live)
            if (head := self.head_at(layer)) is not None:
                answers.append(self.spread(head(restored), batch))
        return answers

    def full_logits(self, batch: PackedBatch, tokens: TokenRule | None = None) -> Tensor:
        """Ids (n_tokens, 3) → logits of the last rung only, (n_seqs, 2, positions)."""
        restored = batch.with_states(self.restored_states(batch, tokens))
        return self.spread(self.classifier(restored), batch)

    def answer(self, states: PackedBatch, restored: Tensor, batch: PackedBatch) -> Tensor:
        """Logits of the last rung from restored states (n_tokens, d)."""
        return self.spread(self.classifier(batch.with_states(restored)), batch)

    def spread(self, logits: Tensor, batch: PackedBatch) -> Tensor:
        """Logits (n_tokens, 2) of a packed batch → padded rows for a softmax, (n_seqs, 2, positions)."""
        marks = torch.as_tensor(batch.states, device=logits.device)[:, 2:]
        possible = logits.float().masked_fill(marks == 0, IMPOSSIBLE)
        owners = np.repeat(np.arange(batch.n_seqs), batch.lengths)
        slots = torch.from_numpy(owners * self.spec.positions + batch.positions).to(logits.device)
        padded = possible.new_full((batch.n_seqs * self.spec.positions, 2), IMPOSSIBLE).index_copy(0, slots, possible)
        return padded.view(batch.n_seqs, -1, 2).transpose(1, 2)


def put_back(restored: PackedBatch, live: PackedBatch) -> PackedBatch:
    """The states of all tokens, updated with those of the live tokens."""
    if len(live.positions) == len(restored.positions):
        return restored.with_states(live.states)
    slots = torch.from_numpy(slots_in(restored, live)).to(restored.states.device)
    return restored.with_states(restored.states.index_copy(0, slots, live.states.to(restored.states.dtype)))
