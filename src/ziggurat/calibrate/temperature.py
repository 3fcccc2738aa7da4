"""One temperature per rung, so that its probabilities mean what they say on rows that it was not trained on."""

from __future__ import annotations

import numpy as np

from ziggurat.policies.exits import log_softmax

_LARGEST = 20.0  # and 1 / 20 at the other end: rows that a rung gets all right would drive it to 0


def fit_temperatures(every: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """What to divide each rung's logits by: (n, n_rungs, n_classes) and (n) class indices → (n_rungs) float64.

    Each minimises the mean negative log-likelihood of the labels (Guo et al. 2017; per exit as in Sledgehammer), or is
    exactly 1 where the best one found does not improve on that. No prediction changes. Needs scipy.
    """
    return np.array([_fit_one(every[:, rung], labels) for rung in range(every.shape[1])])


def likelihood_loss(logits: np.ndarray, labels: np.ndarray, temperature: float = 1.0) -> float:
    """Mean negative log-likelihood of the labels (n) under logits (n, n_classes) / temperature, in nats."""
    logs = log_softmax(logits / np.float64(temperature))
    return float(-logs[np.arange(len(labels)), labels].mean())


def _fit_one(logits: np.ndarray, labels: np.ndarray) -> float:
    from scipy.optimize import minimize_scalar

    # The loss is convex in 1 / T, so it has one valley in log T too, and a bounded search finds it.
    end = np.log(_LARGEST)
    found = minimize_scalar(
        lambda log: likelihood_loss(logits, labels, np.exp(log)), bounds=(-end, end), method="bounded"
    )
    best = float(np.exp(found.x))
    return best if likelihood_loss(logits, labels, best) < likelihood_loss(logits, labels) else 1.0
