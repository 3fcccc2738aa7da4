"""Groups of dependent rows. Rows that share text are not independent draws; a group of them is one draw with one loss.

The promise is then about the mean over groups of the mean loss within a group. That is the expected loss if a group is
drawn, and then a row of it. Groups are independent, and their losses lie in the risk's range, so all tests hold for
groups as they do for rows. The mean over rows has no such bound: groups of M rows would need M times as many rows, even
without any loss, and M would have to be known beforehand (`docs/guarantee.md`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ziggurat.calibrate.risks import Risk


@dataclass(frozen=True, eq=False)
class Groups:
    """A partition of n rows into draws; groups are in random order if the rows are."""

    rows: np.ndarray  # (n) int64, group by group
    starts: np.ndarray  # (n_groups) int64: where in `rows` each group begins
    drawn: np.ndarray  # (n_groups) int64: one row of each group, drawn at random

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def sizes(self) -> np.ndarray:
        """Rows of each group, (n_groups) int64."""
        return np.diff(self.starts, append=len(self.rows))


def groups_of(keys: np.ndarray) -> Groups | None:
    """Groups of rows with equal keys, (n) uint64 hashes of the shared text; None if all keys differ.

    A group is ordered by its drawn row. Ordered by their first rows, larger groups would come earlier, but the betting
    bound needs an order that does not depend on sizes.
    """
    known, group, counts = np.unique(keys, return_inverse=True, return_counts=True)
    if len(counts) == len(keys):
        return None
    ends = np.cumsum(counts)
    draws = np.random.default_rng(int(np.bitwise_xor.reduce(known)))  # a seed that depends on the rows alone
    drawn = np.argsort(group, kind="stable")[ends - counts + draws.integers(0, counts)]
    rows = np.argsort(drawn[group], kind="stable")
    order = np.argsort(drawn)
    sizes = counts[order]
    return Groups(rows, np.cumsum(sizes) - sizes, drawn[order])


def per_draw(losses: np.ndarray, groups: Groups | None, risk: Risk) -> np.ndarray:
    """One loss for each draw, (n_groups, …), from the losses of rows in random order, (n, …).

    It is the group's mean loss. For a 0/1 risk it is the loss of the group's drawn row instead: it has the same
    expectation and stays 0 or 1. Its exact test is stronger than a bet on means, unless groups are large and their rows
    differ a lot. Without groups the losses are returned unchanged.
    """
    if groups is None:
        return losses
    if risk.binary:
        return losses[groups.drawn]
    sums = np.add.reduceat(losses[groups.rows], groups.starts, axis=0)
    return (sums.T / groups.sizes).T
