"""Rows that share text: promises hold where a group counts once, and break where its rows count one by one."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from ziggurat.calibrate import RISKS, groups_of, p_value, per_draw

pytestmark = pytest.mark.proof

ACCURACY, AGREEMENT = RISKS["accuracy"], RISKS["agreement"]
TARGET, LEVEL, RUNS = 0.02, 0.05, 600
ALLOWED = binom.ppf(0.999, RUNS, LEVEL) / RUNS


def stories(seed: int, signed: bool, n_groups: int = 400):
    """Keys and losses (n) of groups of one to many rows, four in five of a group's as its first; their mean is TARGET.

    Both means are: the losses know nothing of the sizes, so that rows counted one by one are about the same world.
    """
    draws = np.random.default_rng(seed)
    group = np.repeat(np.arange(n_groups), draws.geometric(0.15, n_groups))
    keys = draws.integers(0, 2**63, n_groups).astype(np.uint64)[group]
    values, shares = ([-1, 0, 1], [0.02, 0.94, 0.04]) if signed else ([0, 1], [1 - TARGET, TARGET])
    story = draws.choice(values, n_groups, p=shares)[group]
    losses = np.where(draws.random(len(keys)) < 0.8, story, draws.choice(values, len(keys), p=shares)).astype(float)
    order = draws.permutation(len(keys))
    return keys[order], losses[order]


@pytest.mark.parametrize("risk", [AGREEMENT, ACCURACY], ids=lambda risk: risk.name)
def test_counting_rows_breaks_the_promise_and_groups_keep_it(risk):
    """The true mean is the target, so that each certificate is wrong; five of a hundred may be."""
    by_group, by_row = [], []
    for seed in range(RUNS):
        keys, losses = stories(seed, signed=not risk.binary)
        by_group.append(p_value(risk, per_draw(losses, groups_of(keys), risk), TARGET, LEVEL) <= LEVEL)
        by_row.append(p_value(risk, losses, TARGET, LEVEL) <= LEVEL)
    assert np.mean(by_group) <= ALLOWED < np.mean(by_row) / 2


def test_groups_must_come_in_random_order():
    """Large groups lose nothing and small ones all: who bets on the large ones first has won before the small come."""
    draws, sorted_rows, shuffled = np.random.default_rng(0), [], []
    for _ in range(RUNS):
        small = draws.random(300) < 0.05
        sizes = np.where(small, 1, 9)
        hashes = draws.integers(0, 2**63, 300).astype(np.uint64)
        losses, keys = np.repeat(small.astype(float), sizes), np.repeat(hashes, sizes)
        for found, order in ((sorted_rows, np.argsort(losses)), (shuffled, draws.permutation(len(keys)))):
            groups = groups_of(keys[order])
            found.append(p_value(ACCURACY, per_draw(losses[order], groups, ACCURACY), 0.05, LEVEL) <= LEVEL)
    assert np.mean(shuffled) <= ALLOWED < np.mean(sorted_rows) / 2
