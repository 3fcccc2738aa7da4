"""Losses as functions: logits in, a scalar out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional


def kl_divergence(teacher: Tensor, student: Tensor, reverse: bool = False) -> Tensor:
    """KL(teacher ‖ student), mean over rows; both (n, n_classes) logits. The teacher gets no gradient.

    `reverse` gives KL(student ‖ teacher), as MP eq. 3 and FastBERT's paper print it; FastBERT's code has the default.
    """
    p = functional.log_softmax(teacher.detach().float(), dim=-1)
    q = functional.log_softmax(student.float(), dim=-1)
    first, second = (q, p) if reverse else (p, q)
    return functional.kl_div(second, first, reduction="batchmean", log_target=True)


def exits_loss(every: Sequence[Tensor], labels: Tensor, label_weight: float = 0.0, reverse_kl: bool = False) -> Tensor:
    """Mean over the exits of their KL to the last rung (MP eq. 4, divided by L - 1), blended with cross-entropy.

    `every` holds each rung's logits (n, n_classes), the last being the teacher; `labels` (n), where -1 = unlabelled
    leaves a row to the KL alone.
    """
    *exits, teacher = every
    losses = [(1 - label_weight) * kl_divergence(teacher, student, reverse_kl) for student in exits]
    if label_weight and (labels >= 0).any():
        losses += [
            label_weight * functional.cross_entropy(student.float(), labels, ignore_index=-1) for student in exits
        ]
    return torch.stack(losses).sum() / len(exits)


def joint_loss(every: Sequence[Tensor], labels: Tensor) -> Tensor:
    """Cross-entropy of every rung's logits (n, n_classes), the k-th weighing k, over the weights' sum (PABEE)."""
    weights = range(1, len(every) + 1)
    losses = [
        weight * functional.cross_entropy(logits.float(), labels) for weight, logits in zip(weights, every, strict=True)
    ]
    return torch.stack(losses).sum() / sum(weights)
