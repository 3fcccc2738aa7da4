"""A student learns what its teacher says and how it gets there (DistilBERT, PKD, TinyBERT)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ziggurat.data.packing import PackedBatch
from ziggurat.encoder.attention import score_gap
from ziggurat.encoder.linear import RowLinear
from ziggurat.encoder.model import AdaptiveModel
from ziggurat.encoder.torch_encoder import first_tokens
from ziggurat.stage import StageConfig
from ziggurat.train.batches import packed
from ziggurat.train.losses import answers_loss, cosine_loss, patience_loss, states_loss
from ziggurat.train.objectives import Objective, Output
from ziggurat.train.students import patient_layers, spread_layers


class Distil(Objective):
    """The weighted sum of what the stage names: answers, hidden states, attention scores, cosine, patience.

    The student's layer m of k is compared with the teacher's layer m L / k (TinyBERT's g; attention (i + 1) L / k - 1
    counted from 0), embeddings with embeddings. Where widths differ a learned linear map, one for all layers and not
    part of the student, takes the student's states to the teacher's width first (as in TinyBERT's code; its paper has
    one of its own for embeddings).
    """

    def __init__(self, model: AdaptiveModel, stage: StageConfig, teacher: AdaptiveModel) -> None:
        super().__init__(model, stage, teacher)
        mine, theirs = model.spec, teacher.spec
        self.spread = (0, *spread_layers(mine.layers, theirs.layers))
        self.patient = patient_layers(stage.patient_layers, mine.layers, theirs.layers)
        looks = stage.hidden_weight or stage.cosine_weight or (stage.patient_weight and self.patient)
        # A map that nothing goes through would have no gradient, which several processes refuse.
        self.widen = _widening(mine.hidden, theirs.hidden) if looks and mine.hidden != theirs.hidden else nn.Identity()

    def forward(self, labels: Tensor, lengths: Tensor, states: Tensor) -> Output:
        """Labels (n) with -1 = unlabelled, lengths (n) and packed token ids (n_tokens, 2) → loss, logits."""
        batch = packed(states, lengths)
        [teacher] = self.teacher
        mine = _states(self.model, batch)
        with torch.no_grad():
            theirs = _states(teacher.to(states.device), batch)
            wanted = teacher.classifier(theirs[-1])
        logits = self.model.classifier(mine[-1]).float()
        losses = self._of_states(mine, theirs)
        if weight := self.stage.answer_weight:
            t, share = self.stage.logit_temperature, self.stage.label_weight
            losses.append(weight * answers_loss(wanted, logits, labels, t, share, self.criterion))
        return {"loss": torch.stack(losses).sum(), "logits": logits}

    def _of_states(self, mine: list[PackedBatch], theirs: list[PackedBatch]) -> list[Tensor]:
        """The weighted losses that compare what the layers hold, embeddings first."""
        stage, losses = self.stage, []
        if stage.hidden_weight:
            pairs = [theirs[layer].states for layer in self.spread], [self.widen(own.states) for own in mine]
            losses.append(stage.hidden_weight * states_loss(*pairs))
        if stage.cosine_weight:
            losses.append(stage.cosine_weight * cosine_loss(theirs[-1].states, self.widen(mine[-1].states)))
        if stage.patient_weight and self.patient:  # a student of one layer has none to be patient with
            first = [first_tokens(theirs[layer]) for layer in self.patient]
            losses.append(
                stage.patient_weight * patience_loss(first, [self.widen(first_tokens(own)) for own in mine[1:-1]])
            )
        if stage.attention_weight:
            losses.append(stage.attention_weight * self._of_attention(mine, theirs))
        return losses

    def _of_attention(self, mine: list[PackedBatch], theirs: list[PackedBatch]) -> Tensor:
        """Mean over the student's layers of the gap between its scores and the teacher's."""
        [teacher] = self.teacher
        gaps = []
        for own, layer in enumerate(self.spread[1:]):
            compared = self.model.encoder.layers[own].project(mine[own])
            with torch.no_grad():
                wanted = teacher.encoder.layers[layer - 1].project(theirs[layer - 1])
            gaps.append(score_gap(compared, wanted, mine[own].lengths, self.model.spec.heads))
        return torch.stack(gaps).mean()


def _states(model: AdaptiveModel, batch: PackedBatch) -> list[PackedBatch]:
    """Token ids (n_tokens, 2) → states (n_tokens, d) after the embeddings and after every layer, nothing pruned."""
    states = [model.embed(batch)]
    for layer in range(1, model.spec.layers + 1):
        states.append(model.layer(layer, states[-1]))
    return states


def _widening(width: int, wide: int) -> RowLinear:
    """A linear map that starts as the student did: its numbers are the first of the teacher's."""
    made = RowLinear(width, wide)
    nn.init.eye_(made.weight)
    nn.init.zeros_(made.bias)
    return made
