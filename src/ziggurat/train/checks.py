"""What is wrong with a recipe for a model, said before any training: a later stage must not be the one to find out."""

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
from ziggurat.train.batches import in_batches
from ziggurat.train.stages import HEAD_STAGES, UNPRUNED_STAGES, refuse_misfit, stage_of
from ziggurat.train.students import student_spec

_LOOKED_AT = 16  # texts


def refuse_misfits(recipe: Recipe, spec: EncoderSpec, goes_on: bool = False) -> None:
    """UserError, with the fix, for stages, pruning or search that cannot work with each other and this encoder.

    `spec` is that of the model before any stage: the teacher's where the recipe makes a student. `goes_on`: with
    pruning that it has learned before.
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
            f"recipe {recipe.name!r}: [search] looks for shares of tokens that stay; "
            'give it a [pruning] table with kind = "share", or leave [search] out'
        )
    if recipe.pruning is not None:
        longest = spec.positions if recipe.max_length is None else min(recipe.max_length, spec.positions)
        _refuse_numbers(recipe.pruning, spec.layers, longest)


@torch.no_grad()
def refuse_emptying(model: EncoderModel, tokens: Sequence[np.ndarray]) -> None:
    """UserError for thresholds that leave of every text its first token alone in the lower half of the layers.

    They are tried on the model as it starts and some of `tokens`, (n_i, 2) each. In the upper half a first token that
    has read the text may well do without it.
    """
    pruning = model.pruning
    if pruning is None or pruning.config.kind != "threshold" or pruning.config.score == PREDICTED:
        return  # shares and counts say themselves what stays; scores that are to be learned say nothing yet
    rule = replace(pruning.rule(), vocabulary=None)
    states = model.eval().embed(next(in_batches(tokens[:_LOOKED_AT])), rule)
    for layer in range(1, model.spec.layers // 2 + 1):
        states = model.layer(layer, states, rule)
        if (states.lengths == 1).all():
            raise UserError(
                f"pruning: threshold {rule.values[layer - 1]:g} at layer {layer} leaves nothing but the first token of "
                f"the {states.n_seqs} texts that were tried; lower it, or `final`, from which it follows"
            )


def _refuse_student(recipe: Recipe) -> None:
    """UserError for stages that train no student although there is one, or one that is not there."""
    kinds = [stage.kind for stage in recipe.stages]
    making = [kind for kind in kinds if kind in STUDENT_STAGES]
    if recipe.student is None:
        if making:
            raise UserError(f"stage {making[0]!r} trains a student; give the recipe a [student] table")
        return
    if not making:
        raise UserError(f"recipe {recipe.name!r}: no stage trains its student; add {' or '.join(STUDENT_STAGES)}")
    before = kinds[: kinds.index(making[0])]
    if wrong := [kind for kind in before if kind != "regular"]:
        raise UserError(
            f"stage {wrong[0]!r} stands before {making[0]!r}, where only 'regular' trains the teacher; put it behind"
        )
    for key in ("hidden", "checkpoint"):
        if getattr(recipe.student, key) is not None and "theseus" in making:
            raise UserError(f"stage 'theseus' swaps layers with the teacher; leave `{key}` out of the [student] table")


def _refuse_unlearned(recipe: Recipe) -> None:
    """UserError for a stage that prunes by scores which no stage before it has learned."""
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
    """UserError for exit heads that learn from a model which is fine-tuned afterwards, and not they with it."""
    kinds = [stage.kind for stage in recipe.stages]
    last = max((place for place, kind in enumerate(kinds) if kind in HEAD_STAGES), default=len(kinds))
    if stale := [kind for kind in kinds[last:] if kind in ("guess", *BACKBONE_STAGES) and kind not in HEAD_STAGES]:
        raise UserError(
            f"stage {stale[0]!r} stands behind {kinds[last]!r} and would change what its exit heads read; put it before"
        )


def _refuse_numbers(pruning: PruningConfig, n_layers: int, max_length: int) -> None:
    """UserError for numbers that leave nothing to read, or that rise although no token ever returns."""
    numbers = starting_values(pruning, n_layers)
    # At the last layer it is exact: nothing reads the other tokens afterwards.
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
