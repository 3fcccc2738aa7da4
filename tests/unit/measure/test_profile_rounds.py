"""What is timed for a profile, in which order, and what of it counts. No claim here on any speed."""

import itertools

import numpy as np
import pytest

from ziggurat.engine import OpenedModel
from ziggurat.measure import Effort, Shape, Timing, profile_engine, ways_of
from ziggurat.measure import profile as profiling
from ziggurat.measure.profile import profile_beside
from ziggurat.measure.runs import call_of

QUICK = Effort(rounds=1, seconds_per_call=0.0, longest_call=0.0)


@pytest.fixture(scope="module")
def classifier(model_folder):
    return OpenedModel.from_pretrained(model_folder, device="cpu", backend="torch")


def instead_of_timing(monkeypatch, seconds):
    """The names of the calls in the order in which they would run; each takes `seconds` of its name, it, the last."""
    names = []

    def interleave(calls, rounds, **_):
        names.extend(calls)
        pairs = itertools.pairwise([None, *calls.values()])
        return {
            name: Timing((seconds(name, call, last),) * rounds) for name, (last, call) in zip(names, pairs, strict=True)
        }

    monkeypatch.setattr(profiling, "interleave", interleave)
    return names


def truth(n_tokens):
    """What the parts cost on an imaginary machine."""
    return {"call": 50 + n_tokens / 2, "head": 4 + n_tokens / 10, "last": 20 + 2.0 * n_tokens, "layer": 6.0 * n_tokens}


def test_what_is_slow_about_the_start_of_a_call_is_not_charged(classifier, monkeypatch):
    """On a machine where the first batch of another shape or another rule takes longer than anything else."""
    ways = {way.name: way for way in ways_of(classifier)}

    def seconds(name, call, last):
        shape, way = name.removesuffix(", to settle").split(", ")
        parts = truth(int(shape.split()[0]))
        steady = sum(n * parts[part] for part, n in ways[way].counts.items())
        same = (
            last is not None and last.rule is call.rule and np.array_equal(last.encoded.lengths, call.encoded.lengths)
        )
        return steady + (0 if same else 1e4)

    instead_of_timing(monkeypatch, seconds)
    found = profile_engine(classifier, effort=QUICK, clock=itertools.count().__next__)
    for part, wanted in truth(96).items():
        assert found.seconds(part, np.array(96), np.array(96 * 8)) == pytest.approx(wanted, rel=0.01)


def test_no_text_is_run_twice_in_a_call_or_before_it(classifier):
    calls = [call_of(classifier, Shape(24, 12), ways_of(classifier)[0], 5, seed) for seed in (0, 1)]
    texts = [tuple(text[:, 0]) for call in calls for text in call.encoded.tokens]
    assert len(set(texts)) == len(texts) == 20


def test_predictions_and_their_basis_are_timed_in_turn(classifier, monkeypatch):
    names = instead_of_timing(monkeypatch, lambda name, *_: 7.0 if name in ("a1", "b3") else 1.0)
    beside = [{f"{group}{i}": (lambda: None) for i in range(4)} for group in "ab"]
    _, timings = profile_beside(classifier, beside, effort=QUICK, clock=itertools.count().__next__)
    assert list(timings) == [*beside[0], *beside[1]]
    assert {name for name, timing in timings.items() if timing.p50 == 7} == {"a1", "b3"}
    first, second = names.index("a0"), names.index("b0")
    assert names[first : first + 4] == [*beside[0]]
    assert names[second : second + 4] == [*beside[1]]
    assert min(first, second - first, len(names) - second) > len(names) / 5
