"""When the engine runs what: lingering for company, deadlines, cancelled tickets."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.kit.engines import (
    NOBODY,
    Clock,
    drained,
    first_batches,
    never_before,
    ready,
    repeatable,
    rows,
)
from tests.kit.scripted import inputs, make_tiers
from ziggurat.engine import Engine, Ladder
from ziggurat.errors import DeadlinePassed
from ziggurat.policies import ExitRule


@repeatable
@given(st.data())
def test_no_input_lingers_longer_than_allowed(data):
    """Before the last of two tiers, where all wait that are not answered."""
    linger = data.draw(st.floats(0.01, 10))
    tiers, encoded, clock = make_tiers(0, ((0,), (1, 2))), inputs(), Clock(data.draw(st.floats(0, 1e3)))
    rule = ExitRule("margin", np.array([NOBODY, np.nan]))
    engine = Engine(Ladder(tiers), [4, data.draw(st.integers(1, 40))], linger, clock)
    came: dict[int, float] = {}
    for n in data.draw(st.lists(st.integers(0, 6), max_size=12)):
        came |= dict.fromkeys(engine.submit(encoded.take(np.arange(n)), rule), clock.now)
        for result in ready(engine):
            assert result.seconds == clock.now - came.pop(result.ticket)
        assert all(moment + linger > clock.now for moment in came.values())
        clock.now += data.draw(st.floats(0, 5))


@repeatable
@given(arrived=st.floats(0, 1e3), passed=st.floats(0, 20), linger=st.floats(0.001, 10))
def test_there_is_something_to_do_just_when_wait_says_so(arrived, passed, linger):
    clock = Clock(arrived)
    engine = Engine(Ladder(make_tiers()), [9] * 3, linger, clock)
    assert engine.wait() is None and engine.step() == []
    engine.submit(inputs().take(rows(0, 1)), never_before(1))
    assert engine.wait() == 0 and engine.step() == []
    assert engine.wait() == pytest.approx(linger, abs=1e-9)
    clock.now += passed
    wait = engine.wait()
    assert wait == pytest.approx(max(0, linger - passed), abs=1e-9)
    assert bool(engine.step()) == (wait == 0) and (engine.wait() is None) == (wait == 0)


def test_lingering_counts_from_the_oldest_before_that_tier():
    tiers, encoded, clock = make_tiers(), inputs(), Clock(10)
    engine = Engine(Ladder(tiers), [9] * 3, 2, clock)
    engine.submit(encoded.take(rows(0)), never_before(2))
    ready(engine)
    clock.now = 11
    engine.submit(encoded.take(rows(1)), never_before(2))
    assert ready(engine) == [] and engine.wait() == 1
    clock.now = 12.5
    assert ready(engine) == []
    assert first_batches(tiers[1], [True, True]) == [2]  # the one that came later goes along
    assert engine.wait() == 2
    clock.now = 14.5
    both = ready(engine)
    assert [result.ticket for result in both] == [0, 1] and [result.seconds for result in both] == [4.5, 3.5]


def test_a_late_input_is_not_computed_and_its_company_is():
    tiers, encoded, clock = make_tiers(), inputs(), Clock()
    engine = Engine(Ladder(tiers), [9] * 3, np.inf, clock)
    rule = never_before(2)
    engine.submit(encoded.take(rows(0, 1)), rule, deadline=3.0)
    engine.submit(encoded.take(rows(2)), rule)
    assert ready(engine) == [] and engine.wait() == 3
    clock.now = 3.0
    assert engine.wait() == 0
    late = engine.step()
    assert [result.ticket for result in late] == [0, 1]
    with pytest.raises(DeadlinePassed, match="the deadline passed before there was an answer"):
        late[0].get()
    assert not tiers[1].backend.heads_run
    [other] = drained(engine)
    assert other.ticket == 2 and other.error is None and first_batches(tiers[1], [True, True]) == [1]


def test_a_deadline_ends_an_input_between_two_layers():
    tiers, encoded, clock = make_tiers(0, ((1, 2, 3, 4),)), inputs(), Clock()
    backend = tiers[0].backend

    def layer(number, batch, tokens=None):
        backend.layers_run.append((number, batch.n_seqs, len(batch.states)))
        clock.now += 1
        return batch

    backend.layer = layer
    engine = Engine(Ladder(tiers), [9], 0.0, clock)
    rule = ExitRule.full_depth(4)
    engine.submit(encoded.take(rows(0, 1)), rule)
    engine.submit(encoded.take(rows(2)), rule, deadline=2.0)
    results = {result.ticket: result for result in engine.step()}
    assert isinstance(results.pop(2).error, DeadlinePassed)
    assert [n for _, n, _ in backend.layers_run] == [3, 3, 2, 2]
    for ticket, result in results.items():
        assert np.array_equal(result.get().readings[0], backend.script[ticket, -1])


def test_a_cancelled_ticket_ends_silently_and_is_not_computed():
    tiers, encoded = make_tiers(), inputs()
    engine = Engine(Ladder(tiers), [9] * 3, np.inf, Clock())
    tickets = engine.submit(encoded.take(np.arange(4)), never_before(2))
    ready(engine)
    engine.cancel([tickets[1], tickets[1], 99, -1])
    assert [result.ticket for result in drained(engine)] == [0, 2, 3]
    assert first_batches(tiers[1], [True, True]) == [3]
    engine.cancel(tickets)  # all have ended
    assert engine.wait() is None
