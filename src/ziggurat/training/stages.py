"""Training stages: functions that train a model further and return it."""

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
from ziggurat.training.batches import Examples, in_batches, spread
from ziggurat.training.lengths.drop import LengthDrop
from ziggurat.training.loop import Keep, Run, fit
from ziggurat.training.losses import Metric, criterion_of
from ziggurat.training.objectives import (
    FrozenHeads,
    Guess,
    Hard,
    Heads,
    Int8,
    Joint,
    Regular,
    Soft,
    initialise_vocabulary,
)
from ziggurat.training.precomputed import collate_head_inputs, head_inputs, inputs_fit_memory, run_heads
from ziggurat.training.students import Distil, Theseus
from ziggurat.training.trials import choose_strength, try_vocabulary

Stage = Callable[[EncoderModel, Examples, Examples, StageConfig, Run], EncoderModel]


def regular(model: EncoderModel, train: Examples, select: Examples, stage: StageConfig, run: Run) -> EncoderModel:
    """Plain fine-tuning of backbone and last classifier, without exit heads. Result: best accuracy on select rows."""
    only_train(model, (model.encoder, model.classifier))
    fit(Regular(model, stage), train.labelled(), select.labelled(), stage, run, Keep.best(metric_of(model)))
    return model


def guess(model: EncoderModel, train: Examples, select: Examples, stage: StageConfig, run: Run) -> EncoderModel:
    """Trains the predictors of pruning scores: lower layers predict the attention of the upper half (ToP).

    Everything else is frozen. Result: lowest loss on select rows.
    """
    _check("guess", model)
    only_train(model, (model.require_pruning().guesses,))
    fit(Guess(model, stage), train, select, stage, run, Keep.lowest_loss())
    return model


def soft(model: EncoderModel, train: Examples, select: Examples, stage: StageConfig, run: Run) -> EncoderModel:
    """Learns pruning thresholds with the soft forward pass (LTP, MP). Result: the last step.

    Not the best step on select rows: pruning grows during training, so accuracy falls. Pruning that loses more than it
    saves is undone afterwards (`train.trials`).
    """
    _check("soft", model)
    pruning = model.require_pruning()
    is_new = pruning.unread_vocabulary
    if is_new and not run.finished:
        initialise_vocabulary(model, train, run.device)
    if is_new and stage.trial:
        try_vocabulary(model, select, run)
    only_train(model, (model.encoder, model.classifier, pruning))
    # Thresholds of 0 mean no pruning and get no gradient, which several processes would wait for.
    pruning.values.requires_grad_(any(pruning.fades(layer) for layer in range(1, model.spec.layers + 1)))
    unit = float(SCALES[pruning.config.scale](train.encoded.lengths).mean())
    own_rates = {
        "pruning.values": unit * stage.threshold_learning_rate,
        "pruning.vocabulary": stage.vocabulary_learning_rate,
    }
    keep = Keep.last(metric_of(model))
    fit(Soft(model, stage), train.labelled(), select.labelled(), stage, run, keep, own_rates)
    if stage.trial:
        choose_strength(model, select, run)
    return model


def hard(model: EncoderModel, train: Examples, select: Examples, stage: StageConfig, run: Run) -> EncoderModel:
    """Fine-tunes backbone and last classifier with real pruning at fixed thresholds. Result: best metric on select."""
    _check("hard", model)
    only_train(model, (model.encoder, model.classifier))
    fit(Hard(model, stage), train.labelled(), select.labelled(), stage, run, Keep.best(metric_of(model)))
    return model


def lengthdrop(model: EncoderModel, train: Examples, select: Examples, stage: StageConfig, run: Run) -> EncoderModel:
    """Trains backbone and last classifier to answer at any share of tokens (Length-Adaptive Transformer).

    Result: best accuracy on select rows, as the mean of the full and the smallest sub-model's. The model's shares stay
    unchanged: a search chooses them afterwards.
    """
    _check("lengthdrop", model)
    only_train(model, (model.encoder, model.classifier))
    fit(
        LengthDrop(model, stage, run.seed), train.labelled(), select.labelled(), stage, run, Keep.best(metric_of(model))
    )
    return model


def int8(model: EncoderModel, train: Examples, select: Examples, stage: StageConfig, run: Run) -> EncoderModel:
    """Fine-tunes backbone and last classifier with layers in simulated INT8, which they stay in (LTP 4.6).

    With pruning, if the model prunes. If the stage distils, also from the embeddings of `run.teacher`.
    """
    teacher = _teacher(run) if stage.distillation else None
    simulate_int8(model)
    only_train(model, (model.encoder, model.classifier))
    fit(Int8(model, stage, teacher), train.labelled(), select.labelled(), stage, run, Keep.best(metric_of(model)))
    return model


def heads(model: EncoderModel, train: Examples, select: Examples, stage: StageConfig, run: Run) -> EncoderModel:
    """Trains the exit heads on the last rung's logits, with labelled and unlabelled rows (FastBERT, MP eq. 4).

    Backbone and last classifier are frozen: evaluation mode, no gradient, bit-identical afterwards. With pruning, if
    the model prunes. Result: lowest loss on select rows.
    """
    _check("heads", model)
    only_train(model, model.exits.values())
    if run.finished or not inputs_fit_memory(model, (train, select), run):
        if not run.finished:
            standardise(model.exits.values(), lambda: _show(model, train, run))
        fit(Heads(model, stage), train, select, stage, run, Keep.lowest_loss())
    else:
        to_train, to_select = (head_inputs(model, rows, stage, run) for rows in (train, select))
        standardise(model.exits.values(), lambda: run_heads(model, to_train))
        fit(
            FrozenHeads(model, stage), to_train, to_select, stage, run, Keep.lowest_loss(), collator=collate_head_inputs
        )
    return model


def joint(model: EncoderModel, train: Examples, select: Examples, stage: StageConfig, run: Run) -> EncoderModel:
    """Trains backbone and all rungs together, instead of `regular` and `heads` (PABEE) or `hard` and `heads`.

    So lower layers learn to answer too. Result: lowest loss on select rows.
    """
    _check("joint", model)
    only_train(model, (model.encoder, model.classifier, model.exits))
    own_rates = {} if stage.head_learning_rate is None else {"model.exits.": stage.head_learning_rate}
    fit(Joint(model, stage), train.labelled(), select.labelled(), stage, run, Keep.lowest_loss(), own_rates)
    return model


def distil(model: EncoderModel, train: Examples, select: Examples, stage: StageConfig, run: Run) -> EncoderModel:
    """Trains a student (backbone and last classifier) to imitate `run.teacher`, on rows with and without labels.

    Result: best accuracy on select rows; the lowest loss if these have no labels, or with `answer_weight` 0, which also
    freezes the classifier.
    """
    only_train(model, (model.encoder, model.classifier) if stage.answer_weight else (model.encoder,))
    module, labelled = Distil(model, stage, _teacher(run)), select.labelled()
    if stage.answer_weight and len(labelled):
        fit(module, train, labelled, stage, run, Keep.best(metric_of(model)))
    else:
        fit(module, train, select, stage, run, Keep.lowest_loss())
    return model


def theseus(model: EncoderModel, train: Examples, select: Examples, stage: StageConfig, run: Run) -> EncoderModel:
    """Trains a student's layers as replacements of those of `run.teacher` (BERT-of-Theseus). Result: best accuracy."""
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
HEAD_STAGES = frozenset({"heads", "joint"})  # train exit heads
PLAIN_STAGES = frozenset({"regular", *STUDENT_STAGES})  # result in a float model that was trained without pruning
UNPRUNED_STAGES = frozenset({"regular", "guess", *STUDENT_STAGES})  # run without pruning


def stage_of(kind: str) -> Stage:
    """The stage of this name; UserError lists the known ones."""
    if kind not in STAGES:
        raise UserError(f"stage {kind!r} is not known; known: {', '.join(STAGES)}")
    return STAGES[kind]


def only_train(model: EncoderModel, parts: Iterable[nn.Module]) -> None:
    """Freezes all parameters except those of `parts`: no gradient, no contribution to the clipping norm."""
    model.requires_grad_(False)
    for part in parts:
        part.requires_grad_(True)


def metric_of(model: EncoderModel) -> Metric:
    """The metric that selects the best checkpoint."""
    return criterion_of(model.problem).metric


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
    """Runs backbone and heads on a sample of the rows, with the stage's precision."""
    model.eval().to(run.device)
    with run.autocast():
        for batch in in_batches([rows.encoded.tokens[row] for row in spread(len(rows), ROWS)]):
            model(batch, model.token_rule)


def refuse_misfit(kind: str, pruning: PruningConfig | None, has_exits: bool) -> None:
    """UserError if a stage of this kind is impossible with this pruning, or without exit heads."""
    if kind in ("guess", "soft", "hard", "lengthdrop"):
        if pruning is None:
            raise UserError(f"stage {kind!r}: the recipe has no pruning; give it a [pruning] table")
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
