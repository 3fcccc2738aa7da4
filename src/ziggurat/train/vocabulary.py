"""Where the vocabulary's scores start: at how much the answer of the trained model hangs on each entry."""

from __future__ import annotations

import numpy as np
import torch

from ziggurat.data.packing import PackedBatch, pack
from ziggurat.encoder.model import AdaptiveModel
from ziggurat.train.batches import Examples, spread
from ziggurat.train.criteria import CRITERIA

_PRIOR = 3.0  # occurrences that every entry is taken to have had, twice as important as the mean: rare words are read
_BATCH = 64
_ROWS = 4096  # that are looked at


def start_vocabulary(model: AdaptiveModel, rows: Examples, device: torch.device) -> None:
    """Sets each entry's score to the logarithm of its mean `hold`, 0 where the recipe's share of the tokens is above.

    So that share is read before anything is learned. Entries at the first, or at the last, place of every text are
    special ([CLS], [SEP], RoBERTa's </s>, which stands between pairs as well): always read.
    """
    pruning = model.pruning
    model.to(device).eval().requires_grad_(False)
    held, seen, first, last = (np.zeros(model.spec.vocabulary) for _ in range(4))
    tokens = [rows.encoded.tokens[row] for row in spread(len(rows), _ROWS)]
    for start in range(0, len(tokens), _BATCH):
        batch = pack(tokens[start : start + _BATCH])
        ids = batch.states[:, 0]
        np.add.at(held, ids, hold(model, batch))
        np.add.at(seen, ids, 1)
        np.add.at(first, ids[batch.cu_seqlens[:-1]], 1)
        np.add.at(last, ids[batch.cu_seqlens[1:] - 1], 1)
    mean = (held + 2 * _PRIOR * held.sum() / seen.sum()) / (seen + _PRIOR)
    with torch.no_grad():
        pruning.vocabulary.copy_(torch.from_numpy(np.log(mean / _border(mean, seen, pruning.config.vocabulary))))
    pruning.always_read(np.flatnonzero((first == len(tokens)) | (last == len(tokens))).tolist())


def hold(model: AdaptiveModel, batch: PackedBatch) -> np.ndarray:
    """How much each token holds the answer, (n_tokens) float64: the squared gradient of the logits' lead.

    The gradient is that of the largest logit over the mean of all (of several labels that of all their sizes, of a
    regression that of its number, of spans both ends'), by a weight on the token as input and as key of
    every layer. Attention is no guide here: full stops and brackets receive much and say little.
    """
    alive = torch.ones(len(batch.positions), device=model.classifier.classes.weight.device, requires_grad=True)
    states = model.encoder.embeddings(batch)
    states = states.with_states(states.states * alive[:, None])
    for layer in model.encoder.layers:
        context, _ = layer.scored_context(states, active=alive)
        states = layer.finish(states, context)
    logits = model.answer(states, states.states, batch)
    (gradient,) = torch.autograd.grad(CRITERIA[model.problem].lead(logits).sum(), alive)
    squares: np.ndarray = gradient.double().square().cpu().numpy()
    return squares


def _border(score: np.ndarray, seen: np.ndarray, share: float) -> float:
    """The score above which `share` of all the tokens seen lie."""
    order = np.argsort(-score, kind="stable")
    running = np.cumsum(seen[order]) / seen.sum()
    return float(score[order][min(int(np.searchsorted(running, share)), len(order) - 1)])
