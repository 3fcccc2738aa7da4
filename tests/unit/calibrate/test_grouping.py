"""Rows that were drawn in groups: one loss for each draw, tests that hold for draws, and rows that do not stand in."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import chisquare

from ziggurat.calibrate import RISKS, Evidence, Risk, Setting, StoredRun, groups_of, p_value, p_values, per_draw
from ziggurat.calibrate.certify import certify

ACCURACY, AGREEMENT = RISKS["accuracy"], RISKS["agreement"]
KEYS = np.array([7, 3, 7, 9, 3, 7], dtype=np.uint64)
TARGET, LEVEL, RUNS = 0.02, 0.05, 600


def test_groups_hold_every_row_once_with_those_of_its_key():
    groups = groups_of(KEYS)
    parts = np.split(groups.rows, groups.starts[1:])
    assert sorted(part.tolist() for part in parts) == [[0, 2, 5], [1, 4], [3]]
    assert len(groups) == 3 and groups.sizes.tolist() == [len(part) for part in parts]
    assert all(row in part for row, part in zip(groups.drawn, parts, strict=True))


def test_the_draw_of_a_group_is_uniform_over_its_rows():
    draws, counts, places = np.random.default_rng(0), np.zeros(4), []
    keys = np.array([0, 1, 1, 1, 1, 2, 3, 4, 5])
    for _ in range(800):
        order, hashes = draws.permutation(9), draws.integers(0, 2**63, 6).astype(np.uint64)
        groups = groups_of(hashes[keys][order])
        assert (np.diff(groups.drawn) > 0).all()
        (row,) = [row for row in order[groups.drawn] if keys[row] == 1]
        counts[row - 1] += 1
        places.append(groups.sizes.argmax())
    assert chisquare(counts).pvalue > 0.001
    assert chisquare(np.bincount(places, minlength=6)).pvalue > 0.001  # whatever its size, it comes anywhere


def test_groups_of_one_row_leave_losses_unchanged():
    losses = np.array([0.0, 1.0, 0.0])
    assert groups_of(np.array([5, 1, 9], dtype=np.uint64)) is None
    assert per_draw(losses, None, AGREEMENT) is losses and per_draw(losses, None, ACCURACY) is losses


def test_a_groups_loss_is_its_mean_or_its_drawn_row():
    groups, losses = groups_of(KEYS), np.array([1.0, -1.0, 0.0, 1.0, 0.0, 1.0])
    expected = np.array([{7: 2 / 3, 3: -0.5, 9: 1.0}[key] for key in KEYS[groups.drawn].tolist()])
    assert per_draw(losses, groups, ACCURACY) == pytest.approx(expected)
    many = np.stack([losses, -losses], axis=1)
    assert per_draw(many, groups, ACCURACY) == pytest.approx(np.stack([expected, -expected], axis=1))
    assert per_draw(np.abs(many), groups, AGREEMENT).tolist() == np.abs(many)[groups.drawn].tolist()


@pytest.mark.parametrize("risk", [AGREEMENT, ACCURACY, Risk("share", 0, 1, False, False, RISKS["harm"].loss)])
def test_the_mean_of_a_group_stays_in_the_risks_range(risk):
    draws = np.random.default_rng(0)
    losses = np.where(draws.random(3000) < 0.9, risk.high, risk.low)
    found = per_draw(losses, groups_of(draws.integers(0, 900, 3000).astype(np.uint64)), risk)
    assert found.max() == risk.high and found.min() >= risk.low
    assert 0 <= p_value(risk, found, 0.5) <= 1


def test_means_of_large_groups_certify_more_than_single_rows():
    """Rows that hardly resemble one another: a group of ten says more of a signed loss than one of them."""
    draws = np.random.default_rng(1)
    losses = draws.choice([-1.0, 0.0, 1.0], size=(6000, 200), p=[0.015, 0.965, 0.02])
    groups = groups_of(np.repeat(np.arange(600, dtype=np.uint64), 10))
    singles, means = losses[groups.drawn], per_draw(losses, groups, ACCURACY)
    shares = [(p_values(ACCURACY, some, 0.02) <= LEVEL).mean() for some in (singles, means)]
    assert shares[0] + 0.1 < shares[1]


def test_certifying_counts_groups_and_says_how_many_are_needed():
    """Four hundred rows without a loss certify one point; as a hundred groups of four they do not, and four would."""
    n = 400
    run = StoredRun(np.zeros((n, 2, 2), np.float32), np.full((n, 3), 9), 0.0)
    path = (Setting("entropy", np.array([1.0]), 0.0, 0.5, 0.0, 0.0, 0.0),)
    groups = groups_of(np.repeat(np.arange(100, dtype=np.uint64), 4))
    alone, grouped = (Evidence({0.0: run}, {0.0: np.zeros((n, 2))}, AGREEMENT, one) for one in (None, groups))
    assert certify([path], alone, 0.01, 0.95).settings == path
    none = certify([path], grouped, 0.01, 0.95)
    assert none.settings == () and none.rows_needed == 4 * 299
    assert none.tightest == pytest.approx(1 - 0.05 ** (1 / 100))
    assert certify([path], grouped, 0.03, 0.95).settings == path
