"""An encoder with a ladder of span heads: for every token, how likely the answer starts and ends there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from ziggurat.data.packing import PackedBatch, slots_in
from ziggurat.encoder.architectures import ARCHITECTURES
from ziggurat.encoder.heads import LinearHead, PoolerHead
from ziggurat.encoder.model import AdaptiveModel
from ziggurat.encoder.spec import EncoderSpec
from ziggurat.policies.prune import TokenRule
from ziggurat.recipe import PruningConfig
from ziggurat.types import Problem

SPAN_HEAD = "span"  # the one kind of head that such a model has
IMPOSSIBLE = -1e4  # logit of tokens where no span may start or end: its probability is 0, its logarithm still a number


class SpanHead(LinearHead):
    """Every token, d → 2: the answer's start and its end (BERT's `qa_outputs`)."""

    def forward(self, batch: PackedBatch) -> Tensor:
        """(n_tokens, d) → (n_tokens, 2)."""
        return self.classes(self.norm(batch.states))


class DenseSpanHead(PoolerHead):
    """Every token, d → d → 2: the architecture's own classifier, which reads one token after the other (ModernBERT)."""

    def __init__(self, spec: EncoderSpec, n_outputs: int) -> None:
        super().__init__(spec, n_outputs)
        self.pool = every_token


def every_token(batch: PackedBatch) -> Tensor:
    """The states as they are, (n_tokens, d)."""
    return batch.states


class SpanModel(AdaptiveModel):
    """`AdaptiveModel` for spans. Heads read the restored states: a token that left keeps the last state it had.

    Batches hold ids (n_tokens, 3), the third saying where a span may start or end (`data.windows`). Logits are two rows
    for each sequence, of its start and its end: (n_seqs, 2, positions of the encoder), `IMPOSSIBLE` where none may be.
    """

    exit_heads: ClassVar[Mapping[str, type[nn.Module]]] = {SPAN_HEAD: SpanHead}

    def __init__(self, spec: EncoderSpec, head_layers: Sequence[int], pruning: PruningConfig | None = None) -> None:
        super().__init__(spec, 2, SPAN_HEAD, head_layers, pruning, Problem.QUESTION_ANSWERING)

    @staticmethod
    def final_head(spec: EncoderSpec, n_classes: int) -> nn.Module:
        """The architecture's own span head, fresh."""
        return (DenseSpanHead if ARCHITECTURES[spec.model_type].dense_spans else SpanHead)(spec, n_classes)

    def forward(self, batch: PackedBatch, tokens: TokenRule | None = None) -> list[Tensor]:
        """Ids (n_tokens, 3) → logits of every rung, each (n_seqs, 2, positions)."""
        whole = self.encoder.embeddings(batch)
        read = None if tokens is None else tokens.reads(batch)
        live = whole if read is None else whole.take_tokens(read)
        answers = []
        for layer in range(1, self.spec.layers + 1):
            live = self.layer(layer, live, tokens)
            whole = put_back(whole, live)
            if (head := self.head_at(layer)) is not None:
                answers.append(self.spread(head(whole), batch))
        return answers

    def full_logits(self, batch: PackedBatch, tokens: TokenRule | None = None) -> Tensor:
        """Ids (n_tokens, 3) → logits of the last rung alone, (n_seqs, 2, positions)."""
        whole = batch.with_states(self.restored_states(batch, tokens))
        return self.spread(self.classifier(whole), batch)

    def answer(self, states: PackedBatch, restored: Tensor, batch: PackedBatch) -> Tensor:
        """Logits of the last rung from restored states (n_tokens, d) of the batch's ids."""
        return self.spread(self.classifier(batch.with_states(restored)), batch)

    def spread(self, logits: Tensor, batch: PackedBatch) -> Tensor:
        """Logits (n_tokens, 2) of a batch's tokens, as rows for a softmax: (n_seqs, 2, positions)."""
        marks = torch.as_tensor(batch.states, device=logits.device)[:, 2:]
        possible = logits.float().masked_fill(marks == 0, IMPOSSIBLE)
        owners = np.repeat(np.arange(batch.n_seqs), batch.lengths)
        slots = torch.from_numpy(owners * self.spec.positions + batch.positions).to(logits.device)
        grid = possible.new_full((batch.n_seqs * self.spec.positions, 2), IMPOSSIBLE).index_copy(0, slots, possible)
        return grid.view(batch.n_seqs, -1, 2).transpose(1, 2)


def put_back(whole: PackedBatch, live: PackedBatch) -> PackedBatch:
    """All tokens of a batch with the states of those that are left put back at their places."""
    if len(live.positions) == len(whole.positions):
        return whole.with_states(live.states)
    slots = torch.from_numpy(slots_in(whole, live)).to(whole.states.device)
    return whole.with_states(whole.states.index_copy(0, slots, live.states.to(whole.states.dtype)))
