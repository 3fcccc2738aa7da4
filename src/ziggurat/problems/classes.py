"""One of several classes: a reading is a logit for each, the answer the largest of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from ziggurat.data.tokenizer import Encoded
from ziggurat.policies.exits import LEARNED, softmax
from ziggurat.problems.metrics import accuracy_interval
from ziggurat.problems.problem import CROSS_ENTROPY, Figures, Json, Loss, Problem, check_every_label
from ziggurat.types import Label, ProblemType

if TYPE_CHECKING:
    from ziggurat.data.dataset import Dataset


class Classes(Problem):
    """Predictions are indices of classes, (…) int64."""

    kind = ProblemType.SINGLE_LABEL
    scores = (
        "entropy",
        "max-probability",
        "margin",
        "agreement",
        "agreement-in-a-row",
        LEARNED,
        "top-entropy",
        "confident-in-a-row",
    )
    compared_scores = ("entropy", "max-probability", "margin")
    measures = ("accuracy", "f1", "f1-macro", "f1-micro", "mcc", "pearson", "spearman")
    training_loss = CROSS_ENTROPY
    lacks = frozenset()

    def predictions(
        self, readings: np.ndarray, inputs: Encoded | None = None, rungs: np.ndarray | None = None
    ) -> np.ndarray:
        """The largest logit's class."""
        found: np.ndarray = readings.argmax(axis=-1)
        return found

    def probabilities(self, readings: np.ndarray) -> np.ndarray:
        """Softmax."""
        return softmax(readings)

    def label(self, prediction: Any) -> Label:
        """The class's name."""
        return self.names[int(prediction)]

    def labels(self, predictions: np.ndarray) -> np.ndarray:
        """The classes' names."""
        return np.array(self.names)[predictions]

    def label_fields(self, label: Any, probabilities: np.ndarray | None) -> Json:
        """The class, its probability, and all probabilities."""
        fields = super().label_fields(label, probabilities)
        if probabilities is None:
            return fields
        return {"label": label, "probability": float(probabilities.max()), "probabilities": fields["probabilities"]}

    def label_targets(self, labels: np.ndarray) -> np.ndarray:
        """1 for the class, 0 for all others."""
        targets: np.ndarray = np.eye(len(self.names))[labels]
        return targets

    @property
    def losses(self) -> Mapping[str, Loss]:
        """0 where a prediction is right, 1 where it is wrong."""
        return _LOSSES

    @property
    def differs(self) -> Loss:
        """1 where two classes differ."""
        return _UNEQUAL

    def figures(self, predictions: np.ndarray, truth: np.ndarray, rows: np.ndarray | slice = slice(None)) -> Figures:
        """Accuracy with Wilson's interval."""
        right = predictions[rows] == truth[rows]
        low, high = accuracy_interval(int(right.sum()), len(right))
        return {"accuracy": float(right.mean()), "accuracy_low": low, "accuracy_high": high}

    def distinct(self, scores: Sequence[str], width: int) -> list[str]:
        """With two classes each of the tried scores is a function of the margin, so that the first stands for all."""
        if width > 2:
            return list(scores)
        alike = [score for score in scores if score in self.compared_scores]
        return [score for score in scores if score not in alike[1:]]

    def check_certifying(self, rows: Dataset) -> None:
        """UserError where a class does not occur."""
        check_every_label(rows, np.isin(np.arange(len(rows.label_names)), rows.truth))


_UNEQUAL = Loss(lambda predictions, labels: (predictions != labels).astype(np.float64), binary=True)
_LOSSES = MappingProxyType({"accuracy": _UNEQUAL})
CLASSES = Classes()  # what most models answer, without the names
