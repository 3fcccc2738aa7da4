"""A learned exit score: the probability that going on would not put this answer right. Numbers only, no threshold.

A logistic model on what a rung says of an input; fitted by `ziggurat.calibrate.deferral`, kept with the model. Of a
regression it is the expected certainty 1 - |error| / range, after the learned exit of BERxiT (Xin et al. 2021), which
reads the hidden state instead, and learns 1 - tanh|error|.
"""

from __future__ import annotations

import numpy as np

from ziggurat.policies.exits import log_softmax

_WIDEST = 20.0  # nats between the first two classes: beyond, nothing is learned


def features(history: np.ndarray) -> np.ndarray:
    """What the score looks at: a history (n, n_rungs_seen, n_classes) → (n, 4 + n_classes) float64.

    Of the last rung 1, margin, lead of the first class in nats, normalised entropy, and which class is predicted. Of a
    regression's number, the one output, 1, itself, its square, how far it is from the one before, and that squared.
    """
    logits = history[:, -1]
    if logits.shape[1] == 1:
        return _features_of_numbers(history[:, :, 0].astype(np.float64))
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


def _features_of_numbers(numbers: np.ndarray) -> np.ndarray:
    """(n, n_rungs_seen) → (n, 5)."""
    latest = numbers[:, -1]
    moved = np.abs(latest - numbers[:, -2]) if numbers.shape[1] > 1 else np.zeros_like(latest)
    return np.stack([np.ones_like(latest), latest, latest**2, moved, moved**2], axis=1)


def learned(history: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The score of the last rung of a history (n, n_rungs_seen, n_classes), by its weights (4 + n_classes): (n)."""
    with np.errstate(over="ignore"):  # exp(large) is infinity, and the score 0
        score: np.ndarray = 1 / (1 + np.exp(-(features(history) @ weights)))
    return score
