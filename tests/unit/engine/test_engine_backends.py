"""The engine over both backends: whatever shares its batches, is dropped or late, an input is answered as if alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ziggurat import native
from ziggurat.engine import Engine, OpenedModel
from ziggurat.errors import DeadlinePassed
from ziggurat.policies import ExitRule

repeatable = settings(derandomize=True, deadline=None, max_examples=15)
LEVELS = (0.0, 0.2, 0.35, 0.6, 1.1)


class Ticking:
    """A clock that goes on with every look at it, so that deadlines pass in the middle of a call."""

    def __init__(self, step: float) -> None:
        self.now, self.step = 0.0, step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


@pytest.fixture(
    scope="module",
    params=[
        pytest.param("native", marks=pytest.mark.skipif(bool(native.why_missing()), reason="no compiled engine")),
        "torch",
    ],
)
def opened(request):
    return lambda folder: OpenedModel.from_pretrained(folder, "cpu", threads=1, backend=request.param)


@pytest.fixture(scope="module", params=["pruned_folder", "cascade_folder"])
def case(request, opened, texts):
    """A model, its inputs, and what each is answered alone at every level: levels → outcomes of all inputs."""
    model = opened(request.getfixturevalue(request.param))
    encoded = model.encode(texts)
    alone = {
        level: [model.run(encoded.take(np.array([row])), model.rule("margin", level), 1) for row in range(len(encoded))]
        for level in LEVELS
    }
    return model, encoded, alone


@repeatable
@given(st.data())
def test_shared_batches_answer_each_input_as_if_alone(case, data):
    model, encoded, alone = case
    clock = Ticking(data.draw(st.sampled_from([0.0, 0.01])))
    sizes = [data.draw(st.sampled_from([1, 3, 32]))] * len(model.tiers)
    engine = Engine(model.ladder, sizes, data.draw(st.sampled_from([0.0, 1.0])), clock)
    known, cancelled, results = {}, set(), []
    for chosen in data.draw(st.lists(st.lists(st.integers(0, len(encoded) - 1), min_size=1, max_size=6), max_size=6)):
        levels = [data.draw(st.sampled_from(LEVELS)) for _ in chosen]
        rule = model.rule("margin", levels if data.draw(st.booleans()) else levels[0])
        levels = levels if rule.thresholds.ndim == 2 else [levels[0]] * len(chosen)
        deadline = data.draw(st.sampled_from([None, clock.now + 0.05, clock.now + 0.2, clock.now + 9]))
        tickets = engine.submit(encoded.take(np.array(chosen)), rule, deadline)
        known |= dict(zip(tickets, zip(chosen, levels, strict=True), strict=True))
        if data.draw(st.booleans()):
            results += engine.step()
        if data.draw(st.booleans()):
            engine.cancel([tickets[0]])
            cancelled |= {tickets[0]} - {result.ticket for result in results}
    engine.flush()
    while engine.wait() is not None:
        results += engine.step()
    assert sorted(result.ticket for result in results) == sorted(set(known) - cancelled)
    for result in results:
        if isinstance(result.error, DeadlinePassed):
            continue
        row, level = known[result.ticket]
        outcomes, expected = result.get(), alone[level][row]
        assert outcomes.rungs.tolist() == expected.rungs.tolist() and np.array_equal(
            outcomes.token_counts, expected.token_counts
        )
        if model.backend.engine == "native":
            assert np.array_equal(outcomes.readings, expected.readings)
        else:
            assert np.allclose(outcomes.readings, expected.readings, atol=1e-5)


def test_a_deadline_in_the_middle_spares_the_later_layers(opened, model_folder, texts):
    model = opened(model_folder)
    encoded, full = model.encode(texts), ExitRule.full_depth(len(model.rungs))
    clock = Ticking(1.0)
    engine = Engine(model.ladder, [100], 0.0, clock)
    engine.submit(encoded.take(np.arange(4)), full, deadline=clock.now + 5)
    engine.submit(encoded.take(np.arange(4, 6)), full)
    results = {result.ticket: result for result in engine.step()}
    assert [isinstance(results[ticket].error, DeadlinePassed) for ticket in range(6)] == [True] * 4 + [False] * 2
    expected = model.run(encoded.take(np.arange(4, 6)), full)
    for ticket in (4, 5):
        assert np.allclose(results[ticket].get().readings[0], expected.readings[ticket - 4], atol=1e-5)


def test_an_exception_of_a_backend_reaches_its_tickets_alone(opened, model_folder, texts, monkeypatch):
    model = opened(model_folder)
    encoded, full = model.encode(texts), ExitRule.full_depth(len(model.rungs))
    engine, real = Engine(model.ladder, [2], 0.0), model.backend.advance

    def advance(work, rule, to_layer):
        if 3 in work.live.lengths:
            raise MemoryError("no room")
        return real(work, rule, to_layer)

    monkeypatch.setattr(model.backend, "together", 0)
    monkeypatch.setattr(model.backend, "advance", advance)
    engine.submit(encoded, full)
    engine.flush()
    results = []
    while engine.wait() is not None:
        results += engine.step()
    failed = [result for result in results if result.error is not None]
    assert len(results) == len(texts) and 0 < len(failed) < len(texts)
    assert {type(result.error) for result in failed} == {MemoryError}


def test_rules_that_are_made_anew_for_each_request_share_a_batch(opened, pruned_folder, texts, monkeypatch):
    model = opened(pruned_folder)
    seen, real = [], model.backend.advance

    def advance(work, rule, to_layer):
        seen.append(len(work.rows))
        return real(work, rule, to_layer)

    monkeypatch.setattr(model.backend, "advance", advance)
    engine = Engine(model.ladder, [100], 0.0)
    for text in texts[:5]:
        rule = replace(model.rule("margin", 0.4), tokens=replace(model.token_rule))
        engine.submit(model.encode([text]), rule)
    assert len(engine.step()) == 5 and seen == [5]
