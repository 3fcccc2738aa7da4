"""Losses: functions of logits that return a scalar, and the losses of each problem."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ziggurat.encoder.torch.model import IMPOSSIBLE
from ziggurat.problems.problem import BINARY_CROSS_ENTROPY, CROSS_ENTROPY, MEAN_SQUARE, SPAN_CROSS_ENTROPY
from ziggurat.problems.registry import problem_named
from ziggurat.types import ProblemType

Metric = Callable[[np.ndarray, np.ndarray], float]  # logits (n, …, n_outputs), labels (n, …) → larger is better


@dataclass(frozen=True)
class Criterion:
    """Losses and metric of a problem, in torch; labels as in `ziggurat.data.labels`."""

    loss: Callable[[Tensor, Tensor], Tensor]  # logits (n, n_outputs), labels of labelled rows → mean
    distance: Callable[[Tensor, Tensor, bool], Tensor]  # teacher and student (n, n_outputs), reverse → mean
    metric: Metric
    lead: Callable[
        [Tensor], Tensor
    ]  # logits (n, n_outputs) → (n): size of the answer, whose gradient is the importance of tokens

    def blended(self, logits: Tensor, labels: Tensor, teacher_loss: Tensor, label_weight: float) -> Tensor:
        """(1 - w) x `teacher_loss` + w x loss of labelled rows, with w = `label_weight` x share of labelled rows."""
        has_label = labelled(labels)
        weight = label_weight * float(has_label.float().mean())
        if not weight:
            return teacher_loss
        return (1 - weight) * teacher_loss + weight * self.loss(logits.float()[has_label], labels[has_label])


def labelled(labels: Tensor) -> Tensor:
    """True for rows with a label, (n) bool."""
    if labels.is_floating_point():
        return ~labels.isnan()
    return labels.reshape(len(labels), -1)[:, 0] >= 0


def kl_divergence(teacher: Tensor, student: Tensor, reverse: bool = False) -> Tensor:
    """KL(teacher ‖ student), mean over rows; both (n, n_classes) logits. The teacher gets no gradient.

    `reverse` gives KL(student ‖ teacher), as in MP eq. 3 and FastBERT's paper; FastBERT's code has the default.
    """
    p = functional.log_softmax(teacher.detach().float(), dim=-1)
    q = functional.log_softmax(student.float(), dim=-1)
    first, second = (q, p) if reverse else (p, q)
    return functional.kl_div(second, first, reduction="batchmean", log_target=True)


def binary_divergence(teacher: Tensor, student: Tensor, reverse: bool = False) -> Tensor:
    """`kl_divergence` for independent binary outputs (sigmoid), mean over rows and outputs."""
    # A sigmoid is a softmax over the logit and 0.
    taught, learned = (
        torch.stack([logits, torch.zeros_like(logits)], dim=-1).flatten(0, -2) for logits in (teacher, student)
    )
    return kl_divergence(taught, learned, reverse)


def square_distance(teacher: Tensor, student: Tensor, reverse: bool = False) -> Tensor:
    """Mean squared difference, the same in both directions. The teacher gets no gradient."""
    return functional.mse_loss(student.float(), teacher.detach().float())


def accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Share of rows whose largest logit is the label's: (n, n_classes), (n).

    With several answers per row, (n, any number, n_classes), the mean of their accuracies.
    """
    return float((labels == logits.argmax(axis=-1).T).mean())


def micro_f1(logits: np.ndarray, labels: np.ndarray) -> float:
    """Micro F1 over all rows and labels: (n, n_labels) each, or logits (n, any number, n_labels)."""
    predicted, true = np.moveaxis(logits > 0, 0, -2), labels > 0
    hits = (predicted & true).sum(axis=(-2, -1))
    return float((2 * hits / np.maximum(predicted.sum(axis=(-2, -1)) + true.sum(), 1)).mean())


def negative_square(logits: np.ndarray, labels: np.ndarray) -> float:
    """Minus the mean squared error: (n, 1), or (n, any number, 1), and labels (n)."""
    return -float(((logits[..., 0].T - labels) ** 2).mean())


def _numbers(logits: Tensor, labels: Tensor) -> Tensor:
    return functional.mse_loss(logits[:, 0], labels.to(logits.dtype))


def _yes_or_no(logits: Tensor, labels: Tensor) -> Tensor:
    return functional.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype))


def _span_loss(logits: Tensor, labels: Tensor) -> Tensor:
    return functional.cross_entropy(logits.flatten(0, 1), labels.flatten())


def span_divergence(teacher: Tensor, student: Tensor, reverse: bool = False) -> Tensor:
    """KL(teacher ‖ student) of start and end distributions, mean over both and over rows: (n, 2, positions) each."""
    return kl_divergence(teacher.flatten(0, 1), student.flatten(0, 1), reverse)


def span_ends(logits: np.ndarray, labels: np.ndarray) -> float:
    """Share of correct starts and ends: (n, 2, positions), or (n, any number, 2, positions), and (n, 2)."""
    return float((np.moveaxis(logits.argmax(axis=-1), 0, -2) == labels).mean())


def _first_class(logits: Tensor) -> Tensor:
    return logits.amax(dim=1) - logits.mean(dim=1)


def _each_label(logits: Tensor) -> Tensor:
    return logits.abs().sum(dim=1)


def _number(logits: Tensor) -> Tensor:
    return logits[:, 0]


def _best_span(logits: Tensor) -> Tensor:
    possible = (logits > IMPOSSIBLE / 2).to(logits.dtype)
    mean = (logits * possible).sum(dim=2) / possible.sum(dim=2)
    return (logits.amax(dim=2) - mean).sum(dim=1)


CRITERIA: Mapping[str, Criterion] = MappingProxyType(  # by `Problem.training_loss`
    {
        CROSS_ENTROPY: Criterion(functional.cross_entropy, kl_divergence, accuracy, _first_class),
        BINARY_CROSS_ENTROPY: Criterion(_yes_or_no, binary_divergence, micro_f1, _each_label),
        MEAN_SQUARE: Criterion(_numbers, square_distance, negative_square, _number),
        SPAN_CROSS_ENTROPY: Criterion(_span_loss, span_divergence, span_ends, _best_span),
    }
)
CLASSES = CRITERIA[CROSS_ENTROPY]


def criterion_of(problem: ProblemType) -> Criterion:
    """How the answers to a problem are trained and chosen."""
    return CRITERIA[problem_named(problem).training_loss]


def softened(teacher: Tensor, student: Tensor, temperature: float, criterion: Criterion = CLASSES) -> Tensor:
    """T² KL(teacher ‖ student) of logits (n, n_outputs) divided by the temperature T, mean over rows.

    T² makes the gradients' size independent of T (Hinton et al. 2015). For a regression, whose distance is the mean
    squared error, T has no effect.
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
    """A student's loss against teacher logits (n, n_outputs) and labels: (1 - w) x `softened` + w x loss.

    Rows without a label learn from the teacher only (Hinton et al. 2015; PKD with w = 1 - α).
    """
    return criterion.blended(student, labels, softened(teacher, student, temperature, criterion), label_weight)


def states_loss(teacher: Sequence[Tensor], student: Sequence[Tensor]) -> Tensor:
    """Mean squared error of hidden states, mean over the pairs (n_tokens, d) (TinyBERT eq. 8 and 9).

    TinyBERT sums over the pairs: its weight is the weight here divided by their number.
    """
    pairs = zip(teacher, student, strict=True)
    return torch.stack([functional.mse_loss(s.float(), t.detach().float()) for t, s in pairs]).mean()


def cosine_loss(teacher: Tensor, student: Tensor) -> Tensor:
    """1 - cosine between hidden states (n_tokens, d), mean over the tokens (DistilBERT)."""
    return 1 - functional.cosine_similarity(student.float(), teacher.detach().float(), dim=-1).mean()


def patience_loss(teacher: Sequence[Tensor], student: Sequence[Tensor]) -> Tensor:
    """Mean squared error of first tokens' states (n, d) scaled to length 1, mean over the pairs (PKD).

    PKD's paper sums over width and pairs; its code takes the mean, as here, with weights of 10 … 1000.
    """
    wanted, found = ([functional.normalize(states.float(), dim=-1) for states in side] for side in (teacher, student))
    return states_loss(wanted, found)


def exits_loss(
    all_logits: Sequence[Tensor],
    labels: Tensor,
    label_weight: float = 0.0,
    reverse_kl: bool = False,
    criterion: Criterion = CLASSES,
) -> Tensor:
    """Mean over the exits of their KL to the last rung (MP eq. 4, divided by L - 1), blended with the labels' loss.

    `all_logits` has each rung's logits (n, n_outputs); the last is the teacher. Rows without a label have only the KL.
    For a regression the mean squared error replaces the KL.
    """
    *exits, teacher = all_logits
    losses = [
        criterion.blended(student, labels, criterion.distance(teacher, student, reverse_kl), label_weight)
        for student in exits
    ]
    return torch.stack(losses).mean()


def joint_loss(losses: Sequence[Tensor], depth_weight: float = 1.0) -> Tensor:
    """Weighted mean of all rungs' losses: the k-th has weight k to the power of `depth_weight` (PABEE: 1)."""
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
    """Loss of a pruned INT8 student against its float teacher (LTP 4.6): on logits and on the embeddings' output.

    T² KL(teacher ‖ student) of logits (n, n_classes) divided by the temperature T, mean over rows, plus
    `embedding_weight` x the squared difference of the states (n_tokens, d) that enter the first layer, mean over tokens
    and width. So the teacher must have the student's width and tokenizer. The teacher gets no gradient. ValueError
    for shapes that differ, which would broadcast.

    LTP trains on (1 - a) x the original loss + a x this loss. It prints neither a, nor the temperature, nor the two
    distances: KL and mean squared error are choices made here, T² is that of Hinton et al. (2015).
    """
    pairs = {"logits": (student_logits, teacher_logits), "embeddings": (student_embeddings, teacher_embeddings)}
    for name, (student, teacher) in pairs.items():
        if student.shape != teacher.shape:
            raise ValueError(f"{name} of student {tuple(student.shape)} and teacher {tuple(teacher.shape)} differ")
    logits = softened(teacher_logits, student_logits, temperature, criterion)
    distance = functional.mse_loss(student_embeddings.float(), teacher_embeddings.detach().float())
    return logits + embedding_weight * distance
