"""P-values for "the mean loss exceeds the target", upper confidence bounds for the mean loss, and the rows needed.

All hold for any number of independent, identically distributed rows, without a normal approximation. scipy is needed.

Bounded means are tested by betting against "the risk exceeds the target". The capital starts at 1. Each row multiplies
it by 1 + bet * (target - loss). The bet is fixed before the row is read, and is small enough to keep the capital
nonnegative. If the mean loss is at least the target, the capital is a nonnegative supermartingale. It then exceeds
1 / p at any time with probability at most p (Ville's inequality). So one over the largest capital is a p-value
(Waudby-Smith & Ramdas, "Estimating means of bounded random variables by betting", 2024).
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise, takewhile

import numpy as np

from ziggurat.calibrate.risks import Risk

# The betting strategy affects only the power, never the validity. The table shows the share of 400 seeded samples that
# certified a target of 0.01 at 95 %. Losses are in {-1, 0, 1}; a share `q` is nonzero, and the mean is `mu`. The last
# column is the normal test, which is not valid at such n. The column before it is an unconditional exact test of the
# sum whose nuisance parameter is bounded first (Berger & Boos).
#
#      n     q     mu    | aGRAPA  mixture of bets  fixed n (WSR)  towards the goal | exact, S with Berger-Boos | normal
#    500   0.005  0      |  0.52        0.50            0.58            0.61        |           0.41            |  0.75
#   1500   0.02   0      |  0.48        0.59            0.68            0.76        |           0.76            |  0.87
#   5000   0.02   0.005  |  0.33        0.56            0.65            0.74        |           0.71            |  0.78
#  20000   0.05   0.007  |  0.14        0.29            0.39            0.54        |           0.54            |  0.60
#
# So each bet is the best one for winning the missing capital in the remaining rows:
# sqrt(2 log(missing) / (variance * rows left)), target-recalculating bets (Voráček & Orabona 2025).
_LARGEST_BET = 0.95  # share of the capital that one row may take; below 1, so that one loss cannot use up the capital
_PRIOR_ROWS, _PRIOR_VARIANCE = 30, 0.01  # prior for the variance on [0, 1], and its weight in rows
_BLOCKS = 128  # largest number of blocks; the bet is constant within one; with 1,000 the power differs by under 1 %


def log_capital(losses: np.ndarray, targets: np.ndarray, low: float, high: float, level: float) -> np.ndarray:
    """Logarithm of the largest capital, (m) float64 >= 0, for losses (n, m) in [low, high] and targets (m) in it.

    A single column of losses, or a single target, is broadcast to m. Each pair of column and target is one test. The
    rows must be exchangeable in the given order: shuffle sorted rows with a fixed seed. Bets aim at a capital of
    1 / level by the last row and stop once they reach it, so the capital hardly exceeds that. It is 1 where the mean
    loss is not below the target. Losses are rescaled to [0, 1], never clipped; the caller checks their range.
    """
    n, m = len(losses), max(losses.shape[1], len(targets))
    goals = np.broadcast_to((targets - low) / (high - low), m)
    capital, best = np.zeros((2, m))
    squares = np.full(m, _PRIOR_ROWS * _PRIOR_VARIANCE)
    ends = np.linspace(0, n, min(n, 32 + n // 32, _BLOCKS) + 1).round().astype(np.int64)
    for start, end in pairwise(ends):
        missing = np.maximum(-np.log(level) - capital, 0)
        playing = np.flatnonzero(missing)
        if not len(playing):
            break
        goal, rows_left = goals[playing], n - start
        variance = squares[playing] / (_PRIOR_ROWS + start)
        bet = np.minimum(np.sqrt(2 * missing[playing] / (variance * rows_left)), _LARGEST_BET / (1 - goal))
        block = losses[start:end] if losses.shape[1] == 1 else losses[start:end, playing]
        gaps = goal - (block - low) / (high - low)
        capital[playing] += np.log1p(bet * gaps).sum(axis=0)
        squares[playing] += (gaps**2).sum(axis=0)
        best = np.maximum(best, capital)
    # Capital that was won early stays valid evidence. But a target below the mean of all rows is never certified.
    return np.where(losses.mean(axis=0) < targets, best, 0)


_LEVEL = 0.05
# Bounds are searched among these targets, shares of the range, fixed before any row is read; finest near 0.
_STEPS = np.concatenate([np.arange(500) / 10_000, np.arange(50, 200) / 1_000, np.arange(20, 100) / 100])
_TARGETS_AT_ONCE = 256
_POWER = 0.8  # share of samples that certify with `rows_needed` rows


def p_value(risk: Risk, losses: np.ndarray, target: float, level: float = _LEVEL) -> float:
    """The p-value of "the mean of the risk exceeds the target", by the strongest test here for this kind of risk.

    The exact binomial test for losses of 0 and 1, else the betting test. The betting test needs rows in random order.
    It is valid at any level and strongest at `level`. Errors as in `binomial_p_value` and `betting_p_value`.
    """
    if risk.binary:
        return binomial_p_value(losses, target)
    return betting_p_value(losses, target, risk.low, risk.high, level)


def p_values(risk: Risk, losses: np.ndarray, target: float, level: float = _LEVEL) -> np.ndarray:
    """`p_value` of m settings at once, (m) float64, for losses (n, m); far faster than a loop for the betting test."""
    from scipy.special import bdtr

    if np.ndim(losses) != 2:
        raise ValueError(f"losses must be (n, m), not {np.shape(losses)}")
    values = _checked_losses(losses, risk.low, risk.high, target)
    if risk.binary:
        _check_binary(values)
        return bdtr(np.count_nonzero(values, axis=0), len(values), target)
    _check_share(level, "level")
    return np.exp(-log_capital(values, np.array([target]), risk.low, risk.high, level))


def binomial_p_value(losses: np.ndarray, target: float) -> float:
    """P(Binomial(n, target) <= number of ones) for losses (n) of 0 and 1: the exact test.

    ValueError for other losses, an empty array, or a target outside of [0, 1).
    """
    from scipy.special import bdtr

    values = _checked_losses(_vector(losses), 0, 1, target)
    _check_binary(values)
    return float(bdtr(np.count_nonzero(values), len(values), target))


def hoeffding_bentkus_p_value(losses: np.ndarray, target: float) -> float:
    """The smaller of Hoeffding's and Bentkus' bounds for losses (n) in [0, 1]; valid for any order of the rows.

    min(exp(-n KL(mean, target)), e * P(Binomial(n, target) <= ceil(n mean))), KL between Bernoulli distributions (Bates
    et al. 2021, Angelopoulos et al. 2021). Weaker than betting where losses vary less than 0/1 losses of the same mean.
    ValueError for losses outside of [0, 1], an empty array, or a target outside of [0, 1).
    """
    from scipy.special import bdtr, rel_entr

    values = _checked_losses(_vector(losses), 0, 1, target)
    mean = min(float(values.mean()), target)
    hoeffding = np.exp(-len(values) * (rel_entr(mean, target) + rel_entr(1 - mean, 1 - target)))
    bentkus = np.e * bdtr(np.ceil(values.sum()), len(values), target)
    return float(min(hoeffding, bentkus, 1))


def betting_p_value(losses: np.ndarray, target: float, low: float, high: float, level: float = _LEVEL) -> float:
    """One over the largest capital of bets against "mean > target", for losses (n) in [low, high].

    Rows must be in random order. The module's docstring gives the method and its source. Valid at any level, strongest
    at `level`; the p-value hardly falls below it. ValueError for losses outside of the range, an empty array, a target
    outside of [low, high), or a level outside of (0, 1).
    """
    values = _checked_losses(_vector(losses), low, high, target)
    _check_share(level, "level")
    return float(np.exp(-log_capital(values[:, None], np.array([target]), low, high, level)[0]))


def upper_bound(risk: Risk, losses: np.ndarray, confidence: float) -> float:
    """Upper bound of the mean of the risk, with this confidence: the smallest target that would be certified.

    Exact for 0/1 losses (Clopper & Pearson 1934, one-sided). Else one of a fixed list of targets, whose step near 0 is
    0.0001 of the range, or `risk.high` if none is certified. The targets are tested from the largest down to the first
    failure, as a fixed sequence, because a betting p-value need not fall as the target rises. So `p_value` certifies
    each listed target that is not below the bound. ValueError as `p_value`, or for a confidence outside of (0, 1).
    """
    _check_share(confidence, "confidence")
    values = _checked_losses(_vector(losses), risk.low, risk.high, risk.low)
    if risk.binary:
        from scipy.special import betaincinv

        _check_binary(values)
        n_ones, n = np.count_nonzero(values), len(values)
        return 1.0 if n_ones == n else float(betaincinv(n_ones + 1, n - n_ones, confidence))
    level, targets = 1 - confidence, _targets(risk)
    certified = 0
    while certified < len(targets):
        part = targets[certified : certified + _TARGETS_AT_ONCE]
        fails = np.exp(-log_capital(values[:, None], part, risk.low, risk.high, level)) > level
        certified += int(fails.argmax()) if fails.any() else len(part)
        if fails.any():
            break
    return float(targets[certified - 1]) if certified else risk.high


def rows_needed(risk: Risk, mean: float, variance: float, target: float, confidence: float) -> int | None:
    """About how many rows, with losses of this mean and variance, certify the target with probability 0.8.

    None where mean >= target: no number of rows does. For 0/1 losses the exact power is used, without the variance.
    Else the sum of two terms: the rows of a normal test, and the rows needed without any variance. Their factors were
    fitted to simulated samples of {-1, 0, 1}; the result is right within about 15 %. ValueError for a negative
    variance, a mean outside of the range, or a target or confidence as in `p_value` and `upper_bound`.
    """
    _check_share(confidence, "confidence")
    _check_target(target, risk.low, risk.high)
    if not (variance >= 0 and risk.low <= mean <= risk.high):
        raise ValueError(f"no losses between {risk.low:g} and {risk.high:g} have mean {mean} and variance {variance}")
    if mean >= target:
        return None
    if risk.binary:
        return _binomial_rows(mean, target, confidence)
    from scipy.special import ndtri

    normal = (ndtri(confidence) + ndtri(_POWER)) ** 2 * variance / (target - mean) ** 2
    least = -np.log1p(-confidence) * (risk.high - target) / (target - mean)
    return int(np.ceil(1.13 * normal + 1.25 * least))


def _binomial_rows(mean: float, target: float, confidence: float) -> int:
    """Smallest number of rows, found by bisection, at which the exact test has the power."""
    from scipy.special import bdtr, bdtrik

    def enough(n: int) -> bool:
        if bdtr(0, n, target) > 1 - confidence:
            return False
        allowed = np.floor(bdtrik(1 - confidence, n, target))  # the largest count whose p-value passes
        return bool(bdtr(allowed, n, mean) >= _POWER)

    above = 1
    while not enough(above):
        above *= 2
    below = above // 2
    while above - below > 1:
        middle = (below + above) // 2
        below, above = (below, middle) if enough(middle) else (middle, above)
    return above


def _targets(risk: Risk) -> np.ndarray:
    """The targets among which bounds are searched, falling float64, within [risk.low, risk.high)."""
    steps = max(abs(risk.low), abs(risk.high)) * _STEPS
    targets = np.concatenate([steps[::-1], -steps[1:]])
    return targets[(targets >= risk.low) & (targets < risk.high)]


def _vector(losses: np.ndarray) -> np.ndarray:
    if np.ndim(losses) != 1:
        raise ValueError(f"losses must be a vector, not of shape {np.shape(losses)}")
    return losses


def _checked_losses(losses: np.ndarray, low: float, high: float, target: float) -> np.ndarray:
    """The losses as float64; ValueError if a bound would not hold for them or for the target."""
    values = np.asarray(losses, dtype=np.float64)
    if not values.size:
        raise ValueError("no losses: at least one is needed")
    if not ((values >= low) & (values <= high)).all():  # NaN is neither
        raise ValueError(
            f"losses must lie in [{low:g}, {high:g}]; they are not clipped, because that would change their mean"
        )
    _check_target(target, low, high)
    return values


def _check_target(target: float, low: float, high: float) -> None:
    if not low <= target < high:
        raise ValueError(f"target must lie in [{low:g}, {high:g}), not {target}")


def _check_binary(values: np.ndarray) -> None:
    if not ((values == 0) | (values == 1)).all():
        raise ValueError("losses must be 0 or 1 for an exact binomial test")


def _check_share(value: float, name: str) -> None:
    if not 0 < value < 1:
        raise ValueError(f"{name} must be between 0 and 1, not {value}")


def fixed_sequence(p_values: Iterable[float], level: float) -> int:
    """Number of settings at the start of the path that are certified: those before the first p-value above `level`.

    The path must be fixed before the rows that give the p-values are read. It is learned on other rows, from the safest
    setting to the cheapest. Each p-value tests "the setting's risk exceeds the target". The probability that any
    certified setting's risk exceeds the target is then at most `level`: certifying a bad setting requires that the
    first bad setting on the path passes its own test (fixed-sequence testing in Learn then Test, Angelopoulos et al.
    2021; along a learned path, Laufer-Goldshtein et al. 2023). So the caller may pick the cheapest certified setting.

    The iterable is read up to the first failure. 0 = none is certified. ValueError for a level outside (0, 1), or a
    p-value outside [0, 1] or NaN.
    """
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, not {level:g}")
    return sum(1 for _ in takewhile(lambda p_value: _checked_p_value(p_value) <= level, p_values))


def _checked_p_value(p_value: float) -> float:
    if not 0 <= p_value <= 1:
        raise ValueError(f"{p_value!r} is no p-value")
    return p_value
