"""Any of several labels, each by itself: a reading is a logit for each, those above 0 apply."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from ziggurat.data.tokenizer import Encoded
from ziggurat.policies.exits import softmax
from ziggurat.problems.metrics import accuracy, f1_macro, f1_micro
from ziggurat.problems.problem import BINARY_CROSS_ENTROPY, Figures, Json, Loss, Problem, check_every_label
from ziggurat.types import Label, ProblemType

if TYPE_CHECKING:
    from ziggurat.data.dataset import Dataset


class Labels(Problem):
    """Predictions are whether each label applies, (…, n_labels) bool."""

    kind = ProblemType.MULTI_LABEL
    scores = ("label-entropy",)
    compared_scores = ("label-entropy",)
    measures = ("accuracy", "f1-macro", "f1-micro")
    training_loss = BINARY_CROSS_ENTROPY
    surrogate = "F1"

    def predictions(
        self, readings: np.ndarray, inputs: Encoded | None = None, rungs: np.ndarray | None = None
    ) -> np.ndarray:
        """Logits above 0: probabilities above 0.5."""
        return readings > 0

    def probabilities(self, readings: np.ndarray) -> np.ndarray:
        """Sigmoid."""
        # The softmax of each logit and a 0, which neither overflows nor warns.
        return softmax(np.stack([readings, np.zeros_like(readings)], axis=-1))[..., 0]

    def label(self, prediction: Any) -> tuple[Label, ...]:
        """The names of the labels that apply."""
        return tuple(name for name, applies in zip(self.names, prediction, strict=True) if applies)

    def predicted(self, predictions: np.ndarray) -> np.ndarray:
        """1 for each label that applies, 0 for the others: (n, n_labels) int8."""
        return predictions.astype(np.int8)

    def true_label(self, truth: Any) -> tuple[Label, ...]:
        """The names of the labels that are 1."""
        return self.label(truth > 0)

    def label_fields(self, label: Any, probabilities: np.ndarray | None) -> Json:
        """The labels that apply, and all probabilities."""
        return super().label_fields(list(label), probabilities)

    def label_targets(self, labels: np.ndarray) -> np.ndarray:
        """1 and 0."""
        return labels.astype(np.float64)

    @property
    def losses(self) -> Mapping[str, Loss]:
        """The share of labels that are wrong; whether any is."""
        return _LOSSES

    @property
    def differs(self) -> Loss:
        """1 where two sets differ."""
        return _ANY_UNEQUAL

    def figures(self, predictions: np.ndarray, truth: np.ndarray, rows: np.ndarray | slice = slice(None)) -> Figures:
        """F1 over all labels together, and the mean of each label's, 0 for one that is neither answered nor true."""
        answered, true = predictions[rows], truth[rows] > 0
        return {
            "f1_micro": float(f1_micro(answered, true)),
            "f1_macro": float(f1_macro(answered, true)),
            "subset_accuracy": float(accuracy(answered, true)),
            "hamming_loss": float((answered != true).mean()),
        }

    def check_certifying(self, rows: Dataset) -> None:
        """UserError where a label never applies."""
        check_every_label(rows, rows.truth.max(axis=0) > 0)


_ANY_UNEQUAL = Loss(lambda sets, labels: (sets != labels).any(axis=-1).astype(np.float64), binary=True)
_LOSSES = MappingProxyType(
    {"hamming": Loss(lambda sets, labels: (sets != labels).mean(axis=-1)), "subset-accuracy": _ANY_UNEQUAL}
)
