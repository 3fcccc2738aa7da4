"""Checks a recipe against a model before any training, so that no later stage fails."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from ziggurat.encoder.spec import EncoderSpec
from ziggurat.encoder.torch.checkpoint import head_places
from ziggurat.encoder.torch.model import EncoderModel
from ziggurat.encoder.torch.pruning import starting_values
from ziggurat.errors import UserError
from ziggurat.policies.prune import PREDICTED, only_first
from ziggurat.recipe import BACKBONE_STAGES, STUDENT_STAGES, PruningConfig, Recipe
from ziggurat.training.batches import in_batches
from ziggurat.training.stages import HEAD_STAGES, UNPRUNED_STAGES, refuse_misfit, stage_of
from ziggurat.training.students import student_spec

_SAMPLE = 16  # texts


def refuse_misfits(recipe: Recipe, spec: EncoderSpec, goes_on: bool = False) -> None:
    """UserError, with the fix, for stages, pruning or search that do not fit together or to this encoder.

    `spec` is the model's before any stage: the teacher's if the recipe has a student. `goes_on`: training continues
    from a model whose pruning is learned already.
    """
    for stage in recipe.stages:
        stage_of(stage.kind)
    _refuse_student(recipe)
    if recipe.student is not None:
        spec = student_spec(recipe.student, spec)
        head_places(spec, recipe.head_layers)
    has_exits = bool(range(1, spec.layers) if recipe.head_layers is None else recipe.head_layers)
    for stage in recipe.stages:
        refuse_misfit(stage.kind, recipe.pruning, has_exits)
    if not goes_on:
        _refuse_unlearned(recipe)
    _refuse_stale_heads(recipe)
    if recipe.search is not None and (recipe.pruning is None or recipe.pruning.kind != "share"):
        raise UserError(
            f"recipe {recipe.name!r}: [search] searches for shares of tokens to keep; "
            'give it a [pruning] table with kind = "share", or leave [search] out'
        )
    if recipe.pruning is not None:
        longest = spec.positions if recipe.max_length is None else min(recipe.max_length, spec.positions)
        _refuse_numbers(recipe.pruning, spec.layers, longest)


@torch.no_grad()
def refuse_emptying(model: EncoderModel, tokens: Sequence[np.ndarray]) -> None:
    """UserError if thresholds prune every text down to its first token in the lower half of the layers.

    Tried with the untrained model on a sample of `tokens`, (n_i, 2) each. In the upper half this may be fine, since the
    first token has read the text by then.
    """
    pruning = model.pruning
    if pruning is None or pruning.config.kind != "threshold" or pruning.config.score == PREDICTED:
        return  # shares and counts are checked without a model; predicted scores are not trained yet
    rule = replace(pruning.rule(), vocabulary=None)
    states = model.eval().embed(next(in_batches(tokens[:_SAMPLE])), rule)
    for layer in range(1, model.spec.layers // 2 + 1):
        states = model.layer(layer, states, rule)
        if (states.lengths == 1).all():
            raise UserError(
                f"pruning: threshold {rule.values[layer - 1]:g} at layer {layer} leaves nothing but the first token of "
                f"the {states.n_seqs} texts that were tried; lower it, or `final`, which it is computed from"
            )


def _refuse_student(recipe: Recipe) -> None:
    """UserError for a student without a stage that trains it, or such a stage without a student."""
    kinds = [stage.kind for stage in recipe.stages]
    student_stages = [kind for kind in kinds if kind in STUDENT_STAGES]
    if recipe.student is None:
        if student_stages:
            raise UserError(f"stage {student_stages[0]!r} trains a student; give the recipe a [student] table")
        return
    if not student_stages:
        raise UserError(f"recipe {recipe.name!r}: no stage trains its student; add {' or '.join(STUDENT_STAGES)}")
    before = kinds[: kinds.index(student_stages[0])]
    if wrong := [kind for kind in before if kind != "regular"]:
        raise UserError(
            f"stage {wrong[0]!r} stands before {student_stages[0]!r}, where only 'regular' trains the teacher; "
            "put it behind"
        )
    for key in ("hidden", "checkpoint"):
        if getattr(recipe.student, key) is not None and "theseus" in student_stages:
            raise UserError(f"stage 'theseus' swaps layers with the teacher; leave `{key}` out of the [student] table")


def _refuse_unlearned(recipe: Recipe) -> None:
    """UserError for a stage that prunes by scores that no earlier stage has learned."""
    learned: set[str] = set()
    for stage in recipe.stages:
        pruning = None if stage.kind in UNPRUNED_STAGES else recipe.pruning
        if pruning is not None and pruning.score == PREDICTED and "guess" not in learned:
            raise UserError(
                f"stage {stage.kind!r}: nothing has learned the predicted scores; put a stage 'guess' before"
            )
        learned.add(stage.kind)
        if pruning is not None and pruning.vocabulary is not None and "soft" not in learned:
            raise UserError(f"stage {stage.kind!r}: nothing has learned the vocabulary; put a stage 'soft' before")


def _refuse_stale_heads(recipe: Recipe) -> None:
    """UserError if the model is fine-tuned after its exit heads were trained, without them."""
    kinds = [stage.kind for stage in recipe.stages]
    last = max((index for index, kind in enumerate(kinds) if kind in HEAD_STAGES), default=len(kinds))
    if stale := [kind for kind in kinds[last:] if kind in ("guess", *BACKBONE_STAGES) and kind not in HEAD_STAGES]:
        raise UserError(
            f"stage {stale[0]!r} stands behind {kinds[last]!r} and would change what its exit heads read; put it before"
        )


def _refuse_numbers(pruning: PruningConfig, n_layers: int, max_length: int) -> None:
    """UserError for values that prune everything but the first token, or that rise from layer to layer."""
    numbers = starting_values(pruning, n_layers)
    # Allowed at the last layer: no later layer reads the other tokens.
    for layer, number in enumerate(numbers[:-1], start=1):
        if not np.isnan(number) and only_first(pruning.kind, pruning.scale, float(number), max_length):
            move = "lower it" if pruning.kind == "threshold" else "raise it"
            raise UserError(
                f"pruning: {pruning.kind} {number:g} at layer {layer} leaves nothing but the first token of any text "
                f"of up to {max_length} tokens; {move}"
            )
    stated = numbers[~np.isnan(numbers)]
    if pruning.kind != "threshold" and (np.diff(stated) > 0).any():
        raise UserError(
            f"pruning: {pruning.kind}s rise from layer to layer, and a token that left does not return; "
            'set schedule = "flat" or "geometric", or give per_layer falling numbers'
        )
