"""BERT-of-Theseus: layers of the student stand in for groups of the teacher's, more and more often (Xu et al. 2020)."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from ziggurat.data.packing import PackedBatch
from ziggurat.encoder.model import AdaptiveModel
from ziggurat.stage import StageConfig
from ziggurat.train.batches import packed
from ziggurat.train.objectives import Objective, Output
from ziggurat.train.students import spread_layers


class Theseus(Objective):
    """Cross-entropy of a chain in which each module is the teacher's layers, or with some probability the student's.

    A module is one layer of the student and the L/k of the teacher that it replaces. One draw per module and training
    step, for the whole batch (paper, eq. 3 to 5). Only the student's layers may have a gradient; its embeddings and
    classifier are the teacher's. Other than in the authors' code the teacher's layers have no dropout and no share in
    the clipping norm. Evaluated is the student alone.
    """

    def __init__(self, model: AdaptiveModel, stage: StageConfig, seed: int, teacher: AdaptiveModel) -> None:
        super().__init__(model, stage, teacher)
        self.seed = seed
        self.edges = (0, *spread_layers(model.spec.layers, teacher.spec.layers))

    def forward(self, labels: Tensor, lengths: Tensor, states: Tensor) -> Output:
        """Labels (n), lengths (n) and packed token ids (n_tokens, 2) → loss, logits."""
        replaced = self.drawn() if self.training else np.ones(self.model.spec.layers, dtype=bool)
        logits = self.chain(packed(states, lengths), replaced).float()
        loss = self.criterion.loss(logits, labels)
        if self.training:
            # A draw may leave out any layer, or all: they take part with nothing, for a step wants a gradient of each.
            out = [self.model.encoder.layers[module] for module in np.flatnonzero(~replaced)]
            loss = loss + sum(0.0 * parameter.sum() for layer in out for parameter in layer.parameters())
        return {"loss": loss, "logits": logits}

    def chain(self, batch: PackedBatch, replaced: np.ndarray) -> Tensor:
        """Logits (n, n_classes) with the student's layers where `replaced` (k) is true and the teacher's elsewhere."""
        [teacher] = self.teacher
        live = self.model.embed(batch)
        teacher.to(live.states.device)
        for module, mine in enumerate(replaced):
            if mine:
                live = self.model.layer(module + 1, live)
            else:
                for layer in range(self.edges[module] + 1, self.edges[module + 1] + 1):
                    live = teacher.layer(layer, live)
        return self.model.classifier(live)

    def drawn(self) -> np.ndarray:
        """Which modules the student's layers stand in for at this step, (k) bool.

        It depends on the stage's seed and the step alone: the same in every process and after a resume.
        """
        draws = np.random.default_rng((self.seed, self.step))
        return draws.random(self.model.spec.layers) < self.rate

    @property
    def rate(self) -> float:
        """The probability now: min(1, b + k t), t being the share of the stage that is done."""
        return min(1.0, self.stage.replacing + self.stage.replacing_growth * self.progress)
