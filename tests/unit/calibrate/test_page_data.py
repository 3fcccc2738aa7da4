"""The arrays of a calibration's page are what slow loops over the rows say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ziggurat.calibrate import deciles
from ziggurat.calibrate.page.data import costliest, exit_shares, oracle_rungs, random_loss, tokens_left, undominated

repeatable = settings(derandomize=True, deadline=None, max_examples=60)
rows = st.integers(1, 60)
seeds = st.integers(0, 10_000)


@repeatable
@given(n=rows, seed=seeds)
def test_exits_and_what_random_ones_lose(n, seed):
    rng = np.random.default_rng(seed)
    rungs, losses = rng.integers(0, 4, n), rng.integers(-1, 2, (n, 4)).astype(float)
    shares = exit_shares(rungs, 4)
    assert shares == pytest.approx([sum(rung == one for one in rungs) / n for rung in range(4)])
    # Over all ways to deal the exits out, each row gets each row's exit equally often.
    every = [losses[row, rung] for row in range(n) for rung in rungs]
    assert random_loss(losses, rungs) == pytest.approx(np.mean(every))


@repeatable
@given(n=rows, seed=seeds)
def test_tokens_behind_each_layer(n, seed):
    rng = np.random.default_rng(seed)
    kept = np.sort(rng.integers(1, 30, (n, 5)), axis=1)[:, ::-1]
    layers = rng.integers(1, 5, n)
    left = tokens_left(kept, layers)
    read = sum(int(row[0]) for row in kept)
    for layer in range(1, 5):
        pruned = sum(int(row[layer]) for row in kept)
        computed = sum(int(row[layer]) for row, last in zip(kept, layers, strict=True) if layer <= last)
        assert left.pruned[layer - 1] == pytest.approx(pruned / read)
        assert left.computed[layer - 1] == pytest.approx(computed / read)


@repeatable
@given(n=rows, seed=seeds)
def test_the_oracle_leaves_at_the_first_rung_that_loses_nothing(n, seed):
    losses = np.random.default_rng(seed).integers(-1, 3, (n, 3)).astype(float)
    for row, rung in zip(losses, oracle_rungs(losses), strict=True):
        free = [place for place in range(3) if row[place] <= 0]
        assert rung == (free[0] if free else min(range(3), key=lambda place: row[place]))


@repeatable
@given(n=rows, seed=seeds, values=st.sampled_from([3, 1000]))
def test_deciles_count_what_full_depth_would_have_changed(n, seed, values):
    rng = np.random.default_rng(seed)
    doubt, early = rng.integers(0, values, n).astype(float), rng.random(n) < 0.5
    answers, full, labels = rng.integers(0, 3, (3, n))
    lost = (answers != labels).astype(float) - (full != labels)
    groups = deciles(doubt, early, answers != full, lost)
    order = sorted(range(n), key=lambda row: -doubt[row])
    counts = np.zeros((4, 10))
    for place, row in enumerate(order):
        group = place * 10 // n
        counts[0, group] += early[row]
        counts[1, group] += answers[row] != full[row]
        counts[2, group] += answers[row] != labels[row] == full[row]
        counts[3, group] += answers[row] == labels[row] != full[row]
    found = np.stack([groups.early, groups.differs, groups.corrected, groups.added])
    assert found == pytest.approx(counts / n)
    # What is corrected less what is added is the accuracy that leaving early lost.
    assert groups.corrected.sum() - groups.added.sum() == pytest.approx(lost.mean())
    unlabelled = deciles(doubt, early, answers != full, None)
    assert unlabelled.corrected is None and unlabelled.added is None
    assert unlabelled.differs == pytest.approx(groups.differs)


@repeatable
@given(n=rows, seed=seeds)
def test_undominated_points_are_those_that_no_other_beats(n, seed):
    ms, loss = np.random.default_rng(seed).integers(0, 9, (2, n)).astype(float)
    front = undominated(ms, loss)
    assert sorted(front, key=lambda one: -ms[one]) == list(front)
    for one in range(n):
        better = [
            other
            for other in range(n)
            if ms[other] <= ms[one] and loss[other] <= loss[one] and (ms[other], loss[other]) != (ms[one], loss[one])
        ]
        alike = any((ms[one], loss[one]) == (ms[other], loss[other]) for other in front)
        assert alike == (not better)


def test_the_costliest_come_first_and_of_equals_the_earlier():
    assert costliest(np.array([3, 9, 1, 9, 5]), 3).tolist() == [1, 3, 4]
    assert costliest(np.array([3, 9]), 10).tolist() == [1, 0]
