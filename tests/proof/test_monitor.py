"""The monitor hardly ever alarms while limits are kept, however long the stream, and soon when they are not."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from scipy.stats import binom

from ziggurat.calibrate import DriftTest, State, Watch

pytestmark = pytest.mark.proof

WATCH = Watch(low=0, high=1, target=0.01, expected_cost=0.3)
SIGNED = replace(WATCH, low=-1)
STREAMS, LONG = 300, 5000
ALLOWED = binom.ppf(0.999, STREAMS, 0.05) / STREAMS


def disagreements(draws, n, share):
    return (draws.random(n) < share).astype(float)


def drops(draws, n, mean):
    return draws.choice([-1.0, 0.0, 1.0], p=[0.02 - mean / 2, 0.96, 0.02 + mean / 2], size=n)


def losses_after(change, watch, stream, before, after):
    """The number of losses until the alarm, of 30 streams that change after `change` losses; inf for no alarm.

    Streams with a false alarm before are left out.
    """
    delays = []
    for seed in range(30):
        draws = np.random.default_rng(seed)
        monitor = DriftTest(watch)
        if monitor.add([], stream(draws, change, before)).promise_lost:
            continue
        found = (n for n in range(50, 6001, 50) if monitor.add([], stream(draws, 50, after)).promise_lost)
        delays.append(next(found, np.inf))
    assert len(delays) >= 27  # delta is 5 %
    return np.array(delays)


def test_capital_is_a_fair_game_at_the_limit():
    """Over all 2^9 streams, weighted by their probability: the expected capital is 1, so Ville's inequality holds."""
    limit, expected = 0.2, 0.0
    for stream in product([0.0, 1.0], repeat=9):
        capital = DriftTest(replace(WATCH, target=limit)).add([], np.array(stream)).risk.capital
        expected += capital * limit ** sum(stream) * (1 - limit) ** (9 - sum(stream))
        assert capital >= 0
    assert expected == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize(
    ("watch", "stream"),
    [
        (WATCH, lambda draws: disagreements(draws, LONG, 0.01)),
        (WATCH, lambda draws: 0.01 * disagreements(draws, LONG, 0.5) / 0.5),  # many small losses
        (WATCH, lambda draws: disagreements(draws, LONG, 0.02 * (draws.random(LONG).cumsum() % 2 < 1))),  # in spells
        (SIGNED, lambda draws: drops(draws, LONG, 0.01)),
        (SIGNED, lambda draws: draws.choice([-1.0, 1.0], p=[0.495, 0.505], size=LONG)),
    ],
)
def test_false_alarms_stay_below_delta_at_the_limit(watch, stream):
    false = [DriftTest(watch).add([], stream(np.random.default_rng(seed))).promise_lost for seed in range(STREAMS)]
    assert np.mean(false) <= ALLOWED


def test_false_alarms_for_cost_are_no_more_than_delta():
    costs = [0.6 * np.random.default_rng(seed).beta(2, 2, LONG) * 0.33 / 0.3 for seed in range(STREAMS)]
    assert np.mean(costs) == pytest.approx(WATCH.cost_limit, rel=1e-3)
    assert np.mean([DriftTest(WATCH).add(one).cost_drifted for one in costs]) <= ALLOWED


@pytest.mark.parametrize(("change", "most"), [(0, 500), (2000, 900), (20_000, 1300)])
def test_a_change_is_found_and_late_ones_nearly_as_soon(change, most):
    delays = losses_after(change, WATCH, disagreements, 0.005, 0.03)
    assert np.median(delays) <= most
    assert delays.max() < np.inf


def test_a_change_of_the_signed_drop_is_found():
    assert np.median(losses_after(1000, SIGNED, drops, 0.0, 0.035)) <= 1500


def test_a_cost_drift_is_found_and_the_promise_left_alone():
    draws = np.random.default_rng(0)
    monitor = DriftTest(WATCH)
    assert not monitor.add(draws.beta(3, 7, 20_000)).cost_drifted
    state = monitor.add(draws.beta(4, 6, 400))
    assert state.cost_drifted and not state.promise_lost


def test_an_alarm_stays():
    monitor = DriftTest(WATCH)
    assert monitor.add([], np.ones(10)).promise_lost
    assert monitor.add([], np.zeros(20_000)).promise_lost
    assert monitor.state.risk.capital < 1  # although the evidence is gone


def test_one_at_a_time_equals_all_at_once():
    draws = np.random.default_rng(1)
    losses, costs = disagreements(draws, 300, 0.05), draws.beta(2, 2, 300)
    alone, together = DriftTest(WATCH), DriftTest(WATCH)
    for loss, cost in zip(losses, costs, strict=True):
        alone.add(cost, loss)
    together.add(costs, losses)
    for one, other in ((alone.state.risk, together.state.risk), (alone.state.cost, together.state.cost)):
        assert one.stakes == pytest.approx(other.stakes, rel=1e-9)
        assert (one.n, one.total, one.largest) == pytest.approx((other.n, other.total, other.largest), rel=1e-9)


def test_a_restart_goes_on_and_the_state_stays_small():
    draws = np.random.default_rng(2)
    monitor = DriftTest(WATCH)
    monitor.add(draws.beta(3, 7, 10), disagreements(draws, 10, 0.02))
    small = len(json.dumps(monitor.state.to_dict()))
    monitor.due(70_000)
    monitor.add(draws.beta(3, 7, 50_000), disagreements(draws, 50_000, 0.008))
    written = json.dumps(monitor.state.to_dict(), allow_nan=False)
    assert len(written) < 1.3 * small
    again = DriftTest(State.from_dict(json.loads(written)))
    assert again.state == monitor.state
    assert again.add(0.3, 1.0) == monitor.add(0.3, 1.0)
    assert np.array_equal(again.due(100), monitor.due(100))


def test_a_seeded_share_of_the_inputs_is_checked():
    monitor, other = DriftTest(WATCH), DriftTest(WATCH)
    due = monitor.due(20_000)
    assert due.mean() == pytest.approx(WATCH.share, abs=4 * np.sqrt(WATCH.share / 20_000))
    parts = [other.due(n) for n in (1, 7, 992, 19_000)]
    assert np.array_equal(np.concatenate(parts), due)
    assert not np.array_equal(DriftTest(replace(WATCH, seed=1)).due(20_000), due)
    assert DriftTest(replace(WATCH, share=1.0)).due(50).all()


def test_endless_evidence_neither_overflows_nor_vanishes():
    up, down = DriftTest(SIGNED), DriftTest(SIGNED)
    up.add(np.ones(3000), np.ones(3000))
    down.add(np.zeros(300_000), -np.ones(300_000))
    assert up.state.promise_lost and up.state.cost_drifted
    assert np.isfinite(up.state.risk.largest)
    assert not down.state.promise_lost and 0 < down.state.risk.capital < 0.2
    assert down.add([], np.ones(60)).promise_lost  # whatever was lost before, a change is found


def test_a_promise_of_no_loss_at_all_is_lost_by_the_first():
    monitor = DriftTest(replace(WATCH, target=0.0))
    assert not monitor.add([], np.zeros(5000)).promise_lost
    assert monitor.add([], 1.0).promise_lost


@pytest.mark.parametrize(
    ("costs", "losses"),
    [(0.3, 1.5), (0.3, np.nan), (1.6, 0), (-0.1, 0), (np.nan, 0), ([0.3, np.inf], 0), ([[0.3]], 0)],
)
def test_values_out_of_range_are_refused_and_not_counted(costs, losses):
    monitor = DriftTest(WATCH)
    with pytest.raises(ValueError, match="not clipped"):
        monitor.add(costs, losses)
    assert monitor.state == State(WATCH)


@pytest.mark.parametrize(
    "changes",
    [{"target": 1}, {"target": -0.1}, {"target": np.nan}, {"expected_cost": 1.5}, {"expected_cost": 0},
     {"tolerance": -1}, {"delta": 0}, {"delta": 1}, {"share": 0}, {"share": 1.5}],
)  # fmt: skip
def test_a_watch_that_makes_no_sense_is_refused(changes):
    with pytest.raises(ValueError, match="must"):
        replace(WATCH, **changes)


def joined(before: State, first: np.ndarray, second: np.ndarray) -> State:
    """What a place has when two monitors went on from one state, and saw these losses, the second in two parts."""
    one, other = DriftTest(before), DriftTest(before)
    one.add([], first)
    for part in np.array_split(second, 2):
        other.add([], part)
    return other.state.added_to(State.from_dict(one.state.to_dict()), "place", anew=False)


def test_two_monitors_of_one_state_are_a_fair_game_at_the_limit():
    """Over all 2^9 streams: the capital that both make is expected to be 1, and never more than one monitor's."""
    watch, expected = replace(WATCH, target=0.2), 0.0
    for stream in map(np.array, product([0.0, 1.0], repeat=9)):
        before = DriftTest(watch).add([], stream[:3])
        both, alone = joined(before, stream[3:6], stream[6:]).risk, DriftTest(watch).add([], stream).risk
        expected += both.capital * 0.2 ** stream.sum() * 0.8 ** (9 - stream.sum())
        assert both.n == 9 and both.total == stream.sum()
        assert both.capital <= alone.capital * (1 + 1e-12) and both.largest <= alone.largest * (1 + 1e-12)
    assert 0.9999 < expected <= 1 + 1e-12


@pytest.mark.parametrize(("before", "first", "second"), [(100, 2000, 50), (0, 500, 500), (5000, 100, 3000)])
def test_two_monitors_of_one_state_find_what_one_would(before, first, second):
    draws = np.random.default_rng(4)
    parts = [disagreements(draws, n, share) for n, share in ((before, 0.01), (first, 0.02), (second, 0.05))]
    both = joined(DriftTest(WATCH).add([], parts[0]), *parts[1:]).risk
    alone = DriftTest(WATCH).add([], np.concatenate(parts)).risk
    assert np.log(both.capital) == pytest.approx(np.log(alone.capital), abs=0.35)
    assert np.log(both.largest) == pytest.approx(np.log(alone.largest), abs=0.35)


def test_an_alarm_stays_after_its_evidence_is_gone():
    calm, storm = np.zeros(20_000), np.concatenate([np.ones(10), np.zeros(20_000)])
    start = DriftTest(WATCH).state
    for first, second in ((calm[:100], storm), (storm, calm)):
        both = joined(start, first, second)
        assert both.promise_lost and both.risk.capital < 1


def test_false_alarms_of_two_monitors_are_no_more_than_delta():
    false = []
    for seed in range(STREAMS):
        parts = np.array_split(disagreements(np.random.default_rng(seed), 3000, 0.01), 3)
        false.append(joined(DriftTest(WATCH).add([], parts[0]), *parts[1:]).promise_lost)
    assert np.mean(false) <= ALLOWED


def test_what_a_place_has_counts_once_however_often_it_is_added():
    monitor = DriftTest(State(WATCH))
    place = None
    for _ in range(3):
        state = monitor.add(0.3, 0.0)
        place = state.added_to(place, "place", anew=False)
        state.is_at("place")
        assert state.added_to(place, "place", anew=False) == place  # nothing new
    assert place == monitor.state and place.cost.n == 3


def test_a_new_monitor_replaces_and_another_watch_is_refused():
    old, new = DriftTest(WATCH).add(0.3, 1.0), DriftTest(WATCH).add([0.3, 0.2], 0.0)
    assert new.added_to(old, "place", anew=True) == new
    assert new.added_to(old, "place", anew=False).cost.n == 3
    with pytest.raises(ValueError, match="different watches"):
        new.added_to(DriftTest(replace(WATCH, delta=0.01)).state, "place", anew=False)
