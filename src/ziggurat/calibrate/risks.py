"""What an answer can cost: one loss per example, of the adaptive model against the full one, in a range that is known.

A guarantee bounds the mean of such a loss. The range belongs to the risk and not to the data: a bound for losses in
[0, 1] says nothing about losses in [-1, 1].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from ziggurat.errors import UserError


@dataclass(frozen=True)
class Risk:
    """A loss per example, and what a bound must know of it."""

    name: str
    low: float  # least loss that can occur
    high: float  # largest
    binary: bool  # only `low` and `high` occur, and they are 0 and 1
    needs_labels: bool
    loss: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]  # predictions, full, labels, (n) each → (n)

    def of(self, predictions: np.ndarray, full: np.ndarray, labels: np.ndarray | None = None) -> np.ndarray:
        """Losses (n) float64 of predictions (n) where the full model says full (n) and the truth is labels (n).

        ValueError where the lengths differ, or where labels are needed and None.
        """
        if labels is None and self.needs_labels:
            raise ValueError(f"risk {self.name!r} needs labels")
        truth = full if labels is None else labels
        shapes = {np.shape(one) for one in (predictions, full, truth)}
        if len(shapes) > 1 or np.ndim(full) != 1:
            raise ValueError(f"one prediction, one of the full model and one label per example, not shapes {shapes}")
        return np.asarray(self.loss(np.asarray(predictions), np.asarray(full), np.asarray(truth)), dtype=np.float64)


def bounded_difference(losses: np.ndarray, full_losses: np.ndarray) -> np.ndarray:
    """What is lost against the full model, (n) float64 in [-1, 1], of losses (n) and full_losses (n) in [0, 1].

    For regression and question answering: the caller divides the error by the largest that can occur. ValueError for a
    loss outside of [0, 1] or NaN: clipping it would bound another risk than the one that was asked for.
    """
    pair = np.asarray(losses, dtype=np.float64), np.asarray(full_losses, dtype=np.float64)
    if pair[0].shape != pair[1].shape:
        raise ValueError(f"{pair[0].shape} losses and {pair[1].shape} of the full model")
    for values in pair:
        if not ((values >= 0) & (values <= 1)).all():  # NaN is neither
            raise ValueError("losses must lie in [0, 1]; divide by the largest that can occur")
    return pair[0] - pair[1]


def difference_risk(loss: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Risk:
    """The risk of `bounded_difference` for a loss in [0, 1] of predictions (n) and labels (n)."""
    return Risk(
        "difference",
        low=-1,
        high=1,
        binary=False,
        needs_labels=True,
        loss=lambda predictions, full, labels: bounded_difference(loss(predictions, labels), loss(full, labels)),
    )


def graded_risk(name: str) -> Risk:
    """The risk of `bounded_difference` where losses in [0, 1] are what is given, in the place of predictions."""
    return Risk(
        name,
        low=-1,
        high=1,
        binary=False,
        needs_labels=False,
        loss=lambda losses, full, _: bounded_difference(losses, full),
    )


def _accuracy(predictions: np.ndarray, full: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return (predictions != labels).astype(np.float64) - (full != labels)


def _agreement(predictions: np.ndarray, full: np.ndarray, _: np.ndarray) -> np.ndarray:
    return predictions != full


def _harm(predictions: np.ndarray, full: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return (predictions != labels) & (full == labels)


# Their means: the drop in accuracy (what is put right counts against what is put wrong); the share of answers that
# differ; the share that was right and no longer is. Always accuracy <= harm <= agreement.
RISKS: Mapping[str, Risk] = MappingProxyType(
    {
        "accuracy": Risk("accuracy", low=-1, high=1, binary=False, needs_labels=True, loss=_accuracy),
        "agreement": Risk("agreement", low=0, high=1, binary=True, needs_labels=False, loss=_agreement),
        "harm": Risk("harm", low=0, high=1, binary=True, needs_labels=True, loss=_harm),
    }
)


def risk_by_name(name: str) -> Risk:
    """A risk of `RISKS`; UserError lists them."""
    if name not in RISKS:
        raise UserError(f"criterion {name!r} is not known; choose one of {', '.join(RISKS)}")
    return RISKS[name]
