"""P-values for "the mean loss exceeds the target", upper confidence bounds for the mean loss, and rows that they need.

All hold for independent rows of one distribution at any number of them, with no normal approximation. scipy is needed.

Tests of a bounded mean by betting: a gambler who could not win if the risk were above the target, and does.

The capital starts at 1 and is multiplied, row by row, by 1 + bet * (target - loss). The bet is decided before the row
is seen and never so large that the capital could become negative. If the mean loss is at least the target, the capital
is a nonnegative supermartingale and exceeds 1 / p at any time with probability at most p (Ville): one over the largest
capital is a p-value (Waudby-Smith & Ramdas, "Estimating means of bounded random variables by betting", 2024).
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise, takewhile

import numpy as np

from ziggurat.calibrate.risks import Risk

# How to bet decides the power alone, never the validity. Shares of 400 seeded samples that certified a target of 0.01
# at 95 %, losses in {-1, 0, 1} of which `q` are not 0 with mean `mu`. The last column is the normal test, which
# promises nothing at such n; the one before an unconditional exact test of the sum, its nuisance parameter bounded
# first:
#
#      n     q     mu    | aGRAPA  mixture of bets  fixed n (WSR)  towards the goal | exact, S with Berger-Boos | normal
#    500   0.005  0      |  0.52        0.50            0.58            0.61        |           0.41            |  0.75
#   1500   0.02   0      |  0.48        0.59            0.68            0.76        |           0.76            |  0.87
#   5000   0.02   0.005  |  0.33        0.56            0.65            0.74        |           0.71            |  0.78
#  20000   0.05   0.007  |  0.14        0.29            0.39            0.54        |           0.54            |  0.60
#
# So the bet is the one that is best if the capital that is still missing must be won in the rows that are still left:
# sqrt(2 log(missing) / (variance * rows left)), target-recalculating bets (Voráček & Orabona 2025).
_BOLDEST = 0.95  # share of the capital that one row may take: below 1, so that no single loss ends the game
_PRIOR_ROWS, _PRIOR_VARIANCE = 30, 0.01  # the variance, on [0, 1], that is assumed until rows show it
_BLOCKS = 128  # at most, between which bets change; with 1,000 the power is the same within 1 %


def log_capital(losses: np.ndarray, targets: np.ndarray, low: float, high: float, level: float) -> np.ndarray:
    """Logarithm of the largest capital, (m) float64 >= 0, for losses (n, m) in [low, high] and targets (m) in it.

    One column of losses stands for m, one target for m: each pair is a game of its own. The rows must be exchangeable
    in the order given: shuffle them with a fixed seed if they came sorted by anything. Bets aim at a capital of
    1 / level by the last row and cease once they have it, so more is not to be expected; it is 1 where the mean of the
    losses is not below the target. Losses are rescaled to [0, 1], never clipped; the caller checks their range.
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
        goal, left = goals[playing], n - start
        variance = squares[playing] / (_PRIOR_ROWS + start)
        bet = np.minimum(np.sqrt(2 * missing[playing] / (variance * left)), _BOLDEST / (1 - goal))
        block = losses[start:end] if losses.shape[1] == 1 else losses[start:end, playing]
        gaps = goal - (block - low) / (high - low)
        capital[playing] += np.log1p(bet * gaps).sum(axis=0)
        squares[playing] += (gaps**2).sum(axis=0)
        best = np.maximum(best, capital)
    # Capital won early is valid evidence whatever follows, but what the rows as a whole contradict is not promised.
    return np.where(losses.mean(axis=0) < targets, best, 0)


_LEVEL = 0.05
# Bounds are sought among these targets, fixed before any row is seen: finest where losses are, in shares of the range.
_STEPS = np.concatenate([np.arange(500) / 10_000, np.arange(50, 200) / 1_000, np.arange(20, 100) / 100])
_TARGETS_AT_ONCE = 256
_POWER = 0.8  # share of samples that certify, at the number of rows that is said to be needed


def p_value(risk: Risk, losses: np.ndarray, target: float, level: float = _LEVEL) -> float:
    """The p-value of "the mean of the risk exceeds the target" by the strongest test here for this kind of risk.

    Exact binomial for losses of 0 and 1, betting for all others, which bets for the `level` at which the p-value will
    be judged (it is valid at any) and wants the rows in random order. Errors as those.
    """
    if risk.binary:
        return binomial_p_value(losses, target)
    return betting_p_value(losses, target, risk.low, risk.high, level)


def p_values(risk: Risk, losses: np.ndarray, target: float, level: float = _LEVEL) -> np.ndarray:
    """`p_value` of m settings at once, (m) float64, for losses (n, m): many times faster where it bets."""
    from scipy.special import bdtr

    if np.ndim(losses) != 2:
        raise ValueError(f"losses must be (n, m), not {np.shape(losses)}")
    values = _checked(losses, risk.low, risk.high, target)
    if risk.binary:
        _refuse_fractions(values)
        return bdtr(np.count_nonzero(values, axis=0), len(values), target)
    _refuse_share(level, "level")
    return np.exp(-log_capital(values, np.array([target]), risk.low, risk.high, level))


def binomial_p_value(losses: np.ndarray, target: float) -> float:
    """P(Binomial(n, target) <= number of ones) for losses (n) of 0 and 1: the exact test, no bound can be tighter.

    ValueError for other losses, none at all, or a target outside of [0, 1).
    """
    from scipy.special import bdtr

    values = _checked(_vector(losses), 0, 1, target)
    _refuse_fractions(values)
    return float(bdtr(np.count_nonzero(values), len(values), target))


def hoeffding_bentkus_p_value(losses: np.ndarray, target: float) -> float:
    """The lesser of Hoeffding's and Bentkus' bounds for losses (n) in [0, 1]: valid in any order of the rows.

    min(exp(-n KL(mean, target)), e * P(Binomial(n, target) <= ceil(n mean))), KL between Bernoulli distributions (Bates
    et al. 2021, Angelopoulos et al. 2021). Weaker than betting where losses vary less than 0/1 ones of the same mean.
    ValueError for losses outside of [0, 1], none, or a target outside of [0, 1).
    """
    from scipy.special import bdtr, rel_entr

    values = _checked(_vector(losses), 0, 1, target)
    mean = min(float(values.mean()), target)
    hoeffding = np.exp(-len(values) * (rel_entr(mean, target) + rel_entr(1 - mean, 1 - target)))
    bentkus = np.e * bdtr(np.ceil(values.sum()), len(values), target)
    return float(min(hoeffding, bentkus, 1))


def betting_p_value(losses: np.ndarray, target: float, low: float, high: float, level: float = _LEVEL) -> float:
    """One over the largest capital of a bettor against "mean > target", for losses (n) in [low, high].

    Rows in random order; see `ziggurat.calibrate.bounds` for the bets and their source. Valid at any level, strongest
    at `level`, below which the p-value hardly goes. ValueError for losses outside of the range, none, a target outside
    of [low, high), or a level outside of (0, 1).
    """
    values = _checked(_vector(losses), low, high, target)
    _refuse_share(level, "level")
    return float(np.exp(-log_capital(values[:, None], np.array([target]), low, high, level)[0]))


def upper_bound(risk: Risk, losses: np.ndarray, confidence: float) -> float:
    """What the mean of the risk does not exceed, with this confidence: the smallest target that would be certified.

    For 0/1 losses exact (Clopper & Pearson 1934, one-sided). Else to the step of a fixed list of targets, 0.0001 of the
    range near 0, and `risk.high` where not even the first is certified. Those targets are tested from the largest down
    to the first failure, a fixed sequence, since a betting p-value need not fall where the target rises: `p_value`
    certifies every listed target that is not below the bound. ValueError as `p_value`, or for a confidence outside of
    (0, 1).
    """
    _refuse_share(confidence, "confidence")
    values = _checked(_vector(losses), risk.low, risk.high, risk.low)
    if risk.binary:
        from scipy.special import betaincinv

        _refuse_fractions(values)
        ones, n = np.count_nonzero(values), len(values)
        return 1.0 if ones == n else float(betaincinv(ones + 1, n - ones, confidence))
    level, targets = 1 - confidence, _targets(risk)
    certified = 0
    while certified < len(targets):
        some = targets[certified : certified + _TARGETS_AT_ONCE]
        fails = np.exp(-log_capital(values[:, None], some, risk.low, risk.high, level)) > level
        certified += int(fails.argmax()) if fails.any() else len(some)
        if fails.any():
            break
    return float(targets[certified - 1]) if certified else risk.high


def rows_needed(risk: Risk, mean: float, variance: float, target: float, confidence: float) -> int | None:
    """About how many rows with this mean and variance of the losses certify the target in four samples of five.

    None where mean >= target: no number does. For 0/1 losses from the exact power (the variance plays no part). Else
    the rows that a normal test would need plus those that even rows without any spread do, with factors that were
    fitted to simulated samples of {-1, 0, 1}: right within about 15 %. ValueError for a negative variance, a mean
    outside of the range, or a target or confidence as in `p_value` and `upper_bound`.
    """
    _refuse_share(confidence, "confidence")
    _refuse_target(target, risk.low, risk.high)
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
    """The smallest number of rows, up to the saw teeth of a count, at which the exact test has the power."""
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
    """The targets among which bounds are sought, falling float64, within [risk.low, risk.high)."""
    steps = max(abs(risk.low), abs(risk.high)) * _STEPS
    targets = np.concatenate([steps[::-1], -steps[1:]])
    return targets[(targets >= risk.low) & (targets < risk.high)]


def _vector(losses: np.ndarray) -> np.ndarray:
    if np.ndim(losses) != 1:
        raise ValueError(f"losses must be a vector, not of shape {np.shape(losses)}")
    return losses


def _checked(losses: np.ndarray, low: float, high: float, target: float) -> np.ndarray:
    """The losses as float64; ValueError where a bound would not hold for them or for the target."""
    values = np.asarray(losses, dtype=np.float64)
    if not values.size:
        raise ValueError("no losses: nothing can be said of none")
    if not ((values >= low) & (values <= high)).all():  # NaN is neither
        raise ValueError(f"losses must lie in [{low:g}, {high:g}]; they are not clipped, for that changes their mean")
    _refuse_target(target, low, high)
    return values


def _refuse_target(target: float, low: float, high: float) -> None:
    if not low <= target < high:
        raise ValueError(f"target must lie in [{low:g}, {high:g}), not {target}")


def _refuse_fractions(values: np.ndarray) -> None:
    if not ((values == 0) | (values == 1)).all():
        raise ValueError("losses must be 0 or 1 for an exact binomial test")


def _refuse_share(value: float, name: str) -> None:
    if not 0 < value < 1:
        raise ValueError(f"{name} must be between 0 and 1, not {value}")


def fixed_sequence(p_values: Iterable[float], level: float) -> int:
    """How many settings, from the start of the path, are certified: those before the first p-value above `level`.

    The path is fixed before the rows that give the p-values are looked at (learned on other rows, from what is least
    likely to lose to what saves most); each p-value tests "the setting's risk exceeds the target". Then the chance that
    any certified setting's risk exceeds the target is at most `level`: to certify a bad one, the first bad one on the
    path must have been certified by its own test (fixed-sequence testing in Learn then Test, Angelopoulos et al. 2021;
    along a learned path, Laufer-Goldshtein et al. 2023). So the cheapest certified may be picked.

    The iterable is read only as far as the first failure. 0 = nothing can be promised. ValueError for a level outside
    (0, 1), or a p-value outside [0, 1] or NaN.
    """
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, not {level:g}")
    return sum(1 for _ in takewhile(lambda p_value: _checked_p_value(p_value) <= level, p_values))


def _checked_p_value(p_value: float) -> float:
    if not 0 <= p_value <= 1:
        raise ValueError(f"{p_value!r} is no p-value")
    return p_value
