"""Training stages: functions that take a model and return it, trained further."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ziggurat.config import StageConfig
from ziggurat.encoder.model import AdaptiveModel
from ziggurat.errors import UserError
from ziggurat.train.batches import Examples, packed
from ziggurat.train.loop import Run, fit
from ziggurat.train.losses import exits_loss

Stage = Callable[[AdaptiveModel, Examples, Examples, StageConfig, Run], AdaptiveModel]


def regular(model: AdaptiveModel, train: Examples, select: Examples, stage: StageConfig, run: Run) -> AdaptiveModel:
    """Plain fine-tuning of backbone and last classifier; the exit heads rest. The best accuracy on select is kept."""
    only_train(model, (model.encoder, model.classifier))
    fit(_Regular(model), train.labelled(), select.labelled(), stage, run, accuracy)
    return model


def heads(model: AdaptiveModel, train: Examples, select: Examples, stage: StageConfig, run: Run) -> AdaptiveModel:
    """Trains the exit heads to say what the last rung says, on labelled and unlabelled rows alike (FastBERT, MP eq. 4).

    Backbone and last classifier are frozen: in evaluation mode, without gradient, bit-identical afterwards. The lowest
    loss on select is kept.
    """
    if not len(model.exits):
        raise UserError("stage 'heads': the model has no exit heads; name some in head_layers")
    only_train(model, model.exits.values())
    fit(_Heads(model, stage), train, select, stage, run)
    return model


STAGES: Mapping[str, Stage] = {"regular": regular, "heads": heads}


def stage_of(kind: str) -> Stage:
    """The stage of this name; UserError lists those that exist."""
    if kind not in STAGES:
        raise UserError(f"stage {kind!r} is not known; known: {', '.join(STAGES)}")
    return STAGES[kind]


def only_train(model: AdaptiveModel, parts: Iterable[nn.Module]) -> None:
    """Freezes all parameters but those of `parts`: frozen ones get no gradient and no share of the clipping norm."""
    model.requires_grad_(False)
    for part in parts:
        part.requires_grad_(True)


def accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Share of rows whose largest logit is the label's: (n, n_classes), (n)."""
    return float((logits.argmax(axis=-1) == labels).mean())


class _Regular(nn.Module):
    """The module that a Trainer sees in stage `regular`."""

    def __init__(self, model: AdaptiveModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, labels: Tensor, lengths: Tensor, states: Tensor) -> dict[str, Tensor]:
        logits = self.model.full_logits(packed(states, lengths)).float()
        return {"loss": functional.cross_entropy(logits, labels), "logits": logits}


class _Heads(nn.Module):
    """The module that a Trainer sees in stage `heads`."""

    def __init__(self, model: AdaptiveModel, stage: StageConfig) -> None:
        super().__init__()
        self.model = model
        self.stage = stage

    def train(self, mode: bool = True) -> _Heads:
        """The frozen parts stay in evaluation mode: a teacher without dropout."""
        super().train(mode)
        self.model.encoder.eval()
        self.model.classifier.eval()
        return self

    def forward(self, labels: Tensor, lengths: Tensor, states: Tensor) -> dict[str, Tensor]:
        every = self.model(packed(states, lengths))
        loss = exits_loss(every, labels, self.stage.label_weight, self.stage.reverse_kl)
        return {"loss": loss, "logits": torch.stack(every, dim=1).float()}
