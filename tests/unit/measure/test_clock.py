"""The clock, driven by a clock of our own: nothing here depends on how fast the machine is."""

import subprocess
import sys

import numpy as np
import pytest

from ziggurat.measure import Ratio, Timing, interleave, paired_ratio, peak_memory_mib
from ziggurat.measure.clock import latencies
from ziggurat.problems import accuracy_interval


class FakeMachine:
    """Calls that take the time they are told to, and remember their order."""

    def __init__(self):
        self.now = 0.0
        self.log = []

    def clock(self):
        return self.now

    def work(self, name, seconds):
        def call():
            self.log.append(name)
            self.now += seconds(len(self.log)) if callable(seconds) else seconds

        return call


def test_calls_take_turns_and_warm_up_is_not_timed():
    machine = FakeMachine()
    calls = {"a": machine.work("a", 2.0), "b": machine.work("b", 3.0)}
    timings = interleave(calls, repeats=3, warmup=2, clock=machine.clock)
    assert machine.log == ["a", "b"] * 5
    assert timings == {"a": Timing((2.0, 2.0, 2.0)), "b": Timing((3.0, 3.0, 3.0))}


def test_drift_cancels_in_a_paired_ratio():
    machine = FakeMachine()

    def slowing(base):
        return lambda step: base * 2.0 ** ((step - 1) // 2)  # the machine halves its speed after every round

    calls = {"dense": machine.work("dense", slowing(3.0)), "adaptive": machine.work("adaptive", slowing(1.0))}
    timings = interleave(calls, repeats=4, warmup=0, clock=machine.clock)
    assert timings["dense"].runs == (3.0, 6.0, 12.0, 24.0)
    assert paired_ratio(timings["dense"], timings["adaptive"]) == Ratio(3.0, 3.0, 3.0)


def test_a_ratio_names_its_spread():
    assert paired_ratio(Timing((4.0, 6.0, 9.0)), Timing((2.0, 2.0, 2.0))) == Ratio(3.0, 2.0, 4.5)


def test_unpaired_rounds_are_refused():
    with pytest.raises(ValueError, match="2 runs cannot be paired with 1"):
        paired_ratio(Timing((1.0, 2.0)), Timing((1.0,)))


def test_progress_hears_of_every_call():
    heard = []
    interleave({"a": lambda: None, "b": lambda: None}, repeats=2, warmup=1, progress=heard.append)
    assert heard == ["a", "b"] * 3


@pytest.mark.parametrize("wrong", [{"calls": {}}, {"repeats": 0}, {"warmup": -1}])
def test_timing_nothing_is_refused(wrong):
    with pytest.raises(ValueError, match="interleave needs"):
        interleave(**{"calls": {"a": lambda: None}, **wrong})


def test_latencies_time_every_item_once_after_warming_up():
    machine, seen = FakeMachine(), []

    def answer(item):
        seen.append(item)
        machine.now += item + 1.0

    timing = latencies(answer, 4, warmup=2, clock=machine.clock)
    assert seen == [0, 1, 0, 1, 2, 3]
    assert timing.runs == (1.0, 2.0, 3.0, 4.0)
    assert timing.p50 == 2.5


def test_percentiles_are_of_the_slow_end():
    timing = Timing(tuple(float(i) for i in range(101)))
    assert (timing.p50, timing.p95) == (50.0, 95.0)


def test_wilson_interval_reproduces_textbook_values():
    assert accuracy_interval(8, 10) == pytest.approx((0.490162, 0.943318), abs=1e-6)
    assert accuracy_interval(0, 20) == pytest.approx((0.0, 0.161125), abs=1e-6)
    assert accuracy_interval(20, 20) == pytest.approx((0.838875, 1.0), abs=1e-6)


@pytest.mark.parametrize("n", [1, 5, 7, 8, 10, 33, 1000])
def test_an_accuracy_lies_in_its_interval_at_0_and_1_too(n):
    for correct in {0, 1, n // 2, n - 1, n}:
        low, high = accuracy_interval(correct, n)
        assert 0 <= low <= correct / n <= high <= 1


def test_interval_holds_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(7)
    hits = [
        low <= 0.92 <= high for low, high in (accuracy_interval(int(k), 400) for k in rng.binomial(400, 0.92, 4000))
    ]
    assert 0.935 < np.mean(hits) < 0.965


def test_interval_narrows_with_data_and_widens_with_confidence():
    def width(*arguments):
        low, high = accuracy_interval(*arguments)
        return high - low

    assert width(900, 1000) < width(90, 100) < width(90, 100, 0.99)


@pytest.mark.parametrize(("correct", "n"), [(-1, 5), (6, 5), (0, 0)])
def test_impossible_accuracies_are_refused(correct, n):
    with pytest.raises(ValueError, match="is no accuracy"):
        accuracy_interval(correct, n)


def test_peak_memory_counts_mebibytes_and_never_falls():
    code = """
import numpy as np
from ziggurat.measure.clock import peak_memory_mib as peak
before = peak()
held = np.ones(100 * 2**17)
during = peak()
del held
print(during - before, peak() - during)
"""
    if peak_memory_mib() is None:
        pytest.skip("this system does not report it")
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    grown, afterwards = map(float, out.split())
    assert 80 < grown < 130
    assert afterwards > -1  # the kernel counts pages in batches
