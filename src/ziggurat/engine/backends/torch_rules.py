"""Exit scores and pruning rules as tensor code, on the device of the logits and scores.

`policies.exits`, `policies.prune` and `policies.rules` are the specification. Scores agree up to rounding; decisions
agree unless a threshold equals a score up to rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from ziggurat.data.packing import PackedBatch, padded_slots
from ziggurat.policies.exits import LEARNED, WIDEST, exit_score
from ziggurat.policies.prune import SCALES, Keep, TokenRule, above, top_count, top_share
from ziggurat.policies.rules import ExitRule


def exits(rule: ExitRule, rung: int, history: Tensor, rows: np.ndarray) -> Tensor | None:
    """As `ExitRule.exits`: history (n, active rungs, n_classes) → (n) bool; None for a score without tensor code."""
    if rung == rule.thresholds.shape[-1]:
        return torch.ones(len(history), dtype=torch.bool, device=history.device)
    values = score_of(rule, rung, history)
    if values is None:
        return None
    thresholds = rule.thresholds[rung] if rule.thresholds.ndim == 1 else rule.thresholds[rows, rung]
    limit = torch.as_tensor(thresholds, dtype=torch.float64).to(values.device)
    return values >= limit if exit_score(rule.score).larger_is_surer else values <= limit


def score_of(rule: ExitRule, rung: int, history: Tensor) -> Tensor | None:
    """As `ExitRule.values`: (n) float64; None for a score without tensor code."""
    name, _, parameter = rule.score.partition("@")
    if rule.temperatures is not None:
        rungs = np.flatnonzero(rule.active[: rung + 1])[-history.shape[1] :]
        history = history.double() / torch.as_tensor(rule.temperatures[rungs, None]).to(history.device)
    if name == LEARNED and rule.deferral is not None:
        weights = torch.as_tensor(rule.deferral[rung], dtype=torch.float64).to(history.device)
        return 1 / (1 + torch.exp(-(_features(history) @ weights)))
    if name in _SCORES:
        return _SCORES[name](history)
    if name in _FAMILIES:
        return _FAMILIES[name](history, float(parameter))
    return None


def _entropy(logits: Tensor) -> Tensor:
    """Entropy over ln N of the last axis."""
    logs = logits.double().log_softmax(-1)
    return (-(logs.exp() * logs).sum(-1) / math.log(logits.shape[-1])).clamp(0.0, 1.0)


def _top_entropy(history: Tensor, n: float) -> Tensor:
    logits = history[:, -1]
    return _entropy(logits if n >= logits.shape[-1] else logits.topk(int(n), dim=-1).values)


def _margin(history: Tensor) -> Tensor:
    first, second = history[:, -1].double().softmax(-1).topk(2, dim=-1).values.unbind(-1)
    return first - second


def _agreeing(history: Tensor) -> Tensor:
    predictions = history.argmax(-1)
    return predictions[:, 1:] == predictions[:, :-1]


def _in_a_row(holds: Tensor) -> Tensor:
    """Number of true entries at the end of each row, without a break: (n, k) bool → (n) float64."""
    return holds.flip(-1).long().cumprod(-1).sum(-1).double()


def _change(history: Tensor) -> Tensor:
    if history.shape[1] < 2:
        return torch.full((len(history),), math.inf, dtype=torch.float64, device=history.device)
    numbers = history[:, -2:, 0].double()
    return (numbers[:, 1] - numbers[:, 0]).abs()


def _label_entropy(history: Tensor) -> Tensor:
    nearest = history[:, -1].double().abs().amin(-1)
    return _entropy(torch.stack([nearest, torch.zeros_like(nearest)], dim=-1))


_SCORES: Mapping[str, Callable[[Tensor], Tensor]] = {
    "entropy": lambda history: _entropy(history[:, -1]),
    "max-probability": lambda history: history[:, -1].double().softmax(-1).amax(-1),
    "margin": _margin,
    "agreement": lambda history: _agreeing(history).sum(-1).double(),
    "agreement-in-a-row": lambda history: _in_a_row(_agreeing(history)),
    "change": _change,
    "label-entropy": _label_entropy,
}
_FAMILIES: Mapping[str, Callable[[Tensor, float], Tensor]] = {
    "top-entropy": _top_entropy,
    "confident-in-a-row": lambda history, largest: _in_a_row(_entropy(history) <= largest),
}


def _features(history: Tensor) -> Tensor:
    """As `policies.exits.features`: (n, active rungs, n_classes) → (n, 4 + n_classes) float64."""
    logits = history[:, -1].double()
    if logits.shape[1] == 1:
        latest = logits[:, 0]
        moved = (latest - history[:, -2, 0].double()).abs() if history.shape[1] > 1 else torch.zeros_like(latest)
        return torch.stack([torch.ones_like(latest), latest, latest**2, moved, moved**2], dim=1)
    logs = logits.log_softmax(-1)
    first, second = logs.topk(2, dim=-1).values.unbind(-1)
    entropy = (-(logs.exp() * logs).sum(-1) / math.log(logs.shape[1])).clamp(0, 1)
    numbers = [torch.ones_like(first), first.exp() - second.exp(), (first - second).clamp(max=WIDEST), entropy]
    predicted = one_hot(logits.argmax(-1), logits.shape[1]).double()
    return torch.cat([torch.stack(numbers, dim=1), predicted], dim=1)


def keep_mask(rule: TokenRule, layer: int, scores: Tensor, batch: PackedBatch) -> Tensor | None:
    """As `TokenRule.keep_mask`: relative scores (n_tokens) → (n_tokens) bool; None for a rule without tensor code."""
    keep = _KEEPS.get(rule.keep)
    if keep is None:
        return None
    factor = torch.from_numpy(np.repeat(SCALES[rule.scale](batch.original), batch.lengths)).to(scores.device)
    return keep(float(rule.values[layer - 1]), scores.float().double() * factor, batch)


def _above(value: float, scores: Tensor, batch: PackedBatch) -> Tensor:
    return scores > value


def _top_share(value: float, scores: Tensor, batch: PackedBatch) -> Tensor:
    most = np.repeat(np.rint(value * batch.original), batch.lengths)
    return _rank_in_sequence(scores, batch) < torch.from_numpy(most).to(scores.device)


def _top_count(value: float, scores: Tensor, batch: PackedBatch) -> Tensor:
    return _rank_in_sequence(scores, batch) < value


_KEEPS: Mapping[Keep, Callable[[float, Tensor, PackedBatch], Tensor]] = {
    above: _above,
    top_share: _top_share,
    top_count: _top_count,
}


def _rank_in_sequence(scores: Tensor, batch: PackedBatch) -> Tensor:
    """As `policies.prune.rank_in_sequence`: (n_tokens) int64."""
    slots = torch.from_numpy(padded_slots(batch.lengths)).to(scores.device)
    longest = int(batch.lengths.max())
    grid = scores.new_full((batch.n_seqs * longest,), math.inf).index_copy(0, slots, -scores).view(-1, longest)
    grid[:, 0] = -math.inf
    order = grid.argsort(dim=1, stable=True)
    places = torch.arange(longest, device=scores.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, places).view(-1)[slots]
