"""Training stages: functions that take a model and return it, trained further."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import torch
from torch import nn

from ziggurat.encoder.torch.int8 import simulate_int8
from ziggurat.encoder.torch.model import EncoderModel
from ziggurat.errors import UserError
from ziggurat.policies.prune import PREDICTED, SCALES
from ziggurat.problems.classes import CLASSES
from ziggurat.problems.problem import Problem
from ziggurat.recipe import STUDENT_STAGES, PruningConfig, StageConfig
from ziggurat.small.standardise import ROWS, standardise
from ziggurat.train.batches import Examples, in_batches, spread
from ziggurat.train.lengths.drop import LengthDrop
from ziggurat.train.loop import Keep, Run, fit
from ziggurat.train.losses import CRITERIA, Metric
from ziggurat.train.objectives import FrozenHeads, Guess, Hard, Heads, Int8, Joint, Regular, Soft, start_vocabulary
from ziggurat.train.precomputed import collate_readings, readings, show_readings, worth_keeping
from ziggurat.train.students import Distil, Theseus
from ziggurat.train.trials import settle, try_vocabulary

Stage = Callable[[EncoderModel, Examples, Examples, StageConfig, Run], EncoderModel]


def regular(model: EncoderModel, train: Examples, select: Examples, stage: StageConfig, run: Run) -> EncoderModel:
    """Plain fine-tuning of backbone and last classifier; the exit heads rest. The best accuracy on select is kept."""
    only_train(model, (model.encoder, model.classifier))
    fit(Regular(model, stage), train.labelled(), select.labelled(), stage, run, Keep.best(metric_of(model)))
    return model


def guess(model: EncoderModel, train: Examples, select: Examples, stage: StageConfig, run: Run) -> EncoderModel:
    """Trains the scores of `predicted` pruning: what the upper half of the model attends to, guessed from below (ToP).

    Everything else is frozen. The lowest loss on select is kept.
    """
    _check("guess", model)
    only_train(model, (model.require_pruning().guesses,))
    fit(Guess(model, stage), train, select, stage, run, Keep.lowest_loss())
    return model


def soft(model: EncoderModel, train: Examples, select: Examples, stage: StageConfig, run: Run) -> EncoderModel:
    """Learns what to prune while tokens fade instead of leaving (LTP, MP). The last state is kept.

    Not the best one on select: pruning grows from step to step, and accuracy with it falls. What costs more there than
    it gives is taken back (`train.trials`).
    """
    _check("soft", model)
    pruning = model.require_pruning()
    begins = pruning.unread_vocabulary
    if begins and not run.finished:
        start_vocabulary(model, train, run.device)
    if begins and stage.trial:
        try_vocabulary(model, select, run)
    only_train(model, (model.encoder, model.classifier, pruning))
    # Thresholds of 0 stand for none, and several processes wait for the gradient of whatever learns.
    pruning.values.requires_grad_(any(pruning.fades(layer) for layer in range(1, model.spec.layers + 1)))
    unit = float(SCALES[pruning.config.scale](train.encoded.lengths).mean())
    own_rates = {
        "pruning.values": unit * stage.threshold_learning_rate,
        "pruning.vocabulary": stage.vocabulary_learning_rate,
    }
    keep = Keep.last(metric_of(model))
    fit(Soft(model, stage), train.labelled(), select.labelled(), stage, run, keep, own_rates)
    if stage.trial:
        settle(model, select, run)
    return model


def hard(model: EncoderModel, train: Examples, select: Examples, stage: StageConfig, run: Run) -> EncoderModel:
    """Fine-tunes backbone and last classifier while tokens really leave; what leaves is decided by frozen numbers."""
    _check("hard", model)
    only_train(model, (model.encoder, model.classifier))
    fit(Hard(model, stage), train.labelled(), select.labelled(), stage, run, Keep.best(metric_of(model)))
    return model


def lengthdrop(model: EncoderModel, train: Examples, select: Examples, stage: StageConfig, run: Run) -> EncoderModel:
    """Trains backbone and last classifier to answer at any share of tokens (Length-Adaptive Transformer).

    The state is kept that has the best accuracy on select, the mean of the full and the smallest sub-model's.
    The shares that the model is run with are not touched: a search chooses them afterwards.
    """
    _check("lengthdrop", model)
    only_train(model, (model.encoder, model.classifier))
    fit(
        LengthDrop(model, stage, run.seed), train.labelled(), select.labelled(), stage, run, Keep.best(metric_of(model))
    )
    return model


def int8(model: EncoderModel, train: Examples, select: Examples, stage: StageConfig, run: Run) -> EncoderModel:
    """Fine-tunes backbone and last classifier while the layers compute in simulated INT8, and leaves them so (LTP 4.6).

    Tokens leave if the model prunes. Where the stage distils, it does so from the embeddings of `run.teacher`, too.
    """
    teacher = _teacher(run) if stage.distillation else None
    simulate_int8(model)
    only_train(model, (model.encoder, model.classifier))
    fit(Int8(model, stage, teacher), train.labelled(), select.labelled(), stage, run, Keep.best(metric_of(model)))
    return model


def heads(model: EncoderModel, train: Examples, select: Examples, stage: StageConfig, run: Run) -> EncoderModel:
    """Trains the exit heads to say what the last rung says, on labelled and unlabelled rows alike (FastBERT, MP eq. 4).

    Backbone and last classifier are frozen: in evaluation mode, without gradient, bit-identical afterwards. The lowest
    loss on select is kept. Tokens leave if the model prunes.
    """
    _check("heads", model)
    only_train(model, model.exits.values())
    if run.finished or not worth_keeping(model, (train, select), run):
        if not run.finished:
            standardise(model.exits.values(), lambda: _show(model, train, run))
        fit(Heads(model, stage), train, select, stage, run, Keep.lowest_loss())
    else:
        to_train, to_select = (readings(model, rows, stage, run) for rows in (train, select))
        standardise(model.exits.values(), lambda: show_readings(model, to_train))
        fit(FrozenHeads(model, stage), to_train, to_select, stage, run, Keep.lowest_loss(), collator=collate_readings)
    return model


def joint(model: EncoderModel, train: Examples, select: Examples, stage: StageConfig, run: Run) -> EncoderModel:
    """Trains backbone and all rungs at once, instead of `regular` and `heads` (PABEE) or of `hard` and `heads`.

    Lower layers then learn to answer, too. The lowest loss is kept.
    """
    _check("joint", model)
    only_train(model, (model.encoder, model.classifier, model.exits))
    own_rates = {} if stage.head_learning_rate is None else {"model.exits.": stage.head_learning_rate}
    fit(Joint(model, stage), train.labelled(), select.labelled(), stage, run, Keep.lowest_loss(), own_rates)
    return model


def distil(model: EncoderModel, train: Examples, select: Examples, stage: StageConfig, run: Run) -> EncoderModel:
    """Trains a student, backbone and last classifier, to be like `run.teacher`, on rows with and without labels.

    The best accuracy on select is kept; the lowest loss where select rows have no labels or nothing is learned from
    answers (`answer_weight` 0, which leaves the classifier alone too).
    """
    only_train(model, (model.encoder, model.classifier) if stage.answer_weight else (model.encoder,))
    module, labelled = Distil(model, stage, _teacher(run)), select.labelled()
    if stage.answer_weight and len(labelled):
        fit(module, train, labelled, stage, run, Keep.best(metric_of(model)))
    else:
        fit(module, train, select, stage, run, Keep.lowest_loss())
    return model


def theseus(model: EncoderModel, train: Examples, select: Examples, stage: StageConfig, run: Run) -> EncoderModel:
    """Trains a student's layers in the place of those of `run.teacher` (BERT-of-Theseus). The best accuracy is kept."""
    only_train(model, (model.encoder.layers,))
    module = Theseus(model, stage, run.seed, _teacher(run))
    fit(module, train.labelled(), select.labelled(), stage, run, Keep.best(metric_of(model)))
    return model


STAGES: Mapping[str, Stage] = {
    "regular": regular,
    "guess": guess,
    "soft": soft,
    "hard": hard,
    "heads": heads,
    "joint": joint,
    "lengthdrop": lengthdrop,
    "int8": int8,
    "distil": distil,
    "theseus": theseus,
}
HEAD_STAGES = frozenset({"heads", "joint"})  # they train exit heads
PLAIN_STAGES = frozenset({"regular", *STUDENT_STAGES})  # what they leave is the float, unpruned model
UNPRUNED_STAGES = frozenset({"regular", "guess", *STUDENT_STAGES})  # they know nothing of pruning


def stage_of(kind: str) -> Stage:
    """The stage of this name; UserError lists those that exist."""
    if kind not in STAGES:
        raise UserError(f"stage {kind!r} is not known; known: {', '.join(STAGES)}")
    return STAGES[kind]


def only_train(model: EncoderModel, parts: Iterable[nn.Module]) -> None:
    """Freezes all parameters but those of `parts`: frozen ones get no gradient and no share of the clipping norm."""
    model.requires_grad_(False)
    for part in parts:
        part.requires_grad_(True)


def metric_of(model: EncoderModel) -> Metric:
    """What the best state on the select rows is the best in."""
    return CRITERIA[model.problem].metric


@torch.no_grad()
def full_accuracy(model: EncoderModel, rows: Examples, problem: Problem = CLASSES) -> float:
    """Share of labelled rows that the last rung answers right, nothing pruned; of other outputs 1 - the mean loss."""
    rows = rows.labelled()
    model.eval()
    answers = (model.full_logits(batch) for batch in in_batches(rows.encoded.tokens))
    logits = np.concatenate([answer.float().cpu().numpy() for answer in answers])
    lost = float(problem.loss(problem.predictions(logits), rows.labels).sum())
    return (len(rows) - lost) / len(rows)


def _show(model: EncoderModel, rows: Examples, run: Run) -> None:
    """Runs backbone and heads as the stage will, on some of the rows."""
    model.eval().to(run.device)
    with run.autocast():
        for batch in in_batches([rows.encoded.tokens[row] for row in spread(len(rows), ROWS)]):
            model(batch, model.token_rule)


def refuse_misfit(kind: str, pruning: PruningConfig | None, has_exits: bool) -> None:
    """UserError where a model with this pruning, with or without exit heads, cannot have a stage of this kind."""
    if kind in ("guess", "soft", "hard", "lengthdrop"):
        if pruning is None:
            raise UserError(f"stage {kind!r}: the recipe says nothing of pruning; give it a [pruning] table")
        _refuse_other_pruning(kind, pruning)
    if kind in HEAD_STAGES and not has_exits:
        raise UserError(f"stage {kind!r}: the model has no exit heads; name some in head_layers")


def _refuse_other_pruning(kind: str, pruning: PruningConfig) -> None:
    if kind == "guess" and pruning.score != PREDICTED:
        raise UserError(f"stage 'guess': pruning's score is {pruning.score!r}; set score = {PREDICTED!r}")
    if kind == "soft" and pruning.kind != "threshold":
        raise UserError(f"stage 'soft' learns thresholds; pruning of kind {pruning.kind!r} starts with 'hard'")
    if kind == "lengthdrop" and pruning.kind != "share":
        raise UserError(
            f"stage 'lengthdrop' draws shares of each text's length, the recipe's pruning is of kind {pruning.kind!r}; "
            'set kind = "share" in its [pruning] table'
        )


def _check(kind: str, model: EncoderModel) -> None:
    refuse_misfit(kind, None if model.pruning is None else model.pruning.config, len(model.exits) > 0)


def _teacher(run: Run) -> EncoderModel:
    if run.teacher is None:
        raise ValueError("run: has no teacher for the student")
    return run.teacher
