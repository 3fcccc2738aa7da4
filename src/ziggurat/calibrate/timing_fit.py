"""From timed calls of a few shapes to a profile's table: parts from wholes, lines, cells that no batch can have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np

_ROUNDS = 20  # of reweighting


def nonnegative(rows: np.ndarray, wanted: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Least squares x ≥ 0 of `weights` (m) * (`rows` (m, k) @ x - `wanted` (m)): (k).

    Tries every set of entries that may be 0: there are few. Where x is not determined, a small one.
    """
    rows, wanted = rows * weights[:, None], wanted * weights
    k = rows.shape[1]
    best, least = np.zeros(k), float((wanted**2).sum())
    for size in range(k, 0, -1):
        for some in map(list, combinations(range(k), size)):
            found = np.linalg.lstsq(rows[:, some], wanted, rcond=None)[0]
            error = float(((rows[:, some] @ found - wanted) ** 2).sum())
            if (found >= 0).all() and error < least * (1 - 1e-9):
                best, least = np.zeros(k), error
                best[some] = found
    return best


def nonnegative_line(rows: np.ndarray, wanted: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The same with absolute errors in place of squares: a few timings that a neighbour disturbed do not bend it."""
    found = nonnegative(rows, wanted, weights)
    for _ in range(_ROUNDS):
        errors = weights * np.abs(rows @ found - wanted)
        found = nonnegative(rows, wanted, weights / np.sqrt(np.maximum(errors, 1e-3 * errors.max() + 1e-300)))
    return found


def rising(values: np.ndarray) -> np.ndarray:
    """The nearest values (k) ≥ 0 that never fall: neighbours that do are replaced by their mean."""
    blocks: list[tuple[float, int]] = []  # mean, how many
    for value in values.tolist():
        mean, many = max(value, 0.0), 1
        while blocks and blocks[-1][0] > mean:
            before, more = blocks.pop()
            mean, many = (before * more + mean * many) / (more + many), more + many
        blocks.append((mean, many))
    return np.repeat([mean for mean, _ in blocks], [many for _, many in blocks])


def typical(runs: np.ndarray) -> np.ndarray:
    """Seconds (rounds, k) of k calls that were timed one after the other in each round → (k), one for each call.

    The median round's sum, divided by the median shares: what slows a whole round down does not change shares.
    """
    sums = runs.sum(axis=1)
    shares = np.median(runs / sums[:, None], axis=0)
    typical: np.ndarray = np.median(sums) * shares / shares.sum()
    return typical


def completed(
    measured: Mapping[tuple[int, int], float], tokens: Sequence[int], lengths: Sequence[int], base: int
) -> np.ndarray:
    """A whole table (tokens, lengths) from seconds measured at some (tokens, length).

    What is measured stays as it is; in the base column but for noise: more tokens never take less time.

    The column of the length `base` has all steps in T: it must be measured at every T ≥ base. Below stand the texts of
    T tokens each. In another column a token costs something more or less than in that one, which changes slowly with T:
    it is measured at a few T and interpolated in log T, so that cells that no batch can have (T below the length) have
    a value too. ValueError where the base column has gaps.
    """
    found = []
    for n in tokens:
        where = (n, base) if n >= base else (n, n)
        if where not in measured:
            raise ValueError(f"nothing measured at {where}")
        found.append(measured[where])
    line = rising(np.array(found))
    table = np.empty((len(tokens), len(lengths)))
    for j, length in enumerate(lengths):
        mine = sorted(n for n, other in measured if other == length and n >= base)
        excess = [(measured[n, length] - np.interp(n, tokens, line)) / n for n in mine]
        table[:, j] = line + np.array(tokens) * np.interp(np.log(tokens), np.log(mine), excess)
        for i, n in enumerate(tokens):
            table[i, j] = line[i] if length == base else measured.get((n, length), table[i, j])
    return np.maximum(table, 0)
