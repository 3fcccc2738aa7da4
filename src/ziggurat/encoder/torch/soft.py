"""The soft forward: tokens fade instead of leaving, so that thresholds have a gradient (LTP 3.4, MP 3.2)."""

from __future__ import annotations

import torch
from torch import Tensor

from ziggurat.data.packing import PackedBatch
from ziggurat.encoder.torch.model import EncoderModel
from ziggurat.policies.prune import FROM_OTHERS, LTP_PADDED, PREDICTED
from ziggurat.types import ProblemType


def soft_logits(
    model: EncoderModel, batch: PackedBatch, temperature: float, fade_attention: bool = True
) -> tuple[Tensor, list[Tensor]]:
    """Token ids (n_tokens, 2) → logits of the last rung (n_seqs, n_classes), and each layer's mask (n_tokens).

    A layer's output is multiplied by the mask σ((score − θ)/T) after its LayerNorm. With `fade_attention` masks also
    multiply from layer to layer and fade a token as key and as query of the next attention, so that T → 0 ends in
    the hard forward; without, attention sees pruned tokens at full strength, as in the papers. The first mask returned
    is that of the vocabulary where the model has one. Where answers are read off every token (spans), a token's state
    is restored by as much as it faded, to what it was before. ValueError if the model does not prune.
    """
    pruning = model.pruning
    if pruning is None:
        raise ValueError("the model has no pruning to soften")
    score = pruning.config.score
    states = model.encoder.embeddings(batch)
    restored, restores = states.states, model.problem == ProblemType.QUESTION_ANSWERING
    alive = states.states.new_ones(len(states.states))
    masks = []
    if pruning.config.vocabulary is not None:
        alive = pruning.soft_reading(batch, 1.0)  # the entries' scores are logits: their unit is T
        masks.append(alive)
        states = states.with_states(states.states * alive[:, None])
    for layer, module in enumerate(model.encoder.layers, start=1):
        seen = alive if fade_attention else None
        context, scores = module.scored_context(states, score == FROM_OTHERS, seen)
        if score == PREDICTED:
            scores = pruning.predicted(layer, states, seen)
        output = module.finish(states, context)
        mask = pruning.soft_mask(layer, scores, batch, temperature) if pruning.fades(layer) else torch.ones_like(alive)
        alive = alive * mask if fade_attention else mask
        masks.append(alive)
        weight = alive[:, None].to(output.states.dtype)
        if restores:
            restored = restored + weight * (output.states - restored)
        states = output.with_states(output.states * weight)
    return model.answer(states, restored, batch), masks


def regularisation_from_ltp(weight: float, n_layers: int, mean_length: float, padded: int = LTP_PADDED) -> float:
    """LTP's λ as a recipe's `regularisation`, for texts of `mean_length` real tokens on average.

    LTP's code sums over layers and takes means over all `padded` places; ours is the mean over layers and real tokens.
    Its sum leaves out the first layer, ours does not.
    """
    return weight * n_layers * mean_length / padded


@torch.no_grad()
def received_by_layer(model: EncoderModel, batch: PackedBatch) -> tuple[list[PackedBatch], list[Tensor]]:
    """Token ids (n_tokens, 2) → for each layer the states (n_tokens, d) that enter it, and its scores (n_tokens)."""
    entered, received = [model.encoder.embeddings(batch)], []
    for layer in model.encoder.layers:
        context, scores = layer.scored_context(entered[-1])
        received.append(scores)
        entered.append(layer.finish(entered[-1], context))
    return entered[:-1], received
