"""How each problem is learned: what labels and a teacher ask of logits, and which state of a stage is the best."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ziggurat.encoder.span_model import IMPOSSIBLE
from ziggurat.types import Problem

Metric = Callable[[np.ndarray, np.ndarray], float]  # logits (n, …, n_outputs), labels (n, …) → larger is better


@dataclass(frozen=True)
class Criterion:
    """Torch's side of a problem; labels as `ziggurat.data.labels` has them."""

    loss: Callable[[Tensor, Tensor], Tensor]  # logits (n, n_outputs), labels of labelled rows → mean
    distance: Callable[[Tensor, Tensor, bool], Tensor]  # teacher and student (n, n_outputs), reversed → mean
    metric: Metric
    lead: Callable[[Tensor], Tensor]  # logits (n, n_outputs) → (n): the part of them that is the answer

    def blended(self, logits: Tensor, labels: Tensor, taught: Tensor, label_weight: float) -> Tensor:
        """(1 - w) x `taught` + w x the loss of the rows that have a label; w is the less the fewer of them have one."""
        known = labelled(labels)
        weight = label_weight * float(known.float().mean())
        if not weight:
            return taught
        return (1 - weight) * taught + weight * self.loss(logits.float()[known], labels[known])


def labelled(labels: Tensor) -> Tensor:
    """Which rows have a label, (n) bool."""
    if labels.is_floating_point():
        return ~labels.isnan()
    return labels.reshape(len(labels), -1)[:, 0] >= 0


def kl_divergence(teacher: Tensor, student: Tensor, reverse: bool = False) -> Tensor:
    """KL(teacher ‖ student), mean over rows; both (n, n_classes) logits. The teacher gets no gradient.

    `reverse` gives KL(student ‖ teacher), as MP eq. 3 and FastBERT's paper print it; FastBERT's code has the default.
    """
    p = functional.log_softmax(teacher.detach().float(), dim=-1)
    q = functional.log_softmax(student.float(), dim=-1)
    first, second = (q, p) if reverse else (p, q)
    return functional.kl_div(second, first, reduction="batchmean", log_target=True)


def binary_divergence(teacher: Tensor, student: Tensor, reverse: bool = False) -> Tensor:
    """The same where each output is a yes or no of its own (sigmoid), mean over rows and outputs."""
    # A label's yes against a logit of 0 is a choice between two classes.
    pairs = (torch.stack([logits, torch.zeros_like(logits)], dim=-1).flatten(0, -2) for logits in (teacher, student))
    return kl_divergence(*pairs, reverse)


def square_distance(teacher: Tensor, student: Tensor, reverse: bool = False) -> Tensor:
    """Mean square of the differences, the same in both directions. The teacher gets no gradient."""
    return functional.mse_loss(student.float(), teacher.detach().float())


def accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Share of rows whose largest logit is the label's: (n, n_classes), (n).

    Of several answers for each row, (n, any number, n_classes), the mean of their accuracies.
    """
    return float((labels == logits.argmax(axis=-1).T).mean())


def micro_f1(logits: np.ndarray, labels: np.ndarray) -> float:
    """F1 of all labels' yes together, over rows and labels: (n, n_labels) each, or (n, any number, n_labels)."""
    said, true = np.moveaxis(logits > 0, 0, -2), labels > 0
    both = (said & true).sum(axis=(-2, -1))
    return float((2 * both / np.maximum(said.sum(axis=(-2, -1)) + true.sum(), 1)).mean())


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
    """KL(teacher ‖ student) of starts and of ends, mean over both and rows: logits (n, 2, positions) each."""
    return kl_divergence(teacher.flatten(0, 1), student.flatten(0, 1), reverse)


def span_ends(logits: np.ndarray, labels: np.ndarray) -> float:
    """Share of starts and ends that are found: (n, 2, positions), or (n, any number, 2, positions), and (n, 2)."""
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


CRITERIA: Mapping[Problem, Criterion] = MappingProxyType(
    {
        Problem.SINGLE_LABEL: Criterion(functional.cross_entropy, kl_divergence, accuracy, _first_class),
        Problem.MULTI_LABEL: Criterion(_yes_or_no, binary_divergence, micro_f1, _each_label),
        Problem.REGRESSION: Criterion(_numbers, square_distance, negative_square, _number),
        Problem.QUESTION_ANSWERING: Criterion(_span_loss, span_divergence, span_ends, _best_span),
    }
)
CLASSES = CRITERIA[Problem.SINGLE_LABEL]
