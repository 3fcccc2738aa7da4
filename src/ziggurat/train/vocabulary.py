"""Where the vocabulary's scores start: at how much attention each entry receives in the middle of the trained model."""

from __future__ import annotations

import numpy as np
import torch

from ziggurat.data.packing import PackedBatch, pack
from ziggurat.encoder.model import AdaptiveModel
from ziggurat.encoder.received import received_by_layer
from ziggurat.train.batches import Examples

_START = 2.0  # score of an entry that receives its fair share: read with weight σ(2) = 0.88
_PRIOR = 3.0  # occurrences at the fair share that every entry is taken to have had: few seen are hardly moved
_BATCH = 64
_ROWS = 4096  # that are looked at


def start_vocabulary(model: AdaptiveModel, rows: Examples, device: torch.device) -> None:
    """Sets each entry's score to 2 + log of its mean received attention over the middle layers, special tokens fixed.

    Entries at the first or last place of most texts that they occur in are special ([CLS], [SEP]): always read.
    """
    model.to(device).eval()
    received, seen, edge = (np.zeros(model.spec.vocabulary) for _ in range(3))
    tokens = rows.encoded.tokens[:_ROWS]
    for start in range(0, len(tokens), _BATCH):
        batch = pack(tokens[start : start + _BATCH])
        ids = batch.states[:, 0]
        np.add.at(received, ids, middle_attention(model, batch))
        np.add.at(seen, ids, 1)
        np.add.at(edge, ids[batch.cu_seqlens[:-1]], 1)
        np.add.at(edge, ids[batch.cu_seqlens[1:] - 1], 1)
    mean = (received + _PRIOR) / (seen + _PRIOR)
    with torch.no_grad():
        model.pruning.vocabulary.copy_(torch.from_numpy(_START + np.log(mean)))
    model.pruning.always_read(np.flatnonzero(edge > 0.4 * np.maximum(seen, 1)).tolist())


def middle_attention(model: AdaptiveModel, batch: PackedBatch) -> np.ndarray:
    """Received attention (n_tokens) float64, mean over the layers from the second to two thirds of the depth."""
    _, received = received_by_layer(model, batch)
    middle = received[1 : max(2, round(2 * model.spec.layers / 3))] or received
    mean: np.ndarray = torch.stack(middle).double().mean(dim=0).cpu().numpy()
    return mean
