"""Exit scores: how sure is this rung? Numbers only; the comparison with a threshold is the engine's.

Every score reads a history of readings, (n, n_rungs_seen, width), whose last entry is the rung being asked, and returns
(n) float64. A reading is a rung's logits, of spans what `policies.spans` makes of them. A rung that was not asked is
not in the history. `exit_score` finds a score by its name.

A learned exit score: the probability that going on would not put this answer right. Numbers only, no threshold.

A logistic model on what a rung says of an input; fitted by `ziggurat.calibrate.choose`, kept with the model. Of a
regression it is the expected certainty 1 - |error| / range, after the learned exit of BERxiT (Xin et al. 2021), which
reads the hidden state instead, and learns 1 - tanh|error|.
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
    """Entropy over ln N, in [0, 1]: 0 is sure, 1 is uniform (MP eq. 5)."""
    return _normalised_entropy(history[:, -1])


def top_entropy(history: np.ndarray, n: int) -> np.ndarray:
    """Entropy of the `n` most probable classes, as if there were no others, over ln n (FastPLM's `uncertainty_N`).

    For many classes, whose unlikely ones together keep the plain entropy high. All classes if there are fewer than `n`.
    """
    logits = history[:, -1]
    if n >= logits.shape[-1]:
        return _normalised_entropy(logits)
    # The softmax over some of the classes is the softmax over all of them, renormalised.
    return _normalised_entropy(np.sort(logits, axis=-1)[:, -n:])


def _normalised_entropy(logits: np.ndarray) -> np.ndarray:
    """Entropy over ln N: (..., N) → (...)."""
    logs = log_softmax(logits)
    # Rounding can leave a hair outside the interval, and "threshold 1 always exits" must hold exactly.
    return np.clip(-(np.exp(logs) * logs).sum(axis=-1) / np.log(logits.shape[-1]), 0.0, 1.0)


def max_probability(history: np.ndarray) -> np.ndarray:
    """The largest probability, in [1/N, 1]."""
    return softmax(history[:, -1]).max(axis=-1)


def margin(history: np.ndarray) -> np.ndarray:
    """Largest minus second largest probability, in [0, 1]."""
    ordered = np.sort(softmax(history[:, -1]), axis=-1)
    return ordered[:, -1] - ordered[:, -2]


def span_entropy(history: np.ndarray) -> np.ndarray:
    """Of spans, whose readings begin with the entropies of start and end (`policies.spans`): the larger, in [0, 1]."""
    return history[:, -1, :2].max(axis=-1).astype(np.float64)


def agreement(history: np.ndarray) -> np.ndarray:
    """How many rungs so far predicted what the rung before them did; the count is never reset (S3 algorithm 2)."""
    predictions = history.argmax(axis=-1)
    return (predictions[:, 1:] == predictions[:, :-1]).sum(axis=-1).astype(np.float64)


def agreement_in_a_row(history: np.ndarray) -> np.ndarray:
    """How many of the latest rungs, without a break, predicted what the rung before them did (PABEE)."""
    predictions = history.argmax(axis=-1)
    return _latest_in_a_row(predictions[:, 1:] == predictions[:, :-1])


def confident_in_a_row(history: np.ndarray, largest: float) -> np.ndarray:
    """How many of the latest rungs, without a break, had a normalised entropy of at most `largest` (PCEE-BERT)."""
    return _latest_in_a_row(_normalised_entropy(history) <= largest)


def change(history: np.ndarray) -> np.ndarray:
    """How far a regression's number is from that of the asked rung before it; infinite where there is none."""
    if history.shape[1] < 2:
        return np.full(len(history), np.inf)
    numbers = history[:, -2:, 0].astype(np.float64)
    return np.abs(numbers[:, 1] - numbers[:, 0])


def label_entropy(history: np.ndarray) -> np.ndarray:
    """The least sure label's entropy over ln 2, in [0, 1], each label being a yes or no of its own (sigmoid)."""
    # The surest are the farthest from 0 on either side, so the least sure label is the nearest to it.
    nearest = np.abs(history[:, -1].astype(np.float64)).min(axis=-1)
    return _normalised_entropy(np.stack([nearest, np.zeros_like(nearest)], axis=-1))


def _latest_in_a_row(holds: np.ndarray) -> np.ndarray:
    """How many entries at the end of each row are true: (n, k) bool → (n) float64."""
    return np.cumprod(holds[:, ::-1], axis=-1).sum(axis=-1).astype(np.float64)


@dataclass(frozen=True)
class ExitScore:
    """A score and which way it points."""

    of: Callable[[np.ndarray], np.ndarray]
    larger_is_surer: bool
    first_count: int | None = None  # of a count: its largest value at the first asked rung; None = not a count
    compares: bool = False  # with the asked rung before, so that nobody leaves at the first
    always: float = 1.0  # a threshold at which everybody leaves: no entropy is above it, or other score below

    @property
    def everybody(self) -> float:
        """The threshold beyond all scores: everybody leaves."""
        return -np.inf if self.larger_is_surer else np.inf

    @property
    def looks_back(self) -> bool:
        """Whether it reads rungs before the one that is asked: an exit at which nobody leaves may then be needed."""
        return self.first_count is not None or self.compares

    def largest_count(self, n_asked: int) -> int | None:
        """The most that a count can be where it decides anything, with `n_asked` asked rungs; None = not a count.

        A count grows by at most one from asked rung to asked rung, and the last of these answers whatever it says.
        """
        return None if self.first_count is None else self.first_count + n_asked - 2


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
    """Scores that differ in one number, with which their name ends: `top-entropy@5`."""

    parameter: str  # what the number is called
    wanted: str  # what it must be
    score: Callable[[str], ExitScore]  # from the number as it is written; ValueError if it is not as wanted


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
    """What is wrong where the learned score is asked and the model has no weights for it."""
    return UserError(
        f"exit score {LEARNED!r}: the model has none; build its cascade with `ziggurat cascade … --data FILE` (a "
        "regression: train it with labels)"
    )


def _unfitted(history: np.ndarray) -> np.ndarray:
    raise unfitted()


SPAN_ENTROPY = "span-entropy"  # the one score of question answering
LEARNED = "learned"  # the score of `ziggurat.policies.defer`, whose weights are the model's
FAMILIES: Mapping[str, ScoreFamily] = {
    "top-entropy": ScoreFamily("N", "a whole number of at least 2", _top_entropy),
    "confident-in-a-row": ScoreFamily("H", "an entropy in [0, 1]", _confident_in_a_row),
}


def exit_score(name: str) -> ExitScore:
    """The score of this name, such as `entropy` or `top-entropy@5`; UserError lists those that there are."""
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


N_FEATURES = 4  # beside one for each output
WIDEST = 20.0  # nats between the first two classes: beyond, nothing is learned


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
    table[:, 1], table[:, 2] = np.exp(first) - np.exp(second), np.minimum(first - second, WIDEST)
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
