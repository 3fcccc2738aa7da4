"""Fitting the learned exit score, rung by rung, on rows that certify nothing."""

from __future__ import annotations

import numpy as np

from ziggurat.policies.defer import features
from ziggurat.policies.outputs import CLASSES, Output
from ziggurat.types import Problem

_PENALTY = 1.0  # of half the squared weights, in rows: weak beside some hundred rows


def fit_certainty(every: np.ndarray, output: Output) -> np.ndarray:
    """Weights (n_rungs - 1, 5) of `policies.defer.learned` of a regression from what all rungs said, (n, n_rungs, 1).

    The more certain a rung, the nearer it is to the last: 1 - their difference as a share of the labels' range.
    """
    numbers = output.predictions(every)
    certain = [1 - output.differs(numbers[:, rung], numbers[:, -1]) for rung in range(every.shape[1] - 1)]
    found = [_logistic(features(every[:, : rung + 1]), wanted) for rung, wanted in enumerate(certain)]
    return np.array(found).reshape(-1, 4 + every.shape[2])


def fit_deferral(every: np.ndarray, labels: np.ndarray | None, output: Output = CLASSES) -> np.ndarray:
    """Weights (n_rungs - 1, 4 + n_classes) of `policies.defer.learned` from what all rungs said, (n, n_rungs, C).

    An answer is worth keeping if the last rung's would not be better: by labels (n) where it is right, or the last is
    wrong too; without labels where both are the same. Of a regression see `fit_certainty`, which reads no labels.
    """
    if output.problem is Problem.REGRESSION:
        return fit_certainty(every, output)
    answers = every.argmax(axis=2)
    right = answers == (answers[:, -1] if labels is None else labels)[:, None]
    keep = right | ~right[:, -1:]
    found = [
        _logistic(features(every[:, : rung + 1]), keep[:, rung].astype(np.float64))
        for rung in range(every.shape[1] - 1)
    ]
    return np.array(found).reshape(-1, 4 + every.shape[2])


def _logistic(table: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Weights (m) with which features (n, m) say the shares `wanted` (n) in [0, 1]."""
    from scipy.optimize import minimize
    from scipy.special import expit

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        said = table @ weights
        value = np.logaddexp(0, said).sum() - wanted @ said + _PENALTY / 2 * (weights @ weights)
        return float(value), table.T @ (expit(said) - wanted) + _PENALTY * weights

    found: np.ndarray = minimize(loss, np.zeros(table.shape[1]), jac=True, method="L-BFGS-B").x
    return found
