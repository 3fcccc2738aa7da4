"""Exit scores: how sure is this rung? Numbers only; the comparison with a threshold is the engine's.

Every score reads a history of logits, (n_seqs, n_rungs_seen, n_classes), whose last entry is the rung being asked, and
returns (n_seqs) float64. A rung that was not asked is not in the history.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Log-probabilities over the last axis, in float64: finite for logits of any size."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities over the last axis, in float64."""
    return np.exp(log_softmax(logits))


def entropy(history: np.ndarray) -> np.ndarray:
    """Entropy over ln N, in [0, 1]: 0 is sure, 1 is uniform (MP eq. 5)."""
    logs = log_softmax(history[:, -1])
    # Rounding can leave a hair outside the interval, and "threshold 1 always exits" must hold exactly.
    return np.clip(-(np.exp(logs) * logs).sum(axis=-1) / np.log(history.shape[-1]), 0.0, 1.0)


def max_probability(history: np.ndarray) -> np.ndarray:
    """The largest probability, in [1/N, 1]."""
    return softmax(history[:, -1]).max(axis=-1)


def margin(history: np.ndarray) -> np.ndarray:
    """Largest minus second largest probability, in [0, 1]."""
    ordered = np.sort(softmax(history[:, -1]), axis=-1)
    return ordered[:, -1] - ordered[:, -2]


def agreement(history: np.ndarray) -> np.ndarray:
    """How many rungs so far predicted what the rung before them did; the count is never reset (S3 algorithm 2)."""
    predictions = history.argmax(axis=-1)
    return (predictions[:, 1:] == predictions[:, :-1]).sum(axis=-1).astype(np.float64)


def agreement_in_a_row(history: np.ndarray) -> np.ndarray:
    """How many of the latest rungs, without a break, predicted what the rung before them did (PABEE)."""
    predictions = history.argmax(axis=-1)
    agree = predictions[:, 1:] == predictions[:, :-1]
    return np.cumprod(agree[:, ::-1], axis=-1).sum(axis=-1).astype(np.float64)


@dataclass(frozen=True)
class ExitScore:
    """A score and which way it points."""

    of: Callable[[np.ndarray], np.ndarray]
    larger_is_surer: bool


SCORES: Mapping[str, ExitScore] = {
    "entropy": ExitScore(entropy, larger_is_surer=False),
    "max-probability": ExitScore(max_probability, larger_is_surer=True),
    "margin": ExitScore(margin, larger_is_surer=True),
    "agreement": ExitScore(agreement, larger_is_surer=True),
    "agreement-in-a-row": ExitScore(agreement_in_a_row, larger_is_surer=True),
}
