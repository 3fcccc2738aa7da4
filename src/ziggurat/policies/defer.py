"""A learned exit score: the probability that going on would not put this answer right. Numbers only, no threshold.

A logistic model on what a rung says of an input; fitted by `ziggurat.calibrate.deferral`, kept with the model.
"""

from __future__ import annotations

import numpy as np

from ziggurat.policies.exits import log_softmax

_WIDEST = 20.0  # nats between the first two classes: beyond, nothing is learned


def features(logits: np.ndarray) -> np.ndarray:
    """What the score looks at: logits (n, n_classes) → (n, 4 + n_classes) float64.

    1, margin, lead of the first class in nats, normalised entropy, and which class is predicted.
    """
    logs = log_softmax(logits)
    n, n_classes = logs.shape
    first, second = np.sort(logs, axis=1)[:, :-3:-1].T
    entropy = -(np.exp(logs) * logs).sum(axis=1) / np.log(n_classes)
    table = np.zeros((n, 4 + n_classes))
    table[:, 0] = 1
    table[:, 1], table[:, 2] = np.exp(first) - np.exp(second), np.minimum(first - second, _WIDEST)
    table[:, 3] = np.clip(entropy, 0, 1)
    table[np.arange(n), 4 + logits.argmax(axis=1)] = 1
    return table


def learned(history: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The score of the last rung of a history (n, n_rungs_seen, n_classes), by its weights (4 + n_classes): (n)."""
    with np.errstate(over="ignore"):  # exp(large) is infinity, and the score 0
        score: np.ndarray = 1 / (1 + np.exp(-(features(history[:, -1]) @ weights)))
    return score
