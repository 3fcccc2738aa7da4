"""A stream is answered as `run_ladder` would, whatever waits for whom; nobody waits longer than was said."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kit.scripted import CLASSES, N, R, inputs, make_tiers
from ziggurat.engine.escalation import Escalation, Finished
from ziggurat.engine.ladder import run_ladder
from ziggurat.engine.rules import ExitRule, never, shared
from ziggurat.engine.runner import Outcomes, nothing_yet
from ziggurat.errors import UserError
from ziggurat.policies.exits import SCORES

repeatable = settings(derandomize=True, deadline=None, max_examples=80)
NAMES = (*SCORES, "top-entropy@2", "confident-in-a-row@0.7", "learned")
WEIGHTS = np.random.default_rng(0).normal(size=(R - 1, 4 + CLASSES))  # of the learned score
SIZES = st.tuples(*[st.sampled_from([1, 3, 4, 100])] * 3)
MOMENTS = st.floats(0, 1e3)
NOBODY = 2.0  # a margin that nobody reaches


@dataclass
class Clock:
    """Stands still until somebody moves it."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@st.composite
def ladder_rules(draw) -> ExitRule:
    levels = st.sampled_from([np.nan, 0.0, 0.3, 0.6, 0.9, 1.0, 2.0])
    thresholds = np.array(draw(st.lists(levels, min_size=R - 1, max_size=R - 1)))
    temperatures = draw(st.sampled_from([None, np.array([0.5, 1, 3, 0.5, 1, 3])]))
    return ExitRule(draw(st.sampled_from(NAMES)), thresholds, temperatures, deferral=WEIGHTS)


def cut(n: int, places: list[int]) -> Iterator[np.ndarray]:
    """Rows 0 … n - 1 in pieces, some of them empty."""
    edges = [0, *sorted(min(place, n) for place in places), n]
    return (np.arange(first, last) for first, last in pairwise(edges))


ARRIVALS = st.lists(st.integers(0, N), max_size=12).map(lambda places: list(cut(N, places)))


def gathered(found: list[Finished], n: int = N) -> Outcomes:
    """In the order of arrival; everybody must have been answered once."""
    numbers = np.concatenate([some.numbers for some in found])
    assert sorted(numbers.tolist()) == list(range(n))
    total = nothing_yet(n, CLASSES, found[0].outcomes.kept.shape[1])
    for some in found:
        for name in ("logits", "rungs", "seconds", "kept"):
            getattr(total, name)[some.numbers] = getattr(some.outcomes, name)
    return total


def first_batches(tier, asked) -> list[int]:
    """Sequences in each batch that the tier has read, by the first of its rungs that is asked."""
    first = int(np.flatnonzero(asked)[0])
    return [n for rung, n in tier.backend.heads_run if rung == first]


@pytest.mark.slow
@repeatable
@given(st.data())
def test_claim_28_any_arrivals_are_answered_as_by_the_ladder(data):
    rule, sizes, arrivals = data.draw(ladder_rules()), data.draw(SIZES), data.draw(ARRIVALS)
    tiers, encoded, clock = make_tiers(), inputs(), Clock()
    queues = Escalation(tiers, rule, sizes, data.draw(st.sampled_from([0.5, 3.0, np.inf])), clock)
    found, arrived = [], 0
    for rows in arrivals:
        found += queues.submit(encoded.take(rows))
        arrived += len(rows)
        clock.now += data.draw(st.sampled_from([0.0, 0.2, 1.0, 5.0]))
        if data.draw(st.booleans()):
            found += queues.poll()
        assert queues.waiting == arrived - sum(len(some.numbers) for some in found)
    found += queues.flush()
    assert queues.waiting == 0 and queues.due() is None and queues.flush() == queues.poll() == []
    mine, theirs = gathered(found), run_ladder(make_tiers(), encoded, rule, [7] * 3)
    assert np.array_equal(mine.logits, theirs.logits)
    assert np.array_equal(mine.rungs, theirs.rungs)
    assert np.array_equal(mine.kept, theirs.kept)


@repeatable
@given(rule=ladder_rules(), sizes=SIZES, arrivals=ARRIVALS)
def test_claim_28_later_tiers_run_full_batches_until_the_flush(rule, sizes, arrivals):
    tiers, encoded = make_tiers(), inputs()
    queues = Escalation(tiers, rule, sizes, np.inf, Clock())
    asked = [rule.asked[:1], rule.asked[1:3], rule.asked[3:]]
    ran = [place for place, mine in enumerate(asked) if any(mine)]
    for rows in arrivals:
        queues.submit(encoded.take(rows))
        assert queues.waiting <= sum(sizes[place] - 1 for place in ran[1:])
        assert queues.poll() == []
    for place in ran[1:]:
        assert set(first_batches(tiers[place], asked[place])) <= {sizes[place]}
    queues.flush()
    for place in ran[1:]:
        assert sum(n != sizes[place] for n in first_batches(tiers[place], asked[place])) <= 1
        assert max(first_batches(tiers[place], asked[place]), default=0) <= sizes[place]


def test_the_first_tier_runs_at_once_and_the_next_fills_batches():
    tiers, encoded = make_tiers(), inputs()
    queues = Escalation(tiers, never_before(2), [100, 4, 3], np.inf, Clock())
    for row in range(7):
        queues.submit(encoded.take(np.array([row])))
    assert first_batches(tiers[0], [True]) == [1] * 7
    assert first_batches(tiers[1], [True, True]) == [4] and first_batches(tiers[2], [True] * 3) == [3]
    assert queues.waiting == 4  # one before the last tier, three before the second


def never_before(tier: int) -> ExitRule:
    """Everybody goes on from the first tiers; all rungs are asked."""
    thresholds = np.full(R - 1, NOBODY)
    thresholds[[0, 1, 3][tier] :] = 0.0
    return ExitRule("margin", thresholds)


@repeatable
@given(st.data())
def test_polling_keeps_every_wait_within_the_deadline(data):
    """Before the last of two tiers, where all wait that are not answered."""
    deadline = data.draw(st.floats(0.01, 10))
    tiers, encoded, clock = make_tiers(0, ((0,), (1, 2))), inputs(), Clock(data.draw(MOMENTS))
    rule = ExitRule("margin", np.array([NOBODY, np.nan]))
    queues = Escalation(tiers, rule, [4, data.draw(st.integers(1, 40))], deadline, clock)
    came: dict[int, float] = {}
    for rows in data.draw(ARRIVALS):
        came |= dict.fromkeys(rows.tolist(), clock.now)
        for some in [*queues.submit(encoded.take(rows)), *queues.poll()]:
            for number, seconds in zip(some.numbers.tolist(), some.outcomes.seconds.tolist(), strict=True):
                assert seconds == clock.now - came.pop(number)
        assert queues.waiting == len(came)
        assert all(moment + deadline > clock.now for moment in came.values())
        clock.now += data.draw(st.floats(0, 5))


@repeatable
@given(arrived=MOMENTS, wait=st.floats(0, 20), deadline=st.floats(0.001, 10))
def test_there_is_something_to_do_just_when_it_is_due(arrived, wait, deadline):
    clock = Clock(arrived)
    queues = Escalation(make_tiers(), never_before(1), [9] * 3, deadline, clock)
    assert queues.due() is None and queues.poll() == []
    queues.submit(inputs().take(np.arange(2)))
    assert queues.due() == pytest.approx(deadline, abs=1e-9)
    clock.now += wait
    due = queues.due()
    assert due == pytest.approx(max(0, deadline - wait), abs=1e-9)
    assert bool(queues.poll()) == (due == 0)
    assert (queues.due() is None) == (due == 0)


def test_a_deadline_counts_from_the_oldest_arrival_at_the_tier():
    tiers, encoded, clock = make_tiers(), inputs(), Clock(10)
    queues = Escalation(tiers, never_before(2), [9] * 3, 2, clock)
    queues.submit(encoded.take(np.array([0])))
    clock.now = 11
    queues.submit(encoded.take(np.array([1])))
    assert queues.due() == 1
    clock.now = 12.5
    assert queues.poll() == []
    assert first_batches(tiers[1], [True, True]) == [2]  # who came later goes along
    assert queues.due() == 2 and queues.waiting == 2
    clock.now = 14.5
    (both,) = queues.poll()
    assert both.numbers.tolist() == [0, 1] and both.outcomes.seconds.tolist() == [4.5, 3.5]


def test_who_is_late_leaves_when_others_arrive():
    clock = Clock()
    queues = Escalation(make_tiers(), never_before(1), [9] * 3, 2, clock)
    assert not answered(queues.submit(inputs().take(np.array([0]))))
    clock.now = 2
    assert answered(queues.submit(inputs().take(np.array([1])))) == [0, 1]
    assert not answered(queues.submit(inputs().take(np.array([], dtype=np.int64))))


def answered(found: list[Finished]) -> list[int]:
    return list(chain.from_iterable(some.numbers.tolist() for some in found))


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
    queues = Escalation(tiers, rule, [100, 4, 3], np.inf, Clock())
    found = [*chain.from_iterable(queues.submit(encoded.take(rows)) for rows in cut(N, [5, 6, 17])), *queues.flush()]
    rungs = gathered(found).rungs
    assert set(rungs[::2]) == {1}
    assert set(rungs[1::2]) == {4}  # the second tier broke the row: the last one has to agree with itself
    assert np.array_equal(rungs, run_ladder(tiers, encoded, rule, [4] * 3).rungs)


def test_unasked_tiers_are_skipped_and_the_next_runs_at_once():
    tiers, encoded = make_tiers(), inputs()
    rule = ExitRule("margin", np.array([np.nan, np.nan, 0.7, np.nan, np.nan]))
    queues = Escalation(tiers, rule, [1, 4, 5], np.inf, Clock())
    queues.submit(encoded.take(np.arange(3)))
    assert not tiers[0].backend.heads_run and first_batches(tiers[1], [False, True]) == [3]
    found = queues.submit(encoded.take(np.arange(3, N)))
    assert {n for _, n in tiers[2].backend.heads_run} == {5}
    assert set(answered(found)) <= set(range(N)) and not tiers[0].backend.heads_run


@pytest.mark.parametrize("deadline", [0, -1.0, np.nan, -np.inf])
def test_a_deadline_that_is_no_time_is_refused_in_one_line(deadline):
    assert_refused("must be more than 0", never(R), [4] * 3, deadline)


@pytest.mark.parametrize("sizes", [[], [4, 4], [4] * 4, [4, 0, 4], [4, 4, -1]])
def test_batch_sizes_that_do_not_fit_are_refused_in_one_line(sizes):
    assert_refused("give one of at least 1 for each tier", never(R), sizes, 1)


def test_thresholds_of_each_input_are_refused_in_one_line():
    assert_refused("the same thresholds", shared("margin", [0.5] * 7, R), [4] * 3, 1)


def assert_refused(reason: str, rule: ExitRule, sizes: list[int], deadline: float) -> None:
    with pytest.raises(UserError, match=reason) as refused:
        Escalation(make_tiers(), rule, sizes, deadline)
    assert "\n" not in str(refused.value)
