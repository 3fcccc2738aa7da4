"""A number: a reading is the number itself."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ziggurat.data.tokenizer import Encoded
from ziggurat.errors import UserError
from ziggurat.policies.exits import LEARNED
from ziggurat.problems.metrics import pearson, spearman
from ziggurat.problems.problem import MEAN_SQUARE, Figures, Loss, Problem
from ziggurat.types import ProblemType

Range = tuple[float, float]


@dataclass(frozen=True)
class Number(Problem):
    """Predictions are numbers, (…) float64. They are never clipped to the labels' range; losses are counted in it."""

    limits: Range | None = None  # least and largest label; None = not known, and asking for a loss is a UserError

    kind = ProblemType.REGRESSION
    scores = ("change", LEARNED)
    compared_scores = ("change",)
    measures = ("pearson", "spearman")
    training_loss = MEAN_SQUARE
    surrogate = "correlation"

    def predictions(
        self, readings: np.ndarray, inputs: Encoded | None = None, rungs: np.ndarray | None = None
    ) -> np.ndarray:
        """The one output."""
        found: np.ndarray = readings[..., 0].astype(np.float64)
        return found

    def label(self, prediction: Any) -> float:
        """The number."""
        return float(prediction)

    def labels(self, predictions: np.ndarray) -> np.ndarray:
        """The numbers."""
        return predictions

    def label_targets(self, labels: np.ndarray) -> np.ndarray:
        """The number."""
        return labels.astype(np.float64)[:, None]

    @property
    def losses(self) -> Mapping[str, Loss]:
        """Errors as a share of the labels' range."""
        return {
            "absolute-error": Loss(self._error),
            "squared-error": Loss(lambda predictions, labels: self._error(predictions, labels) ** 2),
        }

    @property
    def differs(self) -> Loss:
        """The difference as a share of the labels' range."""
        return Loss(self._distance)

    @property
    def unit(self) -> str:
        """Of a loss times 100."""
        return "% of the labels' range" + (
            "" if self.limits is None else f" ({self.limits[0]:g} to {self.limits[1]:g})"
        )

    def unit_of(self, criterion: str | None) -> str:
        """What 100 times this loss is counted in."""
        return f"{self.unit}, squared" if criterion == "squared-error" else self.unit

    def apart(self, label: Any, other: Any) -> float:
        """The difference of two models' numbers, as `differs` has it."""
        return float(self._distance(np.array([label], dtype=np.float64), np.array([other], dtype=np.float64))[0])

    def same(self, label: Any, other: Any) -> bool:
        """Equal up to the rounding of their computation."""
        return math.isclose(label, other, rel_tol=1e-4, abs_tol=1e-4)

    def right(self, predictions: np.ndarray, truth: np.ndarray) -> np.ndarray:
        """Exactly the label."""
        found: np.ndarray = predictions == truth
        return found

    def keeps(self, predictions: np.ndarray, truth: np.ndarray | None) -> np.ndarray:
        """The nearer an exit is to the last rung, the better it is kept: 1 - their distance; labels are not read."""
        last = predictions[:, -1]
        near = [1 - self._distance(predictions[:, rung], last) for rung in range(predictions.shape[1] - 1)]
        return np.stack(near, axis=1) if near else np.zeros((len(predictions), 0))

    def check_labels(self, labels: np.ndarray) -> None:
        """UserError where the range of labels is not known, or one is outside of it."""
        self._error(labels, labels)

    def range_of(
        self, stated: tuple[float, float] | None, numbers: Sequence[np.ndarray], source: str
    ) -> tuple[float, float] | None:
        """UserError where nothing says it, there is but one number, or one is outside of what is stated."""
        if not numbers and stated is None:
            raise UserError(f"{source}: no labels say how far a regression's numbers go; give --label-range LOW,HIGH")
        found = np.concatenate([*numbers, stated or ()])
        low, high = float(found.min()), float(found.max())
        if low == high:
            raise UserError(f"{source}: every label is {low:g}; a regression needs different numbers")
        if stated is not None and (low, high) != stated:
            written = ",".join(f"{limit:g}" for limit in stated)
            raise UserError(f"{source}: has labels from {low:g} to {high:g}; --label-range {written} leaves some out")
        return low, high

    @property
    def learns_certainty(self) -> bool:
        """Where losses are bounded."""
        return self.limits is not None

    def figures(self, predictions: np.ndarray, truth: np.ndarray, rows: np.ndarray | slice = slice(None)) -> Figures:
        """Correlations and mean errors."""
        answered, true = predictions[rows], truth[rows]
        # Constant numbers have no correlation; 0 says that nothing is told apart, and is valid JSON.
        return {
            "pearson": float(np.nan_to_num(pearson(answered, true))),
            "spearman": float(np.nan_to_num(spearman(answered, true))),
            "mean_squared_error": float(((answered - true) ** 2).mean()),
            "mean_absolute_error": float(np.abs(answered - true).mean()),
        }

    def _distance(self, predictions: np.ndarray, other_predictions: np.ndarray) -> np.ndarray:
        """|difference| within the labels' range, as a share of it; UserError where the range is not known."""
        if self.limits is None:
            raise UserError(
                "the model does not know the range of its labels, without which no loss is bounded; train or adapt it "
                "with labelled rows, or with --label-range LOW,HIGH"
            )
        low, high = self.limits
        # No answer is farther from a label than labels are apart: that bounds the loss, and the answer stays as it is.
        return np.abs(np.clip(predictions, low, high) - np.clip(other_predictions, low, high)) / (high - low)

    def _error(self, predictions: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """The same of predictions and labels; UserError for a label outside of the range, which is never clipped."""
        losses = self._distance(predictions, labels)
        low, high = self.limits or (-math.inf, math.inf)
        outside = (labels < low) | (labels > high)
        if outside.any():
            raise UserError(
                f"label {labels[outside].flat[0]:g} is outside of the range {low:g} to {high:g} that the model was "
                "made for; make it with --label-range LOW,HIGH"
            )
        return losses
