"""Exit scores: how confident is a rung? A score is a number; `policies.rules` compares it with a threshold.

A score reads a history of readings, (n, n_rungs_so_far, width), and returns (n) float64. The last entry of the history
is the current rung; inactive rungs are left out. A reading is a rung's logits; for spans it is what `problems.spans`
computes from them. `exit_score` finds a score by its name.

The learned score is the probability that deeper layers would not correct this answer. It is a logistic model on the
readings, fitted by `ziggurat.calibrate.choose` and saved with the model. For a regression it is the expected certainty
1 - |error| / range. This follows the learned exit of BERxiT (Xin et al. 2021), which reads the hidden state instead and
learns 1 - tanh|error|.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from ziggurat.errors import UserError


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Log-probabilities over the last axis, in float64: finite for logits of any size."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities over the last axis, in float64."""
    return np.exp(log_softmax(logits))


def entropy(history: np.ndarray) -> np.ndarray:
    """Entropy over ln N, in [0, 1]: 0 is certain, 1 is uniform (MP eq. 5)."""
    return _normalised_entropy(history[:, -1])


def top_entropy(history: np.ndarray, n: int) -> np.ndarray:
    """Entropy of the `n` most probable classes, renormalised, over ln n (FastPLM's `uncertainty_N`).

    Made for many classes: together the unlikely ones keep the plain entropy high. All classes if there are fewer than
    `n`.
    """
    logits = history[:, -1]
    if n >= logits.shape[-1]:
        return _normalised_entropy(logits)
    # The softmax over a subset of the classes is the softmax over all classes, renormalised.
    return _normalised_entropy(np.sort(logits, axis=-1)[:, -n:])


def _normalised_entropy(logits: np.ndarray) -> np.ndarray:
    """Entropy over ln N: (..., N) → (...)."""
    logs = log_softmax(logits)
    # Rounding can leave the interval slightly, and "threshold 1 always exits" must hold exactly.
    return np.clip(-(np.exp(logs) * logs).sum(axis=-1) / np.log(logits.shape[-1]), 0.0, 1.0)


def max_probability(history: np.ndarray) -> np.ndarray:
    """The largest probability, in [1/N, 1]."""
    return softmax(history[:, -1]).max(axis=-1)


def margin(history: np.ndarray) -> np.ndarray:
    """Largest minus second largest probability, in [0, 1]."""
    ordered = np.sort(softmax(history[:, -1]), axis=-1)
    return ordered[:, -1] - ordered[:, -2]


def span_entropy(history: np.ndarray) -> np.ndarray:
    """The larger of the entropies of start and end, in [0, 1]: the first two numbers of a span reading."""
    return history[:, -1, :2].max(axis=-1).astype(np.float64)


def agreement(history: np.ndarray) -> np.ndarray:
    """Number of rungs so far that agree with the rung before them; the count is never reset (S3 algorithm 2)."""
    predictions = history.argmax(axis=-1)
    return (predictions[:, 1:] == predictions[:, :-1]).sum(axis=-1).astype(np.float64)


def agreement_in_a_row(history: np.ndarray) -> np.ndarray:
    """Number of latest rungs, without a break, that agree with the rung before them (PABEE)."""
    predictions = history.argmax(axis=-1)
    return _latest_in_a_row(predictions[:, 1:] == predictions[:, :-1])


def confident_in_a_row(history: np.ndarray, largest: float) -> np.ndarray:
    """Number of latest rungs, without a break, with a normalised entropy of at most `largest` (PCEE-BERT)."""
    return _latest_in_a_row(_normalised_entropy(history) <= largest)


def change(history: np.ndarray) -> np.ndarray:
    """Distance of a regression's number from that of the active rung before; infinite at the first active rung."""
    if history.shape[1] < 2:
        return np.full(len(history), np.inf)
    numbers = history[:, -2:, 0].astype(np.float64)
    return np.abs(numbers[:, 1] - numbers[:, 0])


def label_entropy(history: np.ndarray) -> np.ndarray:
    """Largest entropy among the labels, over ln 2, in [0, 1]. Labels are independent (sigmoid)."""
    # A label is the less certain the nearer its logit is to 0.
    nearest = np.abs(history[:, -1].astype(np.float64)).min(axis=-1)
    return _normalised_entropy(np.stack([nearest, np.zeros_like(nearest)], axis=-1))


def _latest_in_a_row(holds: np.ndarray) -> np.ndarray:
    """How many entries at the end of each row are true: (n, k) bool → (n) float64."""
    return np.cumprod(holds[:, ::-1], axis=-1).sum(axis=-1).astype(np.float64)


@dataclass(frozen=True)
class ExitScore:
    """A score, and whether larger or smaller values mean more confidence."""

    of: Callable[[np.ndarray], np.ndarray]
    larger_is_surer: bool
    first_count: int | None = None  # of a count: its largest value at the first active rung; None = not a count
    compares: bool = False  # with the active rung before, so that no input exits at the first
    always: float = 1.0  # a finite threshold at which all inputs exit: no entropy is above it, no other score below

    @property
    def exit_all(self) -> float:
        """The threshold beyond all scores: all inputs exit."""
        return -np.inf if self.larger_is_surer else np.inf

    @property
    def looks_back(self) -> bool:
        """Whether it reads earlier rungs: a rung at which no input exits may then still have to be active."""
        return self.first_count is not None or self.compares

    def largest_count(self, n_active: int) -> int | None:
        """Largest possible count before the last of `n_active` active rungs; None = not a count.

        A count grows by at most one per active rung. At the last of them it decides nothing.
        """
        return None if self.first_count is None else self.first_count + n_active - 2


SCORES: Mapping[str, ExitScore] = {
    "entropy": ExitScore(entropy, larger_is_surer=False),
    "max-probability": ExitScore(max_probability, larger_is_surer=True, always=0.0),
    "margin": ExitScore(margin, larger_is_surer=True, always=0.0),
    "agreement": ExitScore(agreement, larger_is_surer=True, first_count=0, always=0.0),
    "agreement-in-a-row": ExitScore(agreement_in_a_row, larger_is_surer=True, first_count=0, always=0.0),
    "change": ExitScore(change, larger_is_surer=False, compares=True, always=np.inf),
    "label-entropy": ExitScore(label_entropy, larger_is_surer=False),
}


@dataclass(frozen=True)
class ScoreFamily:
    """Scores with a parameter, which stands at the end of the name: `top-entropy@5`."""

    parameter: str  # name of the parameter
    wanted: str  # its valid values, for messages
    score: Callable[[str], ExitScore]  # from the parameter as text; ValueError for an invalid one


def _top_entropy(n: str) -> ExitScore:
    if not (n.isascii() and n.isdecimal() and int(n) >= 2):
        raise ValueError(n)
    return ExitScore(partial(top_entropy, n=int(n)), larger_is_surer=False)


def _confident_in_a_row(largest: str) -> ExitScore:
    if not 0 <= float(largest) <= 1:
        raise ValueError(largest)
    counted = partial(confident_in_a_row, largest=float(largest))
    return ExitScore(counted, larger_is_surer=True, first_count=1, always=0.0)


def unfitted() -> UserError:
    """The error of a model that has no weights for the learned score."""
    return UserError(
        f"exit score {LEARNED!r}: the model has none; build its cascade with `ziggurat cascade … --data FILE` (a "
        "regression: train it with labels)"
    )


def _unfitted(history: np.ndarray) -> np.ndarray:
    raise unfitted()


SPAN_ENTROPY = "span-entropy"  # the only score of question answering
LEARNED = "learned"  # see `learned`; its weights are part of the model
FAMILIES: Mapping[str, ScoreFamily] = {
    "top-entropy": ScoreFamily("N", "a whole number of at least 2", _top_entropy),
    "confident-in-a-row": ScoreFamily("H", "an entropy in [0, 1]", _confident_in_a_row),
}


def exit_score(name: str) -> ExitScore:
    """The score of this name, such as `entropy` or `top-entropy@5`; a UserError lists the known names."""
    if name in SCORES:
        return SCORES[name]
    if name == SPAN_ENTROPY:
        return ExitScore(span_entropy, larger_is_surer=False)
    if name == LEARNED:
        return ExitScore(_unfitted, larger_is_surer=True, always=0.0)
    known = ", ".join([*SCORES, LEARNED, *(f"{family}@{FAMILIES[family].parameter}" for family in FAMILIES)])
    first, _, number = name.partition("@")
    if first not in FAMILIES:
        raise UserError(f"exit score {name!r} is not known; known: {known}")
    family = FAMILIES[first]
    try:
        return family.score(number)
    except ValueError:
        message = f"{family.parameter} of {first}@{family.parameter} must be {family.wanted}"
        raise UserError(f"exit score {name!r}: {message}; known: {known}") from None


N_FEATURES = 4  # plus one for each output
WIDEST = 20.0  # nats between the two most probable classes; larger leads are clipped


def features(history: np.ndarray) -> np.ndarray:
    """Features of the learned score: a history (n, n_rungs_so_far, n_classes) → (n, 4 + n_classes) float64.

    From the last rung: 1, margin, lead of the most probable class in nats, normalised entropy, and the predicted class
    (one-hot). A regression has one output and five features: 1, the number, its square, its distance from the number of
    the rung before, and that distance squared.
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
    table[:, 1], table[:, 2] = np.exp(first) - np.exp(second), np.minimum(first - second, WIDEST)
    table[:, 3] = np.clip(entropy, 0, 1)
    table[np.arange(n), 4 + logits.argmax(axis=1)] = 1
    return table


def _features_of_numbers(numbers: np.ndarray) -> np.ndarray:
    """(n, n_rungs_so_far) → (n, 5)."""
    latest = numbers[:, -1]
    moved = np.abs(latest - numbers[:, -2]) if numbers.shape[1] > 1 else np.zeros_like(latest)
    return np.stack([np.ones_like(latest), latest, latest**2, moved, moved**2], axis=1)


def learned(history: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The score of the last rung of a history (n, n_rungs_so_far, n_classes), from its weights (4 + n_classes): (n)."""
    with np.errstate(over="ignore"):  # exp(large) is infinity, and then the score is 0
        score: np.ndarray = 1 / (1 + np.exp(-(features(history) @ weights)))
    return score
