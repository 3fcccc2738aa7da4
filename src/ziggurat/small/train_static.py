"""Training the static tier: logistic regression on hashed n-grams, towards classes, sets of labels or a teacher.

Minimising a smooth convex function of very many numbers. No torch, no scipy.

scipy's L-BFGS-B keeps bounds, works in float64, and for half a million numbers takes longer than the function itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ziggurat.data.packing import cumulate
from ziggurat.data.tokenizer import Encoded
from ziggurat.errors import UserError, install
from ziggurat.policies.exits import log_softmax
from ziggurat.problems.problem import BINARY_CROSS_ENTROPY, CROSS_ENTROPY, MEAN_SQUARE
from ziggurat.small.static import LARGEST, StaticTier, features

Function = Callable[[np.ndarray], tuple[float, np.ndarray]]  # a point (n) float32 → value, gradient (n) float32

_MEMORY = 10  # steps that the curvature is estimated from
_DECREASE = 1e-4  # share of the decrease that the slope promises; Armijo's constant
_HALVINGS = 30


def minimise(
    function: Function, start: np.ndarray, curvature: np.ndarray, iterations: int, tolerance: float = 1e-5
) -> np.ndarray:
    """Where a strictly convex function is least, (n) float32, by L-BFGS from `start` (n) float32.

    `curvature` (n) float32, above 0, guesses the Hessian's diagonal; where numbers differ much in how far they go,
    it saves nine steps of ten. Stops after `iterations` steps, or when one lowers the value by less than `tolerance` of
    itself. The same arguments give the same answer. Source: Nocedal and Wright, Numerical Optimization, algorithms 7.4
    and 3.1.
    """
    point = start
    value, gradient = function(point)
    moves: list[np.ndarray] = []
    changes: list[np.ndarray] = []
    for _ in range(iterations):
        direction = -_newton(gradient, curvature, moves, changes)
        slope, step = float(direction @ gradient), 1.0
        for _ in range(_HALVINGS):
            there = point + np.float32(step) * direction
            next_value, next_gradient = function(there)
            if next_value <= value + _DECREASE * step * slope:
                break
            step /= 2
        else:
            break  # float32 can tell no lower value along a direction that goes down
        move, change = there - point, next_gradient - gradient
        if float(move @ change) > 0:
            moves, changes = [*moves, move][-_MEMORY:], [*changes, change][-_MEMORY:]
        gain, point, value, gradient = value - next_value, there, next_value, next_gradient
        if gain <= tolerance * abs(value):
            break
    return point


def _newton(
    gradient: np.ndarray, curvature: np.ndarray, moves: list[np.ndarray], changes: list[np.ndarray]
) -> np.ndarray:
    """The gradient times an estimate of the inverse Hessian, from the last steps and how they changed the gradient."""
    vector, shares = gradient.copy(), []
    products = [float(move @ change) for move, change in zip(moves, changes, strict=True)]
    for move, change, product in zip(reversed(moves), reversed(changes), reversed(products), strict=True):
        shares.append(np.float32(float(move @ vector) / product))
        vector -= shares[-1] * change
    vector /= curvature
    if moves:
        vector *= np.float32(products[-1] / float(changes[-1] @ (changes[-1] / curvature)))
    for move, change, product, share in zip(moves, changes, products, reversed(shares), strict=True):
        vector += (share - np.float32(float(change @ vector) / product)) * move
    return vector


Summed = Callable[[np.ndarray, np.ndarray], tuple[float, np.ndarray]]  # outputs, targets → sum over rows, slopes
_VARIANCE = 0.15  # of a class, p (1 - p), while one is learned


@dataclass(frozen=True)
class StaticSettings:
    """How a static tier is trained."""

    buckets: int = 2**20  # rows of its table, a power of two; each takes 2 bytes for every class
    penalties: tuple[float, ...] = (
        1e-4,
        3e-5,
        1e-5,
        3e-6,
        1e-6,
    )  # of squared weights, strong to weak: select rows choose
    iterations: int = 30  # of L-BFGS at most, for each penalty; each goes on from the one before
    least_texts: int = 2  # train rows that a bucket must occur in, so that it has a weight
    rarity: float = 1.0  # power of 1 + ln(rows / rows that hold it) by which a bucket counts more in training

    def __post_init__(self) -> None:
        power_of_two = self.buckets > 0 and not self.buckets & (self.buckets - 1)
        self._demand(power_of_two and 2 <= self.buckets <= 2**30, "buckets", "a power of two, 2 … 2^30")
        self._demand(bool(self.penalties) and min(self.penalties) > 0, "penalties", "one or more numbers above 0")
        self._demand(self.iterations >= 1, "iterations", "at least 1")
        self._demand(self.least_texts >= 1, "least_texts", "at least 1")
        self._demand(0 <= self.rarity <= 8, "rarity", "in [0, 8]")

    def _demand(self, holds: bool, key: str, wanted: str) -> None:
        if not holds:
            raise ValueError(f"{key} {getattr(self, key)!r}: must be {wanted}")


def train_static(
    train: Encoded,
    targets: np.ndarray,
    select: Encoded,
    labels: np.ndarray,
    kinds: np.ndarray,
    settings: StaticSettings = StaticSettings(),
    loss: str = CROSS_ENTROPY,
) -> StaticTier:
    """A static tier that gives `train` texts their `targets`, as far as it may generalise to `select` texts.

    Minimises the mean loss against `targets` (n, n_outputs) plus half a penalty times the squared weights; of the
    penalties the one that loses least on the `labels` of the select texts. `loss` is a problem's `training_loss`:
    cross-entropy against rows of probabilities, labels (m) classes; binary cross-entropy of each output against its
    own probability, labels (m, n_outputs) of 0 and 1; or the mean square of one output, labels (m) numbers. The select
    texts' losses of probabilities are those at the best temperature. `kinds` as `TextTokenizer.piece_kinds`. The same
    arguments give the same tier on one machine. Its probabilities are not calibrated.

    Raises:
        UserError: scipy is missing, or there is nothing to learn from.
        ValueError: targets or labels that do not fit the texts.
    """
    check_rows(train, targets, select, labels, loss)
    scale = Scale.of(targets, loss)
    targets, labels = scale.inside(targets), scale.inside(labels)
    table, select_table = (_table(encoded, kinds, settings.buckets) for encoded in (train, select))
    texts = np.bincount(table.indices, minlength=settings.buckets)
    used = np.argsort(-texts, kind="stable")[: np.count_nonzero(texts >= settings.least_texts)]  # the hot ones together
    if not len(used):
        raise UserError(f"train rows: no n-gram occurs in {settings.least_texts} texts; use more rows")
    stretch = _stretch(texts[used], table.shape[0], settings.rarity)
    problem = _Problem(_stretched(table[:, used], stretch), np.asarray(targets, dtype=np.float64), loss)
    select_table, found = _stretched(select_table[:, used], stretch), problem.start()
    best, best_loss = found, np.inf
    for penalty in settings.penalties:
        found = problem.solve(penalty, found, settings.iterations)
        lost = select_loss(problem.logits(found, select_table), labels, loss)
        if lost >= best_loss:
            break  # weaker ones overfit still more
        best, best_loss = found, lost
    weights, bias = problem.parts(best)
    weights, bias = weights * stretch[:, None] * scale.deviation, bias * scale.deviation + scale.mean
    return _as_tier(weights, bias, used, kinds, settings.buckets)


@dataclass(frozen=True)
class Scale:
    """Between targets as rows have them and as they are learned: numbers with mean 0 and deviation 1, others as is."""

    mean: float = 0.0
    deviation: float = 1.0

    @classmethod
    def of(cls, targets: np.ndarray, loss: str) -> Scale:
        """Of the targets of train rows."""
        return cls(float(targets.mean()), float(targets.std()) or 1.0) if loss == MEAN_SQUARE else cls()

    def inside(self, values: np.ndarray) -> np.ndarray:
        """As they are learned."""
        return values if self == Scale() else (values - self.mean) / self.deviation


def check_rows(
    train: Encoded, targets: np.ndarray, select: Encoded, labels: np.ndarray, loss: str = CROSS_ENTROPY
) -> None:
    """Raises what `train_static` says of rows, targets (n, n_outputs) and labels (m, …) that do not fit together."""
    n, m = len(train.tokens), len(select.tokens)
    if not n or not m:
        raise UserError("a small tier needs train rows and select rows")
    least = 2 if loss == CROSS_ENTROPY else 1
    if targets.ndim != 2 or len(targets) != n or targets.shape[1] < least:
        raise ValueError(f"targets: must be ({n}, n_outputs), not {targets.shape}")
    if loss == MEAN_SQUARE:
        if not (np.isfinite(targets).all() and labels.shape == (m,) and np.isfinite(labels).all()):
            raise ValueError("targets, labels: must be finite numbers, one of each row")
    elif loss == BINARY_CROSS_ENTROPY:
        if not (((targets >= 0) & (targets <= 1)).all() and labels.shape == (m, targets.shape[1])):
            raise ValueError("targets, labels: must be a probability, or 0 and 1, for every label of each row")
    else:
        if not (np.isfinite(targets).all() and (targets >= 0).all() and np.allclose(targets.sum(axis=1), 1, atol=1e-3)):
            raise ValueError("targets: every row must be probabilities, which sum to 1")
        if labels.shape != (m,) or not ((labels >= 0) & (labels < targets.shape[1])).all():
            raise ValueError("labels: must be the class of each select row")


def select_loss(outputs: np.ndarray, labels: np.ndarray, loss: str = CROSS_ENTROPY) -> float:
    """Mean loss of outputs (m, n_outputs) on labels (m, …).

    Of probabilities at their best temperature: a penalty also makes logits small, which does not count.
    """
    from scipy.optimize import minimize_scalar

    rows = np.arange(len(labels))
    if loss == MEAN_SQUARE:
        return float(((outputs[:, 0] - labels) ** 2).mean())

    def lost(log: float) -> float:
        scaled = outputs / np.exp(log)
        if loss == BINARY_CROSS_ENTROPY:
            return _label_entropy(scaled, labels)[0] / len(rows)
        return float(-log_softmax(scaled)[rows, labels].mean())

    return float(minimize_scalar(lost, bounds=(-3, 3), method="bounded").fun)


def _class_entropy(logits: np.ndarray, targets: np.ndarray) -> tuple[float, np.ndarray]:
    """Sum of the rows' cross-entropies where one class applies, and its slopes: (n, n_classes) both."""
    logs = log_softmax(logits)
    return -float((targets * logs).sum()), np.exp(logs) - targets


def _label_entropy(logits: np.ndarray, targets: np.ndarray) -> tuple[float, np.ndarray]:
    """The same where each label applies or not by itself."""
    log_yes, log_no = -np.logaddexp(0, -logits), -np.logaddexp(0, logits)
    return -float((targets * log_yes + (1 - targets) * log_no).sum()), np.exp(log_yes) - targets


def _half_square(outputs: np.ndarray, targets: np.ndarray) -> tuple[float, np.ndarray]:
    """Half the sum of squares, and its slopes."""
    differences = outputs - targets
    return float((differences**2).sum()) / 2, differences


# By loss: what is summed over rows, and about the second derivative of a row's with respect to an output.
_LOSSES: Mapping[str, tuple[Summed, float]] = {
    CROSS_ENTROPY: (_class_entropy, _VARIANCE),
    BINARY_CROSS_ENTROPY: (_label_entropy, _VARIANCE),
    MEAN_SQUARE: (_half_square, 1.0),
}


class _Problem:
    """Loss of a linear model on sparse rows as a function of one vector: weights first, then the bias."""

    def __init__(self, table: Any, targets: np.ndarray, loss: str) -> None:
        self.summed, self.variance = _LOSSES[loss]
        self.table, self.transposed = table, table.T.tocsr()  # of both, rows are behind one another
        self.targets = targets.astype(np.float32)
        self.shape = (table.shape[1], targets.shape[1])
        self.squares = np.asarray(table.power(2).mean(axis=0)).ravel()

    def start(self) -> np.ndarray:
        return np.zeros((self.shape[0] + 1) * self.shape[1], dtype=np.float32)

    def parts(self, vector: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Weights (features, n_classes) and bias (n_classes)."""
        return vector[: -self.shape[1]].reshape(self.shape), vector[-self.shape[1] :]

    def logits(self, vector: np.ndarray, table: Any) -> np.ndarray:
        weights, bias = self.parts(vector)
        said: np.ndarray = table @ weights + bias
        return said

    def loss(self, vector: np.ndarray, penalty: float) -> tuple[float, np.ndarray]:
        """What is minimised, and its gradient."""
        weights, _ = self.parts(vector)
        n = len(self.targets)
        lost, slopes = self.summed(self.logits(vector, self.table), self.targets)
        slopes = (slopes / n).astype(np.float32)
        gradient = self.transposed @ slopes + np.float32(penalty) * weights
        squares = float(vector[: weights.size] @ vector[: weights.size])
        return lost / n + penalty / 2 * squares, np.concatenate([gradient.ravel(), slopes.sum(axis=0)])

    def solve(self, penalty: float, start: np.ndarray, iterations: int) -> np.ndarray:
        # Of a column's part in the loss: its mean square times p (1 - p), of which the mean is about so much.
        columns = self.variance * self.squares + penalty
        curvature = np.concatenate([np.repeat(columns, self.shape[1]), np.full(self.shape[1], self.variance)])
        function = partial(self.loss, penalty=penalty)
        return minimise(function, start, curvature.astype(np.float32), iterations)


def _table(encoded: Encoded, kinds: np.ndarray, n_buckets: int) -> Any:
    """Texts as sparse rows: how often each bucket occurs, over the root of how many features the text has."""
    try:
        from scipy.sparse import csr_matrix
    except ImportError:
        raise UserError(f"training a static tier needs scipy; {install('calibrate')}") from None
    buckets, counts = features(np.concatenate(encoded.tokens), cumulate(encoded.lengths), kinds, n_buckets)
    values = np.repeat(1 / np.sqrt(np.maximum(counts, 1)), counts).astype(np.float32)
    table = csr_matrix((values, buckets, cumulate(counts)), shape=(len(counts), n_buckets))
    table.sum_duplicates()
    return table


def _stretch(texts: np.ndarray, n_rows: int, rarity: float) -> np.ndarray:
    """Factors of the columns from how many rows hold each, (n) float64; their mean square over occurrences is 1.

    A column that is twice as large needs half the weight, for which it pays a quarter. What occurs in few texts says
    more about them than what occurs everywhere, and the same penalty for all would keep it from being learned.
    """
    factors = (1 + np.log(n_rows / texts)) ** rarity
    return factors / np.sqrt(np.average(factors**2, weights=texts))


def _stretched(table: Any, factors: np.ndarray) -> Any:
    table.data *= factors[table.indices].astype(np.float32)
    return table


def _as_tier(weights: np.ndarray, bias: np.ndarray, used: np.ndarray, kinds: np.ndarray, n_buckets: int) -> StaticTier:
    """Rounds to the whole numbers of the tier's table; the largest weight of a class becomes `LARGEST`."""
    scales = np.maximum(np.abs(weights).max(axis=0) / LARGEST, np.finfo(np.float32).tiny).astype(np.float32)
    table = np.zeros((n_buckets, weights.shape[1]), dtype=np.int16)
    table[used] = np.clip(np.rint(weights / scales), -LARGEST, LARGEST)
    return StaticTier(table, scales, bias.astype(np.float32), kinds)
