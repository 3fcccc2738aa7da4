"""Exact match and F1 of answers, as the official evaluation scripts of SQuAD 1.1 and 2.0 define them."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalised(answer: str) -> str:
    """Lower case, then without ASCII punctuation, articles and extra white space."""
    return " ".join(_ARTICLES.sub(" ", answer.lower().translate(_PUNCTUATION)).split())


def exact_match(prediction: str, gold: str) -> float:
    """1 if both are the same when normalised, else 0."""
    return float(normalised(prediction) == normalised(gold))


def f1(prediction: str, gold: str) -> float:
    """Harmonic mean of precision and recall over the normalised words (SQuAD 1.1): 0 where none is shared."""
    mine, theirs = normalised(prediction).split(), normalised(gold).split()
    shared = sum((Counter(mine) & Counter(theirs)).values())
    return 2 * shared / (len(mine) + len(theirs)) if shared else 0.0


def f1_or_none(prediction: str, gold: str) -> float:
    """The same, but 1 where neither has a word (SQuAD 2.0): that is how "no answer" is written."""
    if not normalised(prediction) and not normalised(gold):
        return 1.0
    return f1(prediction, gold)


def grades(predictions: Sequence[str], golds: Sequence[Sequence[str]]) -> tuple[np.ndarray, np.ndarray]:
    """Exact match and F1 of n predictions, the best over each one's golds: (n) float64 each.

    By the script of SQuAD 2.0 if any question has no gold answer ("" is then the right one), else by that of 1.1.
    """
    if len(predictions) != len(golds):
        raise ValueError(f"{len(predictions)} predictions for {len(golds)} questions")
    if all(golds):
        return _best(exact_match, predictions, golds), _best(f1, predictions, golds)
    known = [[gold for gold in some if normalised(gold)] or [""] for some in golds]
    return _best(exact_match, predictions, known), _best(f1_or_none, predictions, known)


def _best(score: Callable[[str, str], float], predictions: Sequence[str], golds: Sequence[Sequence[str]]) -> np.ndarray:
    return np.array([max(score(mine, one) for one in some) for mine, some in zip(predictions, golds, strict=True)])
