"""LengthDrop: one model that answers at any share of its tokens (Kim and Cho 2021, Length-Adaptive Transformer)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ziggurat.encoder.torch.model import EncoderModel
from ziggurat.policies.prune import without_repeats
from ziggurat.recipe import StageConfig
from ziggurat.training.batches import packed
from ziggurat.training.objectives import Objective, Output


class LengthDrop(Objective):
    """Sandwich rule: the full model learns labels; the smallest and some random sub-models learn its logits.

    The released code draws token counts for inputs padded to one length; here, shares of each text's length are drawn.
    The released code also skips random layers (LayerDrop), this does not. All passes of a step are in memory together:
    if memory is short, halve the batch size and double `accumulate`.
    """

    def __init__(self, model: EncoderModel, stage: StageConfig, seed: int) -> None:
        super().__init__(model, stage)
        self.seed = seed

    def forward(self, labels: Tensor, lengths: Tensor, states: Tensor) -> Output:
        """Labels (n), lengths (n) and packed token ids (n_tokens, 2) → loss, logits (n, 2, n_classes).

        Logits are those of the full and of the smallest model, and are only returned in evaluation.
        """
        batch = packed(states, lengths)
        smallest = smallest_shares(self.model.spec.layers, self.stage.length_drop)
        sub_models = [smallest, *self.drawn()] if self.training else [smallest]
        full = self.model.full_logits(batch).float()
        losses, answers = [self.criterion.loss(full, labels)], [full]
        for shares in sub_models:
            rule = replace(self.model.require_pruning().rule(), values=without_repeats(shares))
            answers.append(self.model.full_logits(batch, rule).float())
            losses.append(self.criterion.distance(full, answers[-1], False))
        loss = torch.stack(losses).sum() / len(losses)
        return {"loss": loss} if self.training else {"loss": loss, "logits": torch.stack(answers, dim=1)}

    def drawn(self) -> list[np.ndarray]:
        """The shares (L) of this step's random sub-models.

        They depend only on the stage's seed and the step. Torch's generator is saved in checkpoints too, but dropout on
        a CPU draws from it for each batch of tokens, so processes would diverge.
        """
        draws = np.random.default_rng((self.seed, self.step))
        return [
            random_shares(self.model.spec.layers, self.stage.length_drop, draws) for _ in range(self.stage.sandwich)
        ]


def random_shares(n_layers: int, length_drop: float, draws: np.random.Generator) -> np.ndarray:
    """Shares of a text to keep, (n_layers): each is the one before times a uniform factor in 1 - p … 1 (LengthDrop)."""
    return np.cumprod(draws.uniform(1 - length_drop, 1, n_layers))


def smallest_shares(n_layers: int, length_drop: float) -> np.ndarray:
    """Lower bound of `random_shares`: (1 - p)^l for l = 1 … L."""
    return (1 - length_drop) ** np.arange(1, n_layers + 1)
