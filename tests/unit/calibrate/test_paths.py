"""Paths get faster step by step, and the one that is tested is the one that is expected to get furthest."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kit.ladders import ladder
from ziggurat.calibrate import (
    RISKS,
    Evidence,
    Setting,
    StoredRun,
    families,
    frontier,
    net_loss,
    path_of,
    sequences,
    setting_of,
)
from ziggurat.calibrate.certify import certify, least_rows
from ziggurat.calibrate.paths import losses_along, losses_of, starts
from ziggurat.engine.replay import replay
from ziggurat.policies.exits import LEARNED
from ziggurat.problems import problem_named

repeatable = settings(derandomize=True, deadline=None, max_examples=60)


def setting(seconds: float, loss: float = 0.0, spread: float = 0.0, pruning: float = 0.0) -> Setting:
    return Setting("entropy", np.array([0.5]), pruning, seconds, loss, spread, loss)


@repeatable
@given(st.lists(st.floats(0.01, 2.0), max_size=30))
def test_each_setting_of_a_path_is_faster_than_those_before(times):
    path = path_of([setting(seconds) for seconds in times], slowest=1.0)
    assert all(one.seconds < 1 for one in path)
    assert all(later.seconds <= 0.995 * earlier.seconds for earlier, later in pairwise(path))
    assert bool(path) == any(seconds <= 0.995 for seconds in times)


def test_the_best_path_gets_fastest_within_the_target():
    safe = [setting(0.9), setting(0.6, 0.005), setting(0.2, 0.02)]
    fast = [setting(0.8), setting(0.5, 0.009), setting(0.3, 0.011)]
    assert starts([safe, fast], 0.010, 0.95, 1000) == (tuple(fast),)
    assert starts([safe, fast], 0.006, 0.95, 1000) == (tuple(safe),)


def test_spread_counts_the_more_the_fewer_rows_certify():
    calm = [setting(0.6, 0.004, 0.05)]
    wild = [setting(0.5, 0.004, 0.40)]
    assert starts([calm, wild], 0.01, 0.95, 100_000) == (tuple(wild),)
    assert starts([calm, wild], 0.01, 0.95, 300) == (tuple(calm),)


def test_the_least_risky_path_is_tried_where_none_should_pass():
    risky, less = [setting(0.5, 0.05)], [setting(0.7, 0.03)]
    assert starts([risky, less], 0.01, 0.95, 1000) == (tuple(less),)
    assert starts([], 0.01, 0.95, 1000) == starts([[]], 0.01, 0.95, 1000) == ()


def test_what_was_lucky_on_the_ordering_rows_is_not_put_first():
    """Both move 2 of 100 answers; that one of them put more right than wrong there says little of other rows."""
    lucky = [replace(setting(0.5, -0.01), moved=0.02)]
    usual = [replace(setting(0.4, 0.01), moved=0.02)]
    assert net_loss([lucky, usual]) == 0.25  # at least, however the rows look
    assert starts([lucky, usual], 0.01, 0.95, 1000) == (tuple(usual),)
    assert net_loss([[setting(0.5, 0.02)]]) == 1 and net_loss([]) == 1
    assert net_loss([[replace(setting(0.5, 0.01), moved=0.02)]]) == 0.5


def test_a_pruning_path_is_tested_beside_the_best_without():
    """Its first setting may fail, and then nothing of it is certified."""
    pruned, plain, slow = [setting(0.3, pruning=1.0)], [setting(0.6)], [setting(0.7)]
    assert starts([slow, pruned, plain], 0.01, 0.95, 1000) == (tuple(pruned), tuple(plain))
    assert starts([slow, plain], 0.01, 0.95, 1000) == (tuple(plain),)
    assert starts([pruned], 0.01, 0.95, 1000) == (tuple(pruned),)


def test_a_looser_target_starts_where_the_stricter_one_ends():
    safe = [setting(0.9), setting(0.6, 0.005), setting(0.2, 0.02)]
    daring = [setting(0.7, 0.006), setting(0.5, 0.009)]
    found = sequences([safe, daring], (0.010, 0.0, 0.005), 0.95, 1000)
    assert found[0.005] == (tuple(safe),)
    assert found[0.010] == ((safe[0], safe[1], daring[1]),)  # daring[0] is slower than what stands before it
    assert found[0.0] == starts([safe, daring], 0.0, 0.95, 1000)
    assert sequences([safe, daring], (0.010,), 0.95, 1000) == {0.010: (tuple(daring),)}
    assert sequences([], (0.010,), 0.95, 1000) == {0.010: ()}
    assert sequences([safe, daring], (0.0, 0.010), 0.95, 1000)[0.010] == (tuple(daring),)  # 0 is never certified


def test_of_two_paths_each_stands_behind_the_one_of_its_kind():
    plain, pruned = [setting(0.9, 0.001), setting(0.6, 0.009)], [setting(0.5, 0.004, pruning=1.0), setting(0.3, 0.008)]
    [first, second] = sequences([plain, pruned], (0.005, 0.010), 0.95, 1000)[0.010]
    assert first == tuple(pruned)
    assert second == tuple(plain)


def test_losses_along_a_sequence_are_those_of_each_setting():
    search_rows = evidence(0, 400)
    alone = Setting("entropy", np.full(3, np.nan), 1.0, 3.9, 0.0, 0.0, 0.0)  # pruning without exits
    mixed = [alone] + [path[0] for path in searched(search_rows)] + [path[-1] for path in searched(search_rows)]
    for one, losses in zip(mixed, search_rows.losses_along(mixed), strict=True):
        np.testing.assert_array_equal(losses, losses_of(one, search_rows.runs, search_rows.losses))


@pytest.mark.parametrize("score", ["change", LEARNED])
def test_settings_that_ask_other_exits_are_other_families(score):
    """What an exit says of a number depends on the asked one before it; else losses are certified that nobody has."""
    every = np.random.default_rng(3).normal(size=(300, 4, 1)).astype(np.float32)
    weights = np.random.default_rng(4).normal(size=(3, 5))
    run = StoredRun(every, np.full((300, 5), 9), 0.0, weights, problem_named("regression", ("value",), (-3, 3)))
    losses = np.abs(every[:, :, 0] - every[:, -1:, 0])
    limit = 0.5
    asked = [(limit, limit, limit), (np.nan, limit, limit), (limit, np.nan, limit), (np.nan, np.nan, limit)]
    path = [Setting(score, np.array(thresholds), 0.0, 1.0, 0.0, 0.0, 0.0) for thresholds in asked]
    for one, along in zip(path, losses_along(path, {0.0: run}, {0.0: losses}), strict=True):
        assert along.tolist() == losses[np.arange(300), replay(every, one.rule(weights))].tolist()


def test_several_paths_share_the_level():
    """What 1,000 rows just certify at 5 % they do not beside another path."""
    n = 1000
    losses = np.zeros((n, 2))
    losses[:10, 0] = 1.0  # binomial: 10 of 1,000 certify 1.7 points at 95 %, 1.83 at 97.5 %
    run = StoredRun(np.zeros((n, 2, 2), np.float32), np.full((n, 3), 9), 0.0)
    known = Evidence({0.0: run}, {0.0: losses}, RISKS["agreement"])
    path = (Setting("entropy", np.array([1.0]), 0.0, 0.5, 0.01, 0.1, 0.01),)
    assert certify([path], known, 0.0175, 0.95).settings == path
    assert certify([path, path], known, 0.0175, 0.95).settings == ()
    assert certify([path, path], known, 0.0190, 0.95).settings == (*path, *path)


def test_the_frontier_holds_what_nothing_beats():
    every = [setting(seconds, loss) for seconds in (1.0, 0.7, 0.4) for loss in (0.0, 0.01, 0.02)]
    assert [(one.seconds, one.loss) for one in frontier(every)] == [(0.4, 0.0)]
    every = [setting(1.0, 0.0), setting(0.5, 0.01), setting(0.6, 0.02), setting(0.2, 0.03)]
    assert [(one.seconds, one.loss) for one in frontier(every)] == [(1.0, 0.0), (0.5, 0.01), (0.2, 0.03)]


def evidence(seed: int, n: int, skill: float = 4.0) -> Evidence:
    every, labels = ladder(seed, n, skill)
    risk = RISKS["accuracy"]
    predictions = every.argmax(axis=2)
    losses = np.stack([risk.of(predictions[:, rung], predictions[:, -1], labels) for rung in range(4)], axis=1)
    return Evidence({1.0: StoredRun(every, np.full((n, 5), 9), 1.0)}, {1.0: losses}, risk)


def searched(search_rows: Evidence) -> list[tuple[Setting, ...]]:
    """Time is depth here."""
    saved = np.array([0.75, 0.5, 0.25, 0.0])
    made = families(search_rows.runs[1.0], search_rows.losses[1.0], saved)
    return [
        path
        for family in made
        if (
            path := path_of(
                (setting_of(one, search_rows.losses[1.0], lambda c: float(c.rungs.mean() + 1)) for one in family), 4.0
            )
        )
    ]


def test_a_tried_setting_knows_its_loss_and_time():
    search_rows = evidence(0, 500)
    for path in searched(search_rows)[:5]:
        for one in path:
            losses = losses_of(one, search_rows.runs, search_rows.losses)
            assert one.loss == pytest.approx(losses.mean()) and one.spread == pytest.approx(losses.std())


def test_losses_along_a_path_are_those_of_the_engines_replay():
    search_rows = evidence(0, 300)
    for path in searched(search_rows):
        for one, losses in zip(path, search_rows.losses_along(path), strict=True):
            rungs = replay(search_rows.runs[1.0].all_readings, one.rule())
            assert losses.tolist() == search_rows.losses[1.0][np.arange(300), rungs].tolist()


def test_enough_rows_certify_and_fresh_rows_keep_the_promise():
    paths = searched(evidence(0, 3000))
    certify_rows, fresh = evidence(1, 6000), evidence(2, 50_000)
    [path] = tested = starts(paths, 0.02, 0.95, 6000)
    found = certify(tested, certify_rows, 0.02, 0.95)
    assert found.settings == path[: len(found.settings)] and found.settings
    assert found.fastest is found.settings[-1] and found.fastest.seconds < 0.9 * 4
    assert fresh.losses_of(found.fastest).mean() < 0.02
    assert found.tightest is None and found.rows_needed is None


def test_too_few_rows_certify_nothing_and_say_what_would_help():
    paths = searched(evidence(0, 3000))
    few = evidence(1, 60)
    found = certify(starts(paths, 0.01, 0.95, 60), few, 0.01, 0.95)
    assert found.settings == () and found.fastest is None
    assert found.tightest > 0.01
    assert found.rows_needed is None or found.rows_needed > 60


def test_a_target_of_nothing_certifies_no_setting_that_loses():
    found = certify(starts(searched(evidence(0, 3000)), 0.0, 0.95, 3000), evidence(1, 3000), 0.0, 0.95)
    assert found.settings == ()


@pytest.mark.parametrize(("target", "confidence", "n"), [(0.01, 0.95, 299), (0.01, 0.9, 230), (0.05, 0.95, 59)])
def test_the_least_rows_are_those_of_the_literature(target, confidence, n):
    """(1 - target)^n <= 1 - confidence; 230 rows at 90 % is the figure that our survey of the field computed."""
    assert least_rows(target, confidence) == n
    assert (1 - target) ** n <= 1 - confidence < (1 - target) ** (n - 1)
