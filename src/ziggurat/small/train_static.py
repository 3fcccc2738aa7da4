"""Trains the static tier: logistic regression on hashed n-grams, on classes, sets of labels, numbers or a teacher.

With its own L-BFGS: scipy's L-BFGS-B handles bounds, works in float64, and for half a million parameters takes longer
than the function itself.
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

_MEMORY = 10  # past steps for the estimate of the curvature
_DECREASE = 1e-4  # required share of the linearly predicted decrease; Armijo's constant
_HALVINGS = 30


def minimise(
    function: Function, start: np.ndarray, curvature: np.ndarray, iterations: int, tolerance: float = 1e-5
) -> np.ndarray:
    """Minimum of a strictly convex function, (n) float32, by L-BFGS from `start` (n) float32.

    `curvature` (n) float32, above 0, estimates the Hessian's diagonal; if parameters have very different scales, it
    saves nine of ten steps. Stops after `iterations` steps, or when the value falls by less than `tolerance` times
    itself. Deterministic. Source: Nocedal and Wright, Numerical Optimization, algorithms 7.4
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
            candidate = point + np.float32(step) * direction
            next_value, next_gradient = function(candidate)
            if next_value <= value + _DECREASE * step * slope:
                break
            step /= 2
        else:
            break  # no lower value within float32's precision
        move, change = candidate - point, next_gradient - gradient
        if float(move @ change) > 0:
            moves, changes = [*moves, move][-_MEMORY:], [*changes, change][-_MEMORY:]
        gain, point, value, gradient = value - next_value, candidate, next_value, next_gradient
        if gain <= tolerance * abs(value):
            break
    return point


def _newton(
    gradient: np.ndarray, curvature: np.ndarray, moves: list[np.ndarray], changes: list[np.ndarray]
) -> np.ndarray:
    """The gradient times an estimate of the inverse Hessian, from the last steps and their changes of the gradient."""
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
_VARIANCE = 0.15  # typical p (1 - p) of a class during training


@dataclass(frozen=True)
class StaticSettings:
    """Settings for training a static tier."""

    buckets: int = 2**20  # rows of the table, a power of two; each has 2 bytes per class
    penalties: tuple[float, ...] = (
        1e-4,
        3e-5,
        1e-5,
        3e-6,
        1e-6,
    )  # of squared weights, strong to weak: select rows choose
    iterations: int = 30  # of L-BFGS at most, for each penalty; each starts from the previous solution
    least_texts: int = 2  # a bucket has a weight only if it occurs in this many train rows
    rarity: float = 1.0  # in training, buckets are scaled by 1 + ln(rows / rows with it) to this power

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
    """Trains a static tier on `train` texts and `targets`; `select` texts choose the penalty.

    Minimises the mean loss against `targets` (n, n_outputs) plus half a penalty times the squared weights. The chosen
    penalty has the least loss on the `labels` of the select texts. `loss` is a problem's `training_loss`:
    cross-entropy against rows of probabilities, labels (m) classes; binary cross-entropy of each output against its
    own probability, labels (m, n_outputs) of 0 and 1; or the mean squared error of one output, labels (m) numbers.
    Losses of probabilities on select texts are measured at the best temperature. `kinds` is the result of
    `TextTokenizer.piece_kinds`. Deterministic on one machine. The tier's probabilities are not calibrated.

    Raises:
        UserError: scipy is missing, or there are no rows or n-grams.
        ValueError: targets or labels do not match the texts.
    """
    check_rows(train, targets, select, labels, loss)
    scale = Scale.of(targets, loss)
    targets, labels = scale.inside(targets), scale.inside(labels)
    table, select_table = (_table(encoded, kinds, settings.buckets) for encoded in (train, select))
    texts = np.bincount(table.indices, minlength=settings.buckets)
    used = np.argsort(-texts, kind="stable")[
        : np.count_nonzero(texts >= settings.least_texts)
    ]  # frequent buckets first, close together in memory
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
            break  # weaker penalties overfit even more
        best, best_loss = found, lost
    weights, bias = problem.parts(best)
    weights, bias = weights * stretch[:, None] * scale.deviation, bias * scale.deviation + scale.mean
    return _as_tier(weights, bias, used, kinds, settings.buckets)


@dataclass(frozen=True)
class Scale:
    """Standardises targets of a regression to mean 0 and deviation 1; other targets are unchanged."""

    mean: float = 0.0
    deviation: float = 1.0

    @classmethod
    def of(cls, targets: np.ndarray, loss: str) -> Scale:
        """The scale of these train targets."""
        return cls(float(targets.mean()), float(targets.std()) or 1.0) if loss == MEAN_SQUARE else cls()

    def inside(self, values: np.ndarray) -> np.ndarray:
        """Standardised values."""
        return values if self == Scale() else (values - self.mean) / self.deviation


def check_rows(
    train: Encoded, targets: np.ndarray, select: Encoded, labels: np.ndarray, loss: str = CROSS_ENTROPY
) -> None:
    """Raises the errors of `train_static` for rows, targets (n, n_outputs) and labels (m, …) that do not match."""
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

    Probabilities are taken at their best temperature, since a penalty also shrinks logits, which does not matter.
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
    """Sum over rows of the cross-entropy for single classes, and its slopes: (n, n_classes) both."""
    logs = log_softmax(logits)
    return -float((targets * logs).sum()), np.exp(logs) - targets


def _label_entropy(logits: np.ndarray, targets: np.ndarray) -> tuple[float, np.ndarray]:
    """`_class_entropy` for independent labels."""
    log_yes, log_no = -np.logaddexp(0, -logits), -np.logaddexp(0, logits)
    return -float((targets * log_yes + (1 - targets) * log_no).sum()), np.exp(log_yes) - targets


def _half_square(outputs: np.ndarray, targets: np.ndarray) -> tuple[float, np.ndarray]:
    """Half the sum of squares, and its slopes."""
    differences = outputs - targets
    return float((differences**2).sum()) / 2, differences


# By loss: its sum over rows, and a typical second derivative of one row's loss with respect to an output.
_LOSSES: Mapping[str, tuple[Summed, float]] = {
    CROSS_ENTROPY: (_class_entropy, _VARIANCE),
    BINARY_CROSS_ENTROPY: (_label_entropy, _VARIANCE),
    MEAN_SQUARE: (_half_square, 1.0),
}


class _Problem:
    """Loss of a linear model on sparse rows as a function of one vector: weights first, then the bias."""

    def __init__(self, table: Any, targets: np.ndarray, loss: str) -> None:
        self.summed, self.variance = _LOSSES[loss]
        self.table, self.transposed = table, table.T.tocsr()  # both in row order
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
        outputs: np.ndarray = table @ weights + bias
        return outputs

    def loss(self, vector: np.ndarray, penalty: float) -> tuple[float, np.ndarray]:
        """The penalised loss and its gradient."""
        weights, _ = self.parts(vector)
        n = len(self.targets)
        lost, slopes = self.summed(self.logits(vector, self.table), self.targets)
        slopes = (slopes / n).astype(np.float32)
        gradient = self.transposed @ slopes + np.float32(penalty) * weights
        squares = float(vector[: weights.size] @ vector[: weights.size])
        return lost / n + penalty / 2 * squares, np.concatenate([gradient.ravel(), slopes.sum(axis=0)])

    def solve(self, penalty: float, start: np.ndarray, iterations: int) -> np.ndarray:
        # Second derivative of a column: its mean square times a typical p (1 - p).
        columns = self.variance * self.squares + penalty
        curvature = np.concatenate([np.repeat(columns, self.shape[1]), np.full(self.shape[1], self.variance)])
        function = partial(self.loss, penalty=penalty)
        return minimise(function, start, curvature.astype(np.float32), iterations)


def _table(encoded: Encoded, kinds: np.ndarray, n_buckets: int) -> Any:
    """Texts as sparse rows: count of each bucket divided by the root of the text's number of features."""
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
    """Scale factors of columns by the number of rows with each, (n) float64; mean square over occurrences is 1.

    A column twice as large needs half the weight, at a quarter of the penalty. Rare n-grams say more about a text than
    frequent ones, but with equal scales the penalty would keep their weights small.
    """
    factors = (1 + np.log(n_rows / texts)) ** rarity
    return factors / np.sqrt(np.average(factors**2, weights=texts))


def _stretched(table: Any, factors: np.ndarray) -> Any:
    table.data *= factors[table.indices].astype(np.float32)
    return table


def _as_tier(weights: np.ndarray, bias: np.ndarray, used: np.ndarray, kinds: np.ndarray, n_buckets: int) -> StaticTier:
    """Rounds weights to the integers of the tier's table; the largest weight of a class becomes `LARGEST`."""
    scales = np.maximum(np.abs(weights).max(axis=0) / LARGEST, np.finfo(np.float32).tiny).astype(np.float32)
    table = np.zeros((n_buckets, weights.shape[1]), dtype=np.int16)
    table[used] = np.clip(np.rint(weights / scales), -LARGEST, LARGEST)
    return StaticTier(table, scales, bias.astype(np.float32), kinds)
