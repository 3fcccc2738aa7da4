"""Fitting the learned exit score, rung by rung, on rows that certify nothing."""

from __future__ import annotations

import numpy as np

from ziggurat.policies.defer import features

_PENALTY = 1.0  # of half the squared weights, in rows: weak beside some hundred rows


def fit_deferral(every: np.ndarray, labels: np.ndarray | None) -> np.ndarray:
    """Weights (n_rungs - 1, 4 + n_classes) of `policies.defer.learned` from what all rungs said, (n, n_rungs, C).

    An answer is worth keeping if the last rung's would not be better: by labels (n) where it is right, or the last is
    wrong too; without labels where both are the same.
    """
    answers = every.argmax(axis=2)
    right = answers == (answers[:, -1] if labels is None else labels)[:, None]
    keep = right | ~right[:, -1:]
    found = [_logistic(features(every[:, rung]), keep[:, rung]) for rung in range(every.shape[1] - 1)]
    return np.array(found).reshape(-1, 4 + every.shape[2])


def _logistic(table: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    from scipy.optimize import minimize
    from scipy.special import expit

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        said = table @ weights
        value = np.logaddexp(0, said).sum() - said[wanted].sum() + _PENALTY / 2 * (weights @ weights)
        return float(value), table.T @ (expit(said) - wanted) + _PENALTY * weights

    found: np.ndarray = minimize(loss, np.zeros(table.shape[1]), jac=True, method="L-BFGS-B").x
    return found
