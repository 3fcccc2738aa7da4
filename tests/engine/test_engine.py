"""The engine's queues: every ticket ends once, as the specification answers its input, whatever shares its batches."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted import CLASSES, N, R, ScriptedBackend, inputs, make_tiers

from ziggurat.data.tokenizer import Encoded, join_encoded
from ziggurat.engine.engine import Engine, Result, answer
from ziggurat.engine.reference import answer_ladder
from ziggurat.engine.tiers import Ladder
from ziggurat.errors import DeadlinePassed, UserError
from ziggurat.policies.exits import SCORES
from ziggurat.policies.rules import ExitRule

repeatable = settings(derandomize=True, deadline=None, max_examples=60)
NAMES = (*SCORES, "top-entropy@2", "confident-in-a-row@0.7", "learned")
WEIGHTS = np.random.default_rng(0).normal(size=(R - 1, 4 + CLASSES))  # of the learned score
SIZES = st.tuples(*[st.sampled_from([1, 3, 4, 100])] * 3)
NOBODY = 2.0  # a margin that no input reaches


@dataclass
class Clock:
    """Stands still until it is moved."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


class Broken(ScriptedBackend):
    """Fails while one of its inputs is there."""

    fails_at = -1

    def logits(self, rung, batch):
        if self.fails_at in batch.states[:, 0]:
            raise RuntimeError("injected")
        return super().logits(rung, batch)


@st.composite
def ladder_rules(draw, n_inputs=None) -> ExitRule:
    """A rule of the scripted ladder; with `n_inputs` at times with thresholds for each."""
    levels = st.sampled_from([np.nan, 0.0, 0.3, 0.6, 0.9, 1.0, 2.0])
    thresholds = np.array(draw(st.lists(levels, min_size=R - 1, max_size=R - 1)))
    if n_inputs and draw(st.booleans()):
        thresholds = thresholds + np.arange(n_inputs)[:, None] % 3 * 0.2
    temperatures = draw(st.sampled_from([None, np.array([0.5, 1, 3, 0.5, 1, 3])]))
    return ExitRule(draw(st.sampled_from(NAMES)), thresholds, temperatures, deferral=WEIGHTS)


def rows(*numbers) -> np.ndarray:
    return np.array(numbers, dtype=np.int64)


def first_batches(tier, asked) -> list[int]:
    """Sequences in each batch that the tier has read, by the first of its rungs that is asked."""
    first = int(np.flatnonzero(asked)[0])
    return [n for rung, n in tier.backend.heads_run if rung == first]


def drained(engine: Engine) -> list[Result]:
    """Everything that is queued, to its end."""
    engine.flush()
    found = []
    while engine.wait() is not None:
        found += engine.step()
    return found


def ready(engine: Engine) -> list[Result]:
    """What has something to do now."""
    found = []
    while engine.wait() == 0:
        found += engine.step()
    return found


def check(result: Result, tiers, encoded: Encoded, row: int, rule: ExitRule, at: int) -> None:
    """A result is what the specification says of input `row` under entry `at` of its rule."""
    backends = [tier.backend for tier in tiers]
    reading, rung = answer_ladder(backends, [[encoded.tokens[row]]] * len(tiers), rule, at)
    outcomes = result.get()
    assert np.array_equal(outcomes.readings[0], reading) and outcomes.rungs.tolist() == [rung]
    assert np.isfinite(outcomes.seconds[0]) and outcomes.kept.shape == (1, 9)


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
    asked = [rule.asked[:1], rule.asked[1:3], rule.asked[3:]]
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


def never_before(tier: int, score: str = "margin") -> ExitRule:
    """No input exits in the tiers before this one; all rungs are asked."""
    thresholds = np.full(R - 1, NOBODY)
    thresholds[[0, 1, 3][tier] :] = 0.0
    return ExitRule(score, thresholds)


def test_the_first_tier_reads_at_once_and_the_next_waits_for_a_full_batch():
    tiers, encoded = make_tiers(), inputs()
    engine = Engine(Ladder(tiers), [100, 4, 3], np.inf, Clock())
    ended = 0
    for row in range(7):
        engine.submit(encoded.take(rows(row)), never_before(2))
        ended += len(ready(engine))
    assert first_batches(tiers[0], [True]) == [1] * 7
    assert first_batches(tiers[1], [True, True]) == [4] and first_batches(tiers[2], [True] * 3) == [3]
    assert ended == 3  # one waits before the last tier, three before the second


def test_the_first_tier_queues_and_reads_in_one_batch_what_came_meanwhile():
    tiers, encoded = make_tiers(), inputs()
    engine = Engine(Ladder(tiers), [100] * 3, 0.0, Clock())
    for row in range(5):
        engine.submit(encoded.take(rows(row)), never_before(0))
    assert not tiers[0].backend.heads_run and engine.wait() == 0
    assert [result.ticket for result in engine.step()] == [0, 1, 2, 3, 4]
    assert first_batches(tiers[0], [True]) == [5]


def test_rules_that_differ_in_thresholds_alone_share_batches_and_others_do_not():
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


# --- lingering and deadlines ------------------------------------------------------------------------------------------


@repeatable
@given(st.data())
def test_no_input_lingers_longer_than_was_said_where_ready_steps_run(data):
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


def test_lingering_counts_from_when_the_oldest_came_before_that_tier():
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


def test_a_deadline_that_passes_meanwhile_ends_an_input_between_two_layers():
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


# --- errors ------------------------------------------------------------------------------------------------------------


def test_an_exception_ends_the_tickets_of_its_batch_and_no_others():
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


def test_rules_of_other_ladders_and_other_inputs_are_refused_where_they_are_submitted():
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


def test_tiers_that_are_not_asked_are_left_out_and_the_first_that_is_reads_at_once():
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


def test_a_ladder_of_one_needs_no_second_look():
    tiers, encoded = make_tiers(0, ((1, 3, 4),)), inputs()
    rule = ExitRule.uniform("entropy", 0.7, 3)
    outcomes = answer(Ladder(tiers), encoded, rule, [7])
    for row in range(N):
        reading, rung = answer_ladder([tiers[0].backend], [[encoded.tokens[row]]], rule, row)
        assert np.array_equal(outcomes.readings[row], reading) and outcomes.rungs[row] == rung
