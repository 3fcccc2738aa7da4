"""Losses as functions: logits in, a scalar out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from ziggurat.train.criteria import CLASSES, Criterion


def softened(teacher: Tensor, student: Tensor, temperature: float, criterion: Criterion = CLASSES) -> Tensor:
    """T² KL(teacher ‖ student) of logits (n, n_outputs) divided by the temperature T, mean over rows.

    T² keeps the gradients' size whatever T is (Hinton et al. 2015). Of a regression, whose distance is the mean square,
    T plays no part.
    """
    return temperature**2 * criterion.distance(teacher.float() / temperature, student.float() / temperature, False)


def answers_loss(
    teacher: Tensor,
    student: Tensor,
    labels: Tensor,
    temperature: float = 1.0,
    label_weight: float = 0.0,
    criterion: Criterion = CLASSES,
) -> Tensor:
    """What a student learns from its teacher's logits (n, n_outputs) and from labels: (1 - w) x `softened` + w x loss.

    Rows without a label are left to the teacher alone (Hinton et al. 2015; PKD with w = 1 - α).
    """
    return criterion.blended(student, labels, softened(teacher, student, temperature, criterion), label_weight)


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


def exits_loss(
    every: Sequence[Tensor],
    labels: Tensor,
    label_weight: float = 0.0,
    reverse_kl: bool = False,
    criterion: Criterion = CLASSES,
) -> Tensor:
    """Mean over the exits of their KL to the last rung (MP eq. 4, divided by L - 1), blended with the labels' loss.

    `every` holds each rung's logits (n, n_outputs), the last being the teacher; rows without a label are left to the KL
    alone. Of a regression the distance is the mean square in the place of the KL.
    """
    *exits, teacher = every
    losses = [
        criterion.blended(student, labels, criterion.distance(teacher, student, reverse_kl), label_weight)
        for student in exits
    ]
    return torch.stack(losses).mean()


def joint_loss(losses: Sequence[Tensor], depth_weight: float = 1.0) -> Tensor:
    """The mean of all rungs' losses, in which the k-th weighs k to the power of `depth_weight` (PABEE: 1)."""
    weights = [rung**depth_weight for rung in range(1, len(losses) + 1)]
    return torch.stack([weight * loss for weight, loss in zip(weights, losses, strict=True)]).sum() / sum(weights)


def distillation_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    student_embeddings: Tensor,
    teacher_embeddings: Tensor,
    temperature: float = 1.0,
    embedding_weight: float = 1.0,
    criterion: Criterion = CLASSES,
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
    logits = softened(teacher_logits, student_logits, temperature, criterion)
    distance = functional.mse_loss(student_embeddings.float(), teacher_embeddings.detach().float())
    return logits + embedding_weight * distance
