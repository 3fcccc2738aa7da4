"""Tests of a bounded mean by betting: a gambler who could not win if the risk were above the target, and does.

The capital starts at 1 and is multiplied, row by row, by 1 + bet * (target - loss). The bet is decided before the row
is seen and never so large that the capital could become negative. If the mean loss is at least the target, the capital
is a nonnegative supermartingale and exceeds 1 / p at any time with probability at most p (Ville): one over the largest
capital is a p-value (Waudby-Smith & Ramdas, "Estimating means of bounded random variables by betting", 2024).
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

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
