"""Risks: losses per example of the adaptive model against the full one, with a known range.

A guarantee bounds the mean of such a loss. The range belongs to the risk, not to the data: a bound for losses in
[0, 1] does not hold for losses in [-1, 1].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

import numpy as np

from ziggurat.errors import UserError
from ziggurat.problems.classes import CLASSES
from ziggurat.problems.problem import Loss, Problem


@dataclass(frozen=True)
class Risk:
    """A loss per example, and the properties that a bound needs."""

    name: str
    low: float  # smallest possible loss
    high: float  # largest possible loss
    binary: bool  # losses are 0 or 1
    needs_labels: bool
    loss: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]  # predictions, full, labels, (n, …) each → (n)

    def of(self, predictions: np.ndarray, full: np.ndarray, labels: np.ndarray | None = None) -> np.ndarray:
        """Losses (n) float64 of predictions (n, …), given the full model's predictions and the labels, both (n, …).

        ValueError if shapes differ, or if labels are needed and None.
        """
        if labels is None and self.needs_labels:
            raise ValueError(f"risk {self.name!r} needs labels")
        truth = full if labels is None else labels
        shapes = {np.shape(array) for array in (predictions, full, truth)}
        if len(shapes) > 1 or np.ndim(full) < 1:
            raise ValueError(f"one prediction, one of the full model and one label per example, not shapes {shapes}")
        return np.asarray(self.loss(np.asarray(predictions), np.asarray(full), np.asarray(truth)), dtype=np.float64)


def bounded_difference(losses: np.ndarray, full_losses: np.ndarray) -> np.ndarray:
    """Loss minus the full model's loss, (n) float64 in [-1, 1], from losses (n) and full_losses (n) in [0, 1].

    The caller divides errors by the largest possible error. ValueError for a loss outside of [0, 1] or NaN: clipping
    would bound a different risk.
    """
    pair = np.asarray(losses, dtype=np.float64), np.asarray(full_losses, dtype=np.float64)
    if pair[0].shape != pair[1].shape:
        raise ValueError(f"{pair[0].shape} losses and {pair[1].shape} of the full model")
    for values in pair:
        if not ((values >= 0) & (values <= 1)).all():  # NaN is neither
            raise ValueError("losses must lie in [0, 1]; divide by the largest that can occur")
    return pair[0] - pair[1]


def difference_risk(loss: Callable[[np.ndarray, np.ndarray], np.ndarray], name: str = "difference") -> Risk:
    """The risk of `bounded_difference` for a loss in [0, 1] of predictions (n, …) and labels (n, …)."""
    return Risk(
        name,
        low=-1,
        high=1,
        binary=False,
        needs_labels=True,
        loss=lambda predictions, full, labels: bounded_difference(loss(predictions, labels), loss(full, labels)),
    )


def risks_of(problem: Problem) -> Mapping[str, Risk]:
    """All risks of a problem's answers, by name; the first is the default.

    For each loss of the problem there is its difference to the full model's loss, in which corrected errors count
    against new ones. "agreement" is the distance of answers from the full model's. "harm" is the loss that the full
    model does not have, without credit for corrected errors. For classes the means are the drop in accuracy, the share
    of answers that differ, and the share of answers that became wrong. There always accuracy <= harm <= agreement.
    """
    drops = {name: difference_risk(loss, name) for name, loss in problem.losses.items()}
    apart = problem.differs
    agreement = Risk("agreement", 0, 1, apart.binary, False, lambda predictions, full, _: apart(predictions, full))
    harm = Risk("harm", 0, 1, problem.loss.binary, True, partial(_harm, problem.loss))
    return MappingProxyType({**drops, "agreement": agreement, "harm": harm})


def risk_by_name(name: str | None, problem: Problem) -> Risk:
    """A risk of the problem, None = its default; UserError lists them."""
    known = risks_of(problem)
    if name is None:
        return next(iter(known.values()))
    if name not in known:
        raise UserError(f"criterion {name!r} is not known for {problem.kind}; choose one of {', '.join(known)}")
    return known[name]


def _harm(loss: Loss, predictions: np.ndarray, full: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return np.maximum(bounded_difference(loss(predictions, labels), loss(full, labels)), 0)


RISKS = risks_of(CLASSES)
