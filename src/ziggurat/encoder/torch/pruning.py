"""Learned parameters of pruning: thresholds, a score per vocabulary entry, predictors of attention scores."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from ziggurat.data.packing import PackedBatch
from ziggurat.encoder.spec import EncoderSpec
from ziggurat.errors import UserError
from ziggurat.policies import prune
from ziggurat.policies.prune import PREDICTED, TokenRule
from ziggurat.recipe import PruningConfig

ALWAYS_READ = 1e4  # score of vocabulary entries that are never dropped: [CLS], separators and other special tokens


class TokenPruning(nn.Module):
    """The parameters of a pruning rule. Engines run `rule()`; training differentiates `soft_mask`."""

    def __init__(self, config: PruningConfig, spec: EncoderSpec) -> None:
        super().__init__()
        self.config = config
        self.values = nn.Parameter(torch.from_numpy(starting_values(config, spec.layers)).float())
        if config.vocabulary is not None:
            self.vocabulary = nn.Parameter(torch.ones(spec.vocabulary))
        if config.score == PREDICTED:
            self.guesses = nn.ModuleList(nn.Linear(spec.hidden, 1) for _ in range(spec.layers))

    def rule(self) -> TokenRule:
        """The rule with the present parameters."""
        read = (self.vocabulary.detach() > 0).cpu().numpy() if self.config.vocabulary is not None else None
        values = self.values.detach().double().cpu().numpy()
        return TokenRule(prune.KINDS[self.config.kind], values, self.config.score, self.config.scale, read)

    def fades(self, layer: int) -> bool:
        """Whether tokens fade at layer 1 … L in the soft forward pass.

        A threshold that training lowered below 0 prunes nothing, but tokens still fade: else it would have no gradient.
        Exactly 0, or NaN, means no pruning at this layer.
        """
        value = float(self.values.detach()[layer - 1])
        return not (np.isnan(value) or value == 0)

    def predicted(self, layer: int, batch: PackedBatch, active: Tensor | None = None) -> Tensor:
        """Scores (n_tokens) predicted from the states that enter layer 1 … L; their mean over a sequence is 1.

        With `active` (n_tokens) in (0, 1] the mean is weighted by it.
        """
        raw = self.guesses[layer - 1](batch.states).squeeze(-1).float()
        owner = _owners(batch).to(raw.device)
        # Softmax within each sequence, times its length. Subtract the maximum first, so that exp does not overflow.
        peak = raw.new_full((batch.n_seqs,), float("-inf")).scatter_reduce(0, owner, raw.detach(), "amax")
        return per_sequence_mean_one((raw - peak[owner]).exp(), batch, active)

    def soft_mask(self, layer: int, scores: Tensor, batch: PackedBatch, temperature: float) -> Tensor:
        """σ((score − θ) / T) of each token, 1 for the first of a sequence: (n_tokens) → (n_tokens).

        `temperature` is T for `relative` scores; for other scales it is converted to their unit.
        """
        factor = prune.SCALES[self.config.scale](batch.original)
        unit = torch.from_numpy(np.repeat(factor, batch.lengths)).to(scores)
        return spare_first(torch.sigmoid((scores * unit - self.values[layer - 1]) / (temperature * unit)), batch)

    def soft_reading(self, batch: PackedBatch, temperature: float) -> Tensor:
        """σ(v / T) of each token's vocabulary entry: (n_tokens, 2) ids → (n_tokens)."""
        ids = torch.as_tensor(batch.states, device=self.vocabulary.device)[:, 0]
        return spare_first(torch.sigmoid(self.vocabulary[ids] / temperature), batch)

    @property
    def unread_vocabulary(self) -> bool:
        """Whether there are scores of vocabulary entries that are not initialised yet."""
        return self.config.vocabulary is not None and bool((self.vocabulary == 1).all())

    def drop_vocabulary(self) -> None:
        """Removes the scores of vocabulary entries: every token is read from now on."""
        self.config = replace(self.config, vocabulary=None)
        del self.vocabulary

    def always_read(self, entries: list[int]) -> None:
        """Makes these vocabulary entries permanent: their score is too high for training to lower it to 0."""
        with torch.no_grad():
            self.vocabulary[entries] = ALWAYS_READ


def starting_values(config: PruningConfig, n_layers: int) -> np.ndarray:
    """Initial value of the rule at each layer, (n_layers) float64; NaN = no pruning there."""
    if config.per_layer is not None:
        if len(config.per_layer) != n_layers:
            raise UserError(f"pruning: per_layer has {len(config.per_layer)} values, the model has {n_layers} layers")
        return np.array([np.nan if value is None else value for value in config.per_layer])
    if config.schedule == "spatten":
        return prune.spatten_schedule(config.final, n_layers)
    if config.schedule == "flat":
        return np.full(n_layers, config.final)
    if config.first is not None:
        numbers = prune.geometric_schedule(config.first, config.final, n_layers)
        return np.rint(numbers) if config.kind == "count" else numbers
    return prune.linear_schedule(config.final, n_layers)


def spare_first(mask: Tensor, batch: PackedBatch) -> Tensor:
    """The mask (n_tokens) with 1 for every sequence's first token, which is never pruned."""
    first = torch.from_numpy(batch.cu_seqlens[:-1]).to(mask.device)
    return mask.index_fill(0, first, 1.0)


def per_sequence_mean_one(values: Tensor, batch: PackedBatch, weights: Tensor | None = None) -> Tensor:
    """Divides positive numbers (n_tokens) by their sequence's mean, weighted by `weights` (n_tokens) if given."""
    owner = _owners(batch).to(values.device)
    weights = torch.ones_like(values) if weights is None else weights
    sums, counts = (values.new_zeros(batch.n_seqs).index_add(0, owner, part) for part in (weights * values, weights))
    return values * (counts / sums)[owner]


def _owners(batch: PackedBatch) -> Tensor:
    """Index of each token's sequence, (n_tokens)."""
    return torch.from_numpy(np.repeat(np.arange(batch.n_seqs), batch.lengths))
