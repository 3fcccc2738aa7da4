"""The soft forward pass: tokens fade instead of being pruned, so thresholds have a gradient (LTP 3.4, MP 3.2)."""

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

    A layer's output is multiplied by the mask σ((score − θ)/T) after its LayerNorm. With `fade_attention`, masks are
    multiplied over layers and also weaken a token as key and query of the next attention, so T → 0 gives the hard
    forward pass. Without, attention sees pruned tokens at full strength, as in the papers. If the model has vocabulary
    scores, the first returned mask belongs to them. Spans need a state of every token: there the faded part of a state
    is replaced by the token's earlier state. ValueError if the model does not prune.
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
        alive = pruning.soft_reading(batch, 1.0)  # the entries' scores are logits, in units of T
        masks.append(alive)
        states = states.with_states(states.states * alive[:, None])
    for layer, module in enumerate(model.encoder.layers, start=1):
        active = alive if fade_attention else None
        context, scores = module.scored_context(states, score == FROM_OTHERS, active)
        if score == PREDICTED:
            scores = pruning.predicted(layer, states, active)
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
    """Converts LTP's λ to a recipe's `regularisation`, for texts of `mean_length` real tokens on average.

    LTP's code takes means over all `padded` positions and sums over all layers but the first. Ziggurat takes the mean
    over real tokens and over all layers.
    """
    return weight * n_layers * mean_length / padded


@torch.no_grad()
def received_by_layer(model: EncoderModel, batch: PackedBatch) -> tuple[list[PackedBatch], list[Tensor]]:
    """Token ids (n_tokens, 2) → input states (n_tokens, d) and attention scores (n_tokens) of each layer."""
    entered, received = [model.encoder.embeddings(batch)], []
    for layer in model.encoder.layers:
        context, scores = layer.scored_context(entered[-1])
        received.append(scores)
        entered.append(layer.finish(entered[-1], context))
    return entered[:-1], received
