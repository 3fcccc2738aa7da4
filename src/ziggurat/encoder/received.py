"""How much attention each token receives in each layer of the whole model: what learned scores start from."""

from __future__ import annotations

import torch
from torch import Tensor

from ziggurat.data.packing import PackedBatch
from ziggurat.encoder.model import AdaptiveModel


@torch.no_grad()
def received_by_layer(model: AdaptiveModel, batch: PackedBatch) -> tuple[list[PackedBatch], list[Tensor]]:
    """Token ids (n_tokens, 2) → for each layer the states (n_tokens, d) that enter it, and its scores (n_tokens)."""
    entered, received = [model.encoder.embeddings(batch)], []
    for layer in model.encoder.layers:
        context, scores = layer.scored_context(entered[-1])
        received.append(scores)
        entered.append(layer.finish(entered[-1], context))
    return entered[:-1], received
