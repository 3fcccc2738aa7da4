"""Rows that share something are not drawn one by one: what is drawn is a group of them, and a group has one loss.

What is promised is then the mean over groups of the mean loss in a group: the loss to expect where a group is drawn and
then a row of it. Groups are independent, their losses lie in the risk's range, and every test holds for them as it does
for rows. The mean over rows, where a group counts as often as it has rows, has no such bound: groups of M rows need M
times as many rows, even if nothing is lost, and M would have to be known before (`docs/guarantee.md`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ziggurat.calibrate.risks import Risk


@dataclass(frozen=True, eq=False)
class Groups:
    """Which of n rows are one draw; groups stand in random order if the rows do."""

    rows: np.ndarray  # (n) int64, group by group
    starts: np.ndarray  # (n_groups) int64: where in `rows` each group begins
    drawn: np.ndarray  # (n_groups) int64: a row of each, drawn at random

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def sizes(self) -> np.ndarray:
        """Rows of each group, (n_groups) int64."""
        return np.diff(self.starts, append=len(self.rows))


def groups_of(keys: np.ndarray) -> Groups | None:
    """Rows of equal keys, (n) uint64 hashes of what they share, as groups; None where each row is alone.

    A group stands where its drawn row does. Where its first row does, larger groups would come sooner, and the betting
    bound needs an order that knows nothing of sizes.
    """
    known, group, counts = np.unique(keys, return_inverse=True, return_counts=True)
    if len(counts) == len(keys):
        return None
    ends = np.cumsum(counts)
    draws = np.random.default_rng(int(np.bitwise_xor.reduce(known)))  # the same for the same rows, and no other's
    drawn = np.argsort(group, kind="stable")[ends - counts + draws.integers(0, counts)]
    rows = np.argsort(drawn[group], kind="stable")
    order = np.argsort(drawn)
    sizes = counts[order]
    return Groups(rows, np.cumsum(sizes) - sizes, drawn[order])


def per_draw(losses: np.ndarray, groups: Groups | None, risk: Risk) -> np.ndarray:
    """One loss for each draw, (n_groups, …), from the losses of rows, (n, …), which stand in random order.

    A group's mean; of a 0/1 risk the loss of its drawn row: it has the same expectation, stays 0 or 1, and the exact
    test of it is stronger than a bet on means unless groups are large and their rows hardly alike. Without groups the
    losses as they are.
    """
    if groups is None:
        return losses
    if risk.binary:
        return losses[groups.drawn]
    sums = np.add.reduceat(losses[groups.rows], groups.starts, axis=0)
    return (sums.T / groups.sizes).T
