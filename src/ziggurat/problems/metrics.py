"""Measures of answers, each with a 95 % interval: accuracy, F1, correlations; and SQuAD's exact match and F1.

Every measure takes predictions and truth, and optionally how often each row counts, (…, n): then it answers with
(…) numbers. So one call measures all the resamples of a bootstrap, without a loop over them.
"""

from __future__ import annotations

import math
import re
import string
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from math import sqrt
from types import MappingProxyType

import numpy as np

from ziggurat.errors import UserError

Measure = Callable[[np.ndarray, np.ndarray, np.ndarray | None], np.ndarray]
RESAMPLES = 1000
_CELLS = 4_000_000  # of a resampling that are held at once
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def accuracy_interval(correct: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of an accuracy, as two shares. ValueError unless 0 ≤ correct ≤ n, n ≥ 1.

    Wilson and not the exact Clopper-Pearson, which needs scipy. It describes a figure; what certifies an operating
    point is in `ziggurat.calibrate`. Source: Wilson 1927, equation 6.
    """
    if not 0 <= correct <= n or n < 1:
        raise ValueError(f"{correct} right of {n} is no accuracy")
    from statistics import NormalDist  # takes milliseconds to import, which models that only answer do not have

    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = correct / n
    centre = share + z * z / (2 * n)
    half = z * sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    # At 0 and n right answers an end is the share itself, but for rounding that would leave the share outside.
    return min(share, max(0.0, (centre - half) / scale)), max(share, min(1.0, (centre + half) / scale))


def accuracy(predictions: np.ndarray, truth: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Share of right answers: of class indices (n) that are equal, or of label sets (n, labels) that are the same."""
    right = predictions == truth
    right = right if right.ndim == 1 else right.all(axis=1)
    counts = _counts(weights, len(right))
    return _ratio(counts @ right, counts.sum(axis=-1))


def f1(predictions: np.ndarray, truth: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """F1 of class 1: 2 TP / (2 TP + FP + FN), of class indices (n).

    0 where class 1 neither occurs nor is answered (sklearn's `zero_division=0`; GLUE's evaluation is sklearn).
    """
    predicted, actual = predictions == 1, truth == 1
    counts = _counts(weights, len(predicted))
    return _ratio(2 * (counts @ (predicted & actual)), counts @ predicted + counts @ actual)


def f1_macro(predictions: np.ndarray, truth: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Mean over labels of each label's F1, of label sets (n, labels) of 0 and 1, or of class indices (n).

    As in sklearn a label that is neither predicted nor true has 0; classes that are neither do not count.
    """
    hits, named = _label_counts(predictions, truth, weights)
    counted = np.full(named.shape, True) if predictions.ndim > 1 else named > 0
    return _ratio(_ratio(2 * hits, named).sum(axis=-1), counted.sum(axis=-1))


def f1_micro(predictions: np.ndarray, truth: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """F1 of all decisions together, of label sets (n, labels) of 0 and 1; 0 where there is no label at all.

    Of class indices (n) it is the accuracy.
    """
    hits, named = _label_counts(predictions, truth, weights)
    return _ratio(2 * hits.sum(axis=-1), named.sum(axis=-1))


def mcc(predictions: np.ndarray, truth: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Matthews' correlation of class indices (n), any number of classes (Gorodkin 2004, R_K).

    It is the correlation of the two rows of indicators, summed over classes. 0 where all answers or all truths are
    one class, as sklearn's `matthews_corrcoef`, which GLUE takes for CoLA.
    """
    predicted, actual = _indicators(predictions, truth)
    counts = _counts(weights, len(predicted))
    n = counts.sum(axis=-1)
    named, true = counts @ predicted, counts @ actual  # (…, classes)
    covariance = n * (counts @ (predictions == truth)) - (named * true).sum(axis=-1)
    spread = (n**2 - (named**2).sum(axis=-1)) * (n**2 - (true**2).sum(axis=-1))
    return _ratio(covariance, np.sqrt(spread))


def pearson(predictions: np.ndarray, truth: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Pearson's correlation of numbers (n); NaN where one side is constant, as `scipy.stats.pearsonr`."""
    return _correlation(predictions, truth, _counts(weights, len(truth)))


def spearman(predictions: np.ndarray, truth: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Pearson's correlation of the ranks of numbers (n), ties at their mean rank; NaN where one side is constant."""
    counts = _counts(weights, len(truth))
    return _correlation(_ranks(predictions, counts), _ranks(truth, counts), counts)


MEASURES: Mapping[str, Measure] = MappingProxyType(
    {
        "accuracy": accuracy,
        "f1": f1,
        "f1-macro": f1_macro,
        "f1-micro": f1_micro,
        "mcc": mcc,
        "pearson": pearson,
        "spearman": spearman,
    }
)
# Means of what is lost on each row: only these can be certified as they are.
MEANS = ("accuracy",)


def measure_by_name(name: str) -> Measure:
    """A measure of `MEASURES`; UserError lists them."""
    if name not in MEASURES:
        raise UserError(f"metric {name!r} is not known; choose one of {', '.join(MEASURES)}")
    return MEASURES[name]


def measures(names: Iterable[str], predictions: np.ndarray, truth: np.ndarray) -> dict[str, float | None]:
    """Each measure NAME under NAME, NAME_low and NAME_high (95 %), as JSON values: None where it is not defined.

    Wilson's interval for accuracy, the bootstrap's for the others. ValueError of no rows.
    """
    if len(predictions) != len(truth) or not len(truth):
        raise ValueError(f"{len(predictions)} predictions of {len(truth)} rows")
    names = list(names)
    found: dict[str, float | None] = {}
    for name, (key, value) in zip(names, values(names, predictions, truth).items(), strict=True):
        if name == "accuracy":
            low, high = accuracy_interval(round(float(value or 0) * len(truth)), len(truth))
        else:
            low, high = bootstrap_interval(measure_by_name(name), predictions, truth)
        found |= {key: value, f"{key}_low": _json(low), f"{key}_high": _json(high)}
    return found


def values(names: Iterable[str], predictions: np.ndarray, truth: np.ndarray) -> dict[str, float | None]:
    """Each measure without its interval."""
    return {name.replace("-", "_"): _json(float(measure_by_name(name)(predictions, truth, None))) for name in names}


def bootstrap_interval(
    measure: Measure,
    predictions: np.ndarray,
    truth: np.ndarray,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile interval (Efron 1979): the middle of the measure over rows drawn anew with replacement.

    The same seed and rows give the same interval. Resamples where the measure is not defined do not count; both ends
    are NaN where it is defined in none.
    """
    n, generator = len(truth), np.random.default_rng(seed)
    values: list[np.ndarray] = []
    size = max(1, _CELLS // n)
    for start in range(0, resamples, size):
        draws = generator.integers(n, size=(min(size, resamples - start), n))
        weights = np.stack([np.bincount(draw, minlength=n) for draw in draws]).astype(np.float64)
        values.append(measure(predictions, truth, weights))
    found = np.concatenate(values)
    found = found[~np.isnan(found)]
    if not len(found):
        return math.nan, math.nan
    low, high = np.quantile(found, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _counts(weights: np.ndarray | None, n: int) -> np.ndarray:
    return np.ones(n) if weights is None else weights


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Their ratio, 0 where the lower one is 0."""
    return np.divide(above, below, out=np.zeros(np.shape(below)), where=np.asarray(below) != 0)[()]


def _label_counts(
    predictions: np.ndarray, truth: np.ndarray, weights: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """For each label, (…, labels): how often it is right, and how often it is answered or true, both counting twice."""
    counts = _counts(weights, len(truth))
    if predictions.ndim == 1:
        predicted, actual = _indicators(predictions, truth)
    else:
        predicted, actual = predictions.astype(bool), truth.astype(bool)
    return counts @ (predicted & actual), counts @ predicted + counts @ actual


def _indicators(predictions: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which of the classes that occur each row has, (n, classes) bool each."""
    classes = np.unique(np.concatenate([predictions, truth]))
    return predictions[:, None] == classes, truth[:, None] == classes


def _correlation(x: np.ndarray, y: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Of x and y, (n) or (…, n), of which each entry counts so often; NaN where one of them is constant."""
    n = counts.sum(axis=-1, keepdims=True)
    # A constant column's spread is 0 but for rounding, so constants are found by their values.
    constant = _is_constant(x, counts) | _is_constant(y, counts)
    x = x - (counts * x).sum(axis=-1, keepdims=True) / n
    y = y - (counts * y).sum(axis=-1, keepdims=True) / n
    spread = np.sqrt((counts * x * x).sum(axis=-1) * (counts * y * y).sum(axis=-1))
    found = np.clip(_ratio((counts * x * y).sum(axis=-1), spread), -1, 1)
    return np.where(constant, np.nan, found)[()]


def _is_constant(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    present = counts > 0
    high = np.where(present, values, -np.inf).max(axis=-1)
    return high == np.where(present, values, np.inf).min(axis=-1)


def _ranks(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Mean rank of each value, (…, n), where it stands there `counts` times, (…, n)."""
    _, place, sizes = np.unique(values, return_inverse=True, return_counts=True)
    order, starts = np.argsort(values, kind="stable"), np.cumsum(sizes) - sizes
    together = np.add.reduceat(counts[..., order], starts, axis=-1)  # how often each distinct value stands there
    return (np.cumsum(together, axis=-1) - (together - 1) / 2)[..., place]


def _json(value: float) -> float | None:
    return None if math.isnan(value) else value


@lru_cache(maxsize=1 << 16)  # an answer is compared with golds, and with those of other rungs
def normalised(answer: str) -> str:
    """Lower case, then without ASCII punctuation, articles and extra white space."""
    return " ".join(_ARTICLES.sub(" ", answer.lower().translate(_PUNCTUATION)).split())


def exact_match(prediction: str, gold: str) -> float:
    """1 if both are the same when normalised, else 0."""
    return float(normalised(prediction) == normalised(gold))


def word_f1(prediction: str, gold: str) -> float:
    """Harmonic mean of precision and recall over the normalised words (SQuAD 1.1): 0 where none is shared."""
    predicted, actual = normalised(prediction).split(), normalised(gold).split()
    shared = sum((Counter(predicted) & Counter(actual)).values())
    return 2 * shared / (len(predicted) + len(actual)) if shared else 0.0


def word_f1_or_none(prediction: str, gold: str) -> float:
    """The same, but 1 where neither has a word (SQuAD 2.0): that is how "no answer" is written."""
    if not normalised(prediction) and not normalised(gold):
        return 1.0
    return word_f1(prediction, gold)


def grades(predictions: Sequence[str], golds: Sequence[Sequence[str]]) -> tuple[np.ndarray, np.ndarray]:
    """Exact match and F1 of n predictions, the best over each one's golds: (n) float64 each.

    By the script of SQuAD 2.0 if any question has no gold answer ("" is then the right one), else by that of 1.1.
    """
    if len(predictions) != len(golds):
        raise ValueError(f"{len(predictions)} predictions for {len(golds)} questions")
    if all(golds):
        return _best(exact_match, predictions, golds), _best(word_f1, predictions, golds)
    known = [[gold for gold in answers if normalised(gold)] or [""] for answers in golds]
    return _best(exact_match, predictions, known), _best(word_f1_or_none, predictions, known)


def _best(score: Callable[[str, str], float], predictions: Sequence[str], golds: Sequence[Sequence[str]]) -> np.ndarray:
    pairs = zip(predictions, golds, strict=True)
    return np.array([max(score(prediction, gold) for gold in answers) for prediction, answers in pairs])
