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


def softened_kl(teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
    """T² KL(teacher ‖ student) of logits (n, n_classes) divided by the temperature T, mean over rows.

    T² keeps the gradients' size whatever T is (Hinton et al. 2015).
    """
    return temperature**2 * kl_divergence(teacher.float() / temperature, student.float() / temperature)


def answers_loss(
    teacher: Tensor, student: Tensor, labels: Tensor, temperature: float = 1.0, label_weight: float = 0.0
) -> Tensor:
    """What a student learns from its teacher's logits (n, n_classes) and from labels: (1 - w) x `softened_kl` + w x CE.

    `labels` (n), where -1 = unlabelled leaves a row to the KL alone (Hinton et al. 2015; PKD with w = 1 - α).
    """
    loss = (1 - label_weight) * softened_kl(teacher, student, temperature)
    if label_weight and (labels >= 0).any():
        loss = loss + label_weight * functional.cross_entropy(student.float(), labels, ignore_index=-1)
    return loss


def states_loss(teacher: Sequence[Tensor], student: Sequence[Tensor]) -> Tensor:
    """Mean square between hidden states, pair by pair (n_tokens, d), mean over the pairs (TinyBERT eq. 8 and 9).

    TinyBERT adds the pairs up: its weight is ours over their number.
    """
    pairs = zip(teacher, student, strict=True)
    return torch.stack([functional.mse_loss(mine.float(), theirs.detach().float()) for theirs, mine in pairs]).mean()


def cosine_loss(teacher: Tensor, student: Tensor) -> Tensor:
    """1 - cosine between hidden states (n_tokens, d), mean over the tokens (DistilBERT)."""
    return 1 - functional.cosine_similarity(student.float(), teacher.detach().float(), dim=-1).mean()


def patience_loss(teacher: Sequence[Tensor], student: Sequence[Tensor]) -> Tensor:
    """Mean square between states of first tokens (n, d) that were scaled to length 1, mean over the pairs (PKD).

    PKD's paper adds up over the width and the pairs; its code takes the mean, as this does, for weights of 10 … 1000.
    """
    theirs, mine = ([functional.normalize(one.float(), dim=-1) for one in side] for side in (teacher, student))
    return states_loss(theirs, mine)


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


def distillation_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    student_embeddings: Tensor,
    teacher_embeddings: Tensor,
    temperature: float = 1.0,
    embedding_weight: float = 1.0,
) -> Tensor:
    """What a pruned INT8 student learns from its float teacher (LTP 4.6): logits, and the embedding layer's output.

    T² KL(teacher ‖ student) of logits (n, n_classes) divided by the temperature T, mean over rows, plus
    `embedding_weight` x the squared difference of the states (n_tokens, d) that enter the first layer, mean over tokens
    and width. Hence the teacher must have the student's width and tokenizer. The teacher gets no gradient. ValueError
    for shapes that differ, which would broadcast.

    LTP trains on (1 - a) x the original loss + a x this one. It prints neither a, nor the temperature, nor either
    distance: KL and mean squares are ours, T² (gradients keep their size whatever T is) is Hinton et al. (2015).
    """
    pairs = {"logits": (student_logits, teacher_logits), "embeddings": (student_embeddings, teacher_embeddings)}
    for name, (student, teacher) in pairs.items():
        if student.shape != teacher.shape:
            raise ValueError(f"{name} of student {tuple(student.shape)} and teacher {tuple(teacher.shape)} differ")
    logits = softened_kl(teacher_logits, student_logits, temperature)
    distance = functional.mse_loss(student_embeddings.float(), teacher_embeddings.detach().float())
    return logits + embedding_weight * distance
