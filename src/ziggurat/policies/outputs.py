"""What the logits of a model's rungs stand for, problem by problem: answers, their losses, and how sure they can be.

One record for each `ziggurat.types.Problem`; whoever reads logits asks it, and nobody else asks which problem it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np

from ziggurat.errors import UserError
from ziggurat.policies.exits import FAMILIES, LEARNED, SPAN_ENTROPY, softmax
from ziggurat.types import Label, Problem

Range = tuple[float, float]


@dataclass(frozen=True)
class Loss:
    """What two answers, or an answer and its label, are apart."""

    of: Callable[[np.ndarray, np.ndarray], np.ndarray]  # (n, …) each → (n) in [0, 1]
    binary: bool = False  # nothing between 0 and 1 occurs

    def __call__(self, predictions: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """(n) float64 in [0, 1]."""
        return self.of(predictions, labels)


@dataclass(frozen=True)
class Output:
    """What is done with logits (…, n_outputs), and with the predictions that they become."""

    problem: Problem
    predictions: Callable[[np.ndarray], np.ndarray]  # → (…) classes or numbers, (…, n_labels) bool
    probabilities: Callable[[np.ndarray], np.ndarray] | None  # → (…, n_outputs); None = it has none
    label: Callable[[Any, Sequence[Label]], Any]  # one prediction and the outputs' names → as a label column has it
    losses: Mapping[str, Loss]  # by name; the first is what is lost unless another is asked for
    differs: Loss  # how far two models' predictions are apart
    scores: tuple[str, ...]  # exit scores, and families of them; the first is the default
    tried: tuple[str, ...]  # of these, what calibration tries
    unit: str = "points"  # of a loss times 100
    surrogate: str | None = None  # what people measure instead that is no mean of losses; None = the same

    @property
    def loss(self) -> Loss:
        """The loss that is meant unless another is asked for."""
        return next(iter(self.losses.values()))

    def unit_of(self, criterion: str | None) -> str:
        """What 100 times this loss is counted in; None = the default loss."""
        return f"{self.unit}, squared" if criterion == "squared-error" else self.unit

    def apart(self, label: Any, other: Any) -> float:
        """What two models' labels of one input are apart, in [0, 1], as `differs` has it for predictions."""
        numbers = isinstance(label, float) and isinstance(other, float)
        return float(self.differs(np.array([label]), np.array([other]))[0]) if numbers else float(label != other)

    def same(self, label: Any, other: Any) -> bool:
        """Whether two labels are the same answer: of numbers, up to the rounding of their computation."""
        if isinstance(label, float) and isinstance(other, float):
            return math.isclose(label, other, rel_tol=1e-4, abs_tol=1e-4)
        return bool(label == other)

    def refuse_score(self, score: str) -> None:
        """UserError for an exit score that reads other outputs."""
        if score.partition("@")[0] not in self.scores:
            known = ", ".join(
                f"{name}@{FAMILIES[name].parameter}" if name in FAMILIES else name for name in self.scores
            )
            raise UserError(f"exit score {score!r} is not for a model of {self.problem}; it can have: {known}")


def output_of(problem: str, label_range: Sequence[float] | None = None) -> Output:
    """The record of a problem. Of a regression losses are counted within `label_range`, beyond which nothing is lost.

    Answers are what the model says, wherever that is. None = asking for a loss is a UserError: nothing bounds it.
    """
    limits = None if label_range is None else (float(label_range[0]), float(label_range[1]))
    return _OUTPUTS[Problem(problem)](limits)


def _classes(_: Range | None) -> Output:
    return Output(
        Problem.SINGLE_LABEL,
        predictions=lambda logits: logits.argmax(axis=-1),
        probabilities=softmax,
        label=lambda prediction, names: names[int(prediction)],
        losses={"accuracy": Loss(_unequal, binary=True)},
        differs=Loss(_unequal, binary=True),
        scores=(
            "entropy",
            "max-probability",
            "margin",
            "agreement",
            "agreement-in-a-row",
            LEARNED,
            "top-entropy",
            "confident-in-a-row",
        ),
        tried=("entropy", "max-probability", "margin"),
    )


def _labels(_: Range | None) -> Output:
    return Output(
        Problem.MULTI_LABEL,
        predictions=lambda logits: logits > 0,  # the same as a probability above 0.5
        probabilities=_sigmoid,
        label=lambda prediction, names: tuple(name for name, yes in zip(names, prediction, strict=True) if yes),
        losses={"hamming": Loss(_hamming), "subset-accuracy": Loss(_any_unequal, binary=True)},
        differs=Loss(_any_unequal, binary=True),
        scores=("label-entropy",),
        tried=("label-entropy",),
        surrogate="F1",
    )


def _number(limits: Range | None) -> Output:
    return Output(
        Problem.REGRESSION,
        predictions=lambda logits: logits[..., 0].astype(np.float64),
        probabilities=None,
        label=lambda prediction, _: float(prediction),
        losses={
            "absolute-error": Loss(partial(_error, limits)),
            "squared-error": Loss(lambda predictions, labels: _error(limits, predictions, labels) ** 2),
        },
        differs=Loss(partial(_apart, limits)),
        scores=("change", LEARNED),
        tried=("change",),
        unit="% of the labels' range" + ("" if limits is None else f" ({limits[0]:g} to {limits[1]:g})"),
        surrogate="correlation",
    )


def _spans(_: Range | None) -> Output:
    """Its predictions are numbers of answers for `differs`, and losses that were counted elsewhere for all others.

    Answers come of windows and not of logits (`policies.spans`), and what they lose of their texts
    (`report.squad_metrics`).
    """
    return Output(
        Problem.QUESTION_ANSWERING,
        predictions=_no_predictions,
        probabilities=None,
        label=lambda prediction, _: str(prediction),
        losses={"f1": Loss(_counted), "exact-match": Loss(_counted)},
        differs=Loss(_unequal, binary=True),
        scores=(SPAN_ENTROPY,),
        tried=(SPAN_ENTROPY,),
    )


def _no_predictions(logits: np.ndarray) -> np.ndarray:
    raise ValueError("answers that are spans are not in the logits of a text alone")


def _counted(losses: np.ndarray, _: np.ndarray) -> np.ndarray:
    return losses


def _unequal(predictions: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return (predictions != labels).astype(np.float64)


def _any_unequal(predictions: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return (predictions != labels).any(axis=-1).astype(np.float64)


def _hamming(predictions: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The share of labels that are wrong."""
    return (predictions != labels).mean(axis=-1)


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    # Of each label's yes against a logit of 0, which neither overflows nor warns.
    return softmax(np.stack([logits, np.zeros_like(logits)], axis=-1))[..., 0]


def _apart(limits: Range | None, predictions: np.ndarray, others: np.ndarray) -> np.ndarray:
    """|difference| within the labels' range, as a share of it; UserError where the range is not known."""
    if limits is None:
        raise UserError(
            "the model does not know the range of its labels, without which no loss is bounded; train or adapt it with "
            "labelled rows, or with --label-range LOW,HIGH"
        )
    low, high = limits
    # No answer is farther from a label than labels are apart: that bounds the loss, and the answer stays as it is.
    return np.abs(np.clip(predictions, low, high) - np.clip(others, low, high)) / (high - low)


def _error(limits: Range | None, predictions: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The same of predictions and labels; UserError for a label outside of the range, which is never clipped."""
    losses = _apart(limits, predictions, labels)
    low, high = limits or (-np.inf, np.inf)
    outside = (labels < low) | (labels > high)
    if outside.any():
        raise UserError(
            f"label {labels[outside].flat[0]:g} is outside of the range {low:g} to {high:g} that the model was made "
            "for; make it with --label-range LOW,HIGH"
        )
    return losses


_OUTPUTS: Mapping[Problem, Callable[[Range | None], Output]] = MappingProxyType(
    {
        Problem.SINGLE_LABEL: _classes,
        Problem.MULTI_LABEL: _labels,
        Problem.REGRESSION: _number,
        Problem.QUESTION_ANSWERING: _spans,
    }
)
CLASSES = output_of(Problem.SINGLE_LABEL)  # what most models have
