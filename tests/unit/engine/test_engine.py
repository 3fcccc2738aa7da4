"""The engine's queues: every ticket ends once, as the specification answers its input, whatever shares its batches."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.kit.engines import (
    SIZES,
    Broken,
    Clock,
    check,
    drained,
    first_batches,
    ladder_rules,
    never_before,
    ready,
    repeatable,
    rows,
)
from tests.kit.scripted import N, R, inputs, make_tiers
from ziggurat.data.encoded import join_encoded
from ziggurat.data.tokenizer import Encoded
from ziggurat.engine import Engine, Ladder, answer, answer_ladder
from ziggurat.errors import DeadlinePassed, UserError
from ziggurat.policies import ExitRule

# --- any history of submissions -------------------------------------------------------------------------------------


@repeatable
@given(st.data())
def test_claim_28_every_ticket_ends_once_and_as_specified(data):
    """Random submissions under random rules, cancels, deadlines and failures; the rest is answered all the same."""
    encoded, clock = inputs(), Clock(data.draw(st.floats(0, 100)))
    tiers = make_tiers(backend=Broken)
    bad = tiers[data.draw(st.integers(0, 2))].backend
    bad.fails_at = data.draw(st.sampled_from([-1, 3, 17]))
    engine = Engine(Ladder(tiers), data.draw(SIZES), data.draw(st.sampled_from([0.0, 0.5, np.inf])), clock)
    known: dict[int, tuple[int, ExitRule, int, float | None]] = {}  # ticket → input, rule, its row there, deadline
    cancelled, found = set(), []
    for chosen in data.draw(st.lists(st.lists(st.integers(0, N - 1), max_size=8), max_size=8)):
        rule = data.draw(ladder_rules(len(chosen)))
        deadline = data.draw(st.sampled_from([None, None, clock.now - 1, clock.now + 1, clock.now + 5]))
        tickets = engine.submit(encoded.take(rows(*chosen)), rule, deadline)
        known |= {
            ticket: (row, rule, at, deadline) for at, (ticket, row) in enumerate(zip(tickets, chosen, strict=True))
        }
        action = data.draw(st.sampled_from(["step", "step all", "cancel", "wait"]))
        if action == "cancel" and known:
            some = data.draw(st.lists(st.sampled_from(sorted(known)), max_size=4))
            engine.cancel([*some, 10_000])
            cancelled |= set(some) - {result.ticket for result in found}
        clock.now += data.draw(st.sampled_from([0.0, 0.4, 2.0]))
        found += engine.step() if action == "step" else ready(engine) if action == "step all" else []
    found += drained(engine)
    assert engine.wait() is None and engine.step() == []
    assert Counter(result.ticket for result in found) == Counter(set(known) - cancelled)
    sound = make_tiers()
    for result in found:
        row, rule, at, deadline = known[result.ticket]
        if isinstance(result.error, DeadlinePassed):
            assert deadline is not None and deadline <= clock.now
        elif isinstance(result.error, RuntimeError):
            assert bad.fails_at >= 0 and str(result.error) == "injected"
        else:
            check(result, sound, encoded, row, rule, at)
        assert result.seconds >= 0


@repeatable
@given(rule=ladder_rules(), sizes=SIZES, cuts=st.lists(st.integers(0, N), max_size=12))
def test_claim_28_later_tiers_run_full_batches_until_the_flush(rule, sizes, cuts):
    tiers, encoded = make_tiers(), inputs()
    engine = Engine(Ladder(tiers), sizes, np.inf, Clock())
    asked = [rule.active[:1], rule.active[1:3], rule.active[3:]]
    ran = [index for index, own in enumerate(asked) if any(own)]
    left = 0
    for first, last in pairwise([0, *sorted(cuts), N]):
        engine.submit(encoded.take(np.arange(first, last)), rule)
        left += last - first - len(ready(engine))
        assert left <= sum(sizes[index] - 1 for index in ran[1:])
    for index in ran[1:]:
        assert set(first_batches(tiers[index], asked[index])) <= {sizes[index]}
    assert len(drained(engine)) == left
    for index in ran[1:]:
        assert sum(n != sizes[index] for n in first_batches(tiers[index], asked[index])) <= 1
        assert max(first_batches(tiers[index], asked[index]), default=0) <= sizes[index]


# --- which batches ----------------------------------------------------------------------------------------------------


def test_the_first_tier_reads_at_once_and_later_ones_wait():
    tiers, encoded = make_tiers(), inputs()
    engine = Engine(Ladder(tiers), [100, 4, 3], np.inf, Clock())
    ended = 0
    for row in range(7):
        engine.submit(encoded.take(rows(row)), never_before(2))
        ended += len(ready(engine))
    assert first_batches(tiers[0], [True]) == [1] * 7
    assert first_batches(tiers[1], [True, True]) == [4] and first_batches(tiers[2], [True] * 3) == [3]
    assert ended == 3  # one waits before the last tier, three before the second


def test_the_first_tier_reads_in_one_batch_what_is_queued():
    tiers, encoded = make_tiers(), inputs()
    engine = Engine(Ladder(tiers), [100] * 3, 0.0, Clock())
    for row in range(5):
        engine.submit(encoded.take(rows(row)), never_before(0))
    assert not tiers[0].backend.heads_run and engine.wait() == 0
    assert [result.ticket for result in engine.step()] == [0, 1, 2, 3, 4]
    assert first_batches(tiers[0], [True]) == [5]


def test_rules_share_batches_if_only_thresholds_differ():
    tiers, encoded = make_tiers(), inputs()
    engine = Engine(Ladder(tiers), [100] * 3, 0.0, Clock())
    uniform = ExitRule.uniform
    for rule in (uniform("margin", 0.2, R), uniform("margin", 0.6, R), uniform("entropy", 0.5, R)):
        engine.submit(encoded.take(rows(0, 1)), rule)
    engine.submit(encoded.take(rows(2, 3)), uniform("margin", [0.1, 0.9], R))
    engine.submit(encoded.take(rows(4)), replace(uniform("margin", 0.2, R), temperatures=np.full(R, 2.0)))
    engine.submit(encoded.take(rows(5)), ExitRule("margin", np.array([0.2, np.nan, 0.2, 0.2, 0.2])))
    assert len(drained(engine)) == 10
    assert sorted(first_batches(tiers[0], [True])) == [1, 1, 2, 6]


def test_a_step_runs_one_call_of_one_tier():
    tiers, encoded = make_tiers(), inputs()
    engine = Engine(Ladder(tiers), [4, 100, 100], 0.0, Clock())
    engine.submit(encoded.take(np.arange(8)), never_before(0))
    assert len(engine.step()) == 4 and first_batches(tiers[0], [True]) == [4]
    assert len(engine.step()) == 4 and engine.step() == []


# --- errors ----------------------------------------------------------------------------------------------------------


def test_an_exception_ends_the_tickets_of_its_batch_alone():
    tiers = make_tiers(backend=Broken)
    tiers[1].backend.fails_at = 2
    engine = Engine(Ladder(tiers), [2] * 3, 0.0, Clock())
    engine.submit(inputs().take(np.arange(6)), never_before(1))
    results = {result.ticket: result for result in drained(engine)}
    failed = {ticket for ticket, result in results.items() if result.error is not None}
    assert 2 in failed and len(failed) == 2 and len(results) == 6
    assert all(isinstance(results[ticket].error, RuntimeError) for ticket in failed)
    with pytest.raises(RuntimeError, match="injected"):
        answer(Ladder(tiers), inputs(), never_before(1), [2] * 3)


def test_an_exception_before_a_tier_ends_its_tickets_alone():
    """A tier with a tokenizer of its own, for inputs whose texts are not known."""
    tiers = make_tiers()
    tiers[1] = replace(tiers[1], tokenizer="another tokenizer")
    engine = Engine(Ladder(tiers), [9] * 3, 0.0, Clock())
    engine.submit(inputs().take(np.arange(3)), never_before(1))
    engine.submit(inputs().take(rows(3)), never_before(0))
    results = {result.ticket: result for result in drained(engine)}
    assert [type(results[ticket].error) for ticket in range(4)] == [ValueError] * 3 + [type(None)]


def test_deadlines_and_cancels_reach_calls_that_are_cut_already():
    tiers, encoded, clock = make_tiers(0, ((1,),)), inputs(), Clock()
    engine = Engine(Ladder(tiers), [2], 0.0, clock)
    full = ExitRule.full_depth(1)
    engine.submit(encoded.take(np.arange(4)), full)
    engine.submit(encoded.take(np.arange(4, 6)), full, deadline=1.0)
    engine.flush()
    first = {result.ticket for result in engine.step()}
    assert len(first) == 2
    clock.now = 1.0
    gone = min({0, 1, 2, 3} - first)
    engine.cancel([gone])
    later = drained(engine)
    late = {result.ticket for result in later if isinstance(result.error, DeadlinePassed)}
    assert late == {4, 5} - first
    assert first | late | {result.ticket for result in later} == set(range(6)) - {gone}
    assert sum(n for _, n, _ in tiers[0].backend.layers_run) == 6 - 1 - len(late)


@pytest.mark.parametrize(
    ("sizes", "linger", "reason"),
    [
        ([4] * 3, -1.0, "must not be less than 0"),
        ([4] * 3, float("nan"), "must not be less than 0"),
        ([], 0, "give one of at least 1 for each tier"),
        ([4] * 4, 0, "give one of at least 1 for each tier"),
        ([4, 0, 4], 0, "must be at least 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused_in_one_line(sizes, linger, reason):
    with pytest.raises(UserError, match=reason) as refused:
        Engine(Ladder(make_tiers()), sizes, linger)
    assert "\n" not in str(refused.value)


def test_rules_that_do_not_fit_are_refused_by_submit():
    engine = Engine(Ladder(make_tiers()), [4] * 3)
    with pytest.raises(UserError, match="2 thresholds, the model needs 5"):
        engine.submit(inputs(), ExitRule.full_depth(3))
    with pytest.raises(UserError, match="thresholds for 7 inputs, but there are 30"):
        engine.submit(inputs(), ExitRule.uniform("margin", [0.5] * 7, R))
    assert engine.wait() is None


# --- ladders and threads ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("score", ["agreement", "agreement-in-a-row", "confident-in-a-row@0.9"])
def test_a_count_goes_on_from_tier_to_tier(score):
    """Two agreeing rungs are enough; input i agrees with what tiers before have said if i is even."""
    tiers, encoded = make_tiers(), inputs()
    sure, unsure = np.float32([9, 0, 0]), np.float32([0, 1e-3, 0])
    for tier in tiers:
        tier.backend.script[:] = sure
    tiers[1].backend.script[1::2, 0] = unsure
    enough = 2.0 if score.startswith("confident") else 1.0
    rule = ExitRule(score, np.array([enough, enough, np.nan, enough, enough]))
    engine = Engine(Ladder(tiers), [100, 4, 3], np.inf, Clock())
    found = []
    for first, last in pairwise([0, 5, 6, 17, N]):
        engine.submit(encoded.take(np.arange(first, last)), rule)
        found += ready(engine)
    found += drained(engine)
    rungs = np.zeros(N, dtype=int)
    for result in found:
        rungs[result.ticket] = result.get().rungs[0]
    assert set(rungs[::2]) == {1}
    assert set(rungs[1::2]) == {4}  # the second tier broke the row: the last one has to agree with itself
    assert np.array_equal(rungs, answer(Ladder(tiers), encoded, rule, [4] * 3).rungs)


def test_tiers_that_are_not_asked_are_left_out():
    tiers, encoded = make_tiers(), inputs()
    rule = ExitRule("margin", np.array([np.nan, np.nan, 0.7, np.nan, np.nan]))
    engine = Engine(Ladder(tiers), [1, 4, 5], np.inf, Clock())
    engine.submit(encoded.take(np.arange(3)), rule)
    ready(engine)
    assert not tiers[0].backend.heads_run and first_batches(tiers[1], [False, True]) == [3]
    engine.submit(encoded.take(np.arange(3, N)), rule)
    ready(engine)
    assert {n for _, n in tiers[2].backend.heads_run} == {5} and not tiers[0].backend.heads_run


def test_several_threads_submit_and_cancel_while_one_steps():
    tiers, encoded = make_tiers(), inputs()
    engine, rule = Engine(Ladder(tiers), [4] * 3), ExitRule.uniform("margin", 0.6, R)
    expected = answer(Ladder(make_tiers()), encoded, rule, [4] * 3)
    sent: dict[int, int] = {}
    cancelled: set[int] = set()

    def client(seed):
        rng = np.random.default_rng(seed)
        for _ in range(40):
            chosen = rng.integers(0, N, rng.integers(1, 4))
            tickets = engine.submit(encoded.take(chosen), rule)
            sent.update(zip(tickets, chosen.tolist(), strict=True))
            if rng.random() < 0.2:
                cancelled.add(tickets[0])
                engine.cancel([tickets[0]])

    clients = [threading.Thread(target=client, args=(seed,)) for seed in range(4)]
    for thread in clients:
        thread.start()
    found = []
    while any(thread.is_alive() for thread in clients) or engine.wait() is not None:
        found += engine.step()
    assert len(found) == len({result.ticket for result in found})
    assert set(sent) - cancelled <= {result.ticket for result in found} <= set(sent)
    for result in found:
        row = sent[result.ticket]
        assert np.array_equal(result.get().readings[0], expected.readings[row])
        assert result.get().rungs[0] == expected.rungs[row]


def test_inputs_are_joined_with_their_texts_and_owners():
    encoded = inputs()
    texts = [str(row) for row in range(N)]
    parts = [replace(encoded, texts=texts).take(rows(*some)) for some in ((3, 1), (5,))]
    both = join_encoded(parts)
    assert both.texts == ["3", "1", "5"] and both.owners is None and len(both) == 3
    windows = Encoded(encoded.tokens[:3], np.zeros(2, dtype=bool), owners=rows(0, 0, 1))
    joined = join_encoded([windows, encoded.take(rows(7)), windows])
    assert joined.owners.tolist() == [0, 0, 1, 2, 3, 3, 4] and joined.texts is None
    assert joined.take(rows(3, 0)).owners.tolist() == [0, 0, 1, 1]


@repeatable
@given(st.data())
def test_one_batch_is_answered_as_through_the_queues(data):
    tiers, encoded = make_tiers(), inputs()
    rule = data.draw(ladder_rules(N))
    at_once, queued = (answer(Ladder(tiers), encoded, rule, sizes) for sizes in ([100] * 3, [4, 100, 3]))
    for field in ("readings", "rungs", "token_counts"):
        assert np.array_equal(getattr(at_once, field), getattr(queued, field))
    assert (at_once.seconds > 0).all() and (queued.seconds > 0).all()


def test_a_ladder_of_one_model_equals_the_specification():
    tiers, encoded = make_tiers(0, ((1, 3, 4),)), inputs()
    rule = ExitRule.uniform("entropy", 0.7, 3)
    outcomes = answer(Ladder(tiers), encoded, rule, [7])
    for row in range(N):
        reading, rung = answer_ladder([tiers[0].backend], [[encoded.tokens[row]]], rule, row)
        assert np.array_equal(outcomes.readings[row], reading) and outcomes.rungs[row] == rung
