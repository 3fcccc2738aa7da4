"""Training stages: functions that take a model and return it, trained further."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np
from torch import nn

from ziggurat.config import StageConfig
from ziggurat.encoder.model import AdaptiveModel
from ziggurat.errors import UserError
from ziggurat.policies.prune import PREDICTED
from ziggurat.train.batches import Examples
from ziggurat.train.loop import Keep, Run, fit
from ziggurat.train.objectives import Guess, Hard, Heads, Joint, Regular, Soft
from ziggurat.train.vocabulary import start_vocabulary

Stage = Callable[[AdaptiveModel, Examples, Examples, StageConfig, Run], AdaptiveModel]


def regular(model: AdaptiveModel, train: Examples, select: Examples, stage: StageConfig, run: Run) -> AdaptiveModel:
    """Plain fine-tuning of backbone and last classifier; the exit heads rest. The best accuracy on select is kept."""
    only_train(model, (model.encoder, model.classifier))
    fit(Regular(model, stage), train.labelled(), select.labelled(), stage, run, Keep.best(accuracy))
    return model


def guess(model: AdaptiveModel, train: Examples, select: Examples, stage: StageConfig, run: Run) -> AdaptiveModel:
    """Trains the scores of `predicted` pruning: what the upper half of the model attends to, guessed from below (ToP).

    Everything else is frozen. The lowest loss on select is kept.
    """
    pruning = _pruning(model, "guess")
    if pruning.config.score != PREDICTED:
        raise UserError(f"stage 'guess': pruning's score is {pruning.config.score!r}; set score = {PREDICTED!r}")
    only_train(model, (pruning.guesses,))
    fit(Guess(model, stage), train, select, stage, run, Keep.lowest_loss())
    return model


def soft(model: AdaptiveModel, train: Examples, select: Examples, stage: StageConfig, run: Run) -> AdaptiveModel:
    """Learns what to prune while tokens fade instead of leaving (LTP, MP). The last state is kept.

    Not the best one on select: pruning grows from step to step, and accuracy with it falls.
    """
    pruning = _pruning(model, "soft")
    if pruning.config.kind != "threshold":
        raise UserError(f"stage 'soft' learns thresholds; pruning of kind {pruning.config.kind!r} starts with 'hard'")
    if pruning.config.vocabulary is not None and not run.finished:
        start_vocabulary(model, train, run.device)
    only_train(model, (model.encoder, model.classifier, pruning))
    own_rates = {"pruning.values": stage.threshold_learning_rate, "pruning.vocabulary": stage.vocabulary_learning_rate}
    fit(Soft(model, stage), train.labelled(), select.labelled(), stage, run, Keep.last(accuracy), own_rates)
    return model


def hard(model: AdaptiveModel, train: Examples, select: Examples, stage: StageConfig, run: Run) -> AdaptiveModel:
    """Fine-tunes backbone and last classifier while tokens really leave; what leaves is decided by frozen numbers."""
    _pruning(model, "hard")
    only_train(model, (model.encoder, model.classifier))
    fit(Hard(model, stage), train.labelled(), select.labelled(), stage, run, Keep.best(accuracy))
    return model


def heads(model: AdaptiveModel, train: Examples, select: Examples, stage: StageConfig, run: Run) -> AdaptiveModel:
    """Trains the exit heads to say what the last rung says, on labelled and unlabelled rows alike (FastBERT, MP eq. 4).

    Backbone and last classifier are frozen: in evaluation mode, without gradient, bit-identical afterwards. The lowest
    loss on select is kept. Tokens leave if the model prunes.
    """
    _exits(model, "heads")
    only_train(model, model.exits.values())
    fit(Heads(model, stage), train, select, stage, run, Keep.lowest_loss())
    return model


def joint(model: AdaptiveModel, train: Examples, select: Examples, stage: StageConfig, run: Run) -> AdaptiveModel:
    """Trains backbone and all rungs at once (PABEE), instead of `regular` and `heads`. The lowest loss is kept."""
    _exits(model, "joint")
    only_train(model, (model.encoder, model.classifier, model.exits))
    fit(Joint(model, stage), train.labelled(), select.labelled(), stage, run, Keep.lowest_loss())
    return model


STAGES: Mapping[str, Stage] = {
    "regular": regular,
    "guess": guess,
    "soft": soft,
    "hard": hard,
    "heads": heads,
    "joint": joint,
}
HEAD_STAGES = frozenset({"heads", "joint"})  # they train exit heads
UNPRUNED_STAGES = frozenset({"regular", "guess"})  # they know nothing of pruning


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


def _pruning(model: AdaptiveModel, stage: str) -> nn.Module:
    if model.pruning is None:
        raise UserError(f"stage {stage!r}: the recipe says nothing of pruning; give it a [pruning] table")
    return model.pruning


def _exits(model: AdaptiveModel, stage: str) -> None:
    if not len(model.exits):
        raise UserError(f"stage {stage!r}: the model has no exit heads; name some in head_layers")
