"""The clock: interleaved timings, latencies at batch 1, their ratios, and peak memory.

The speed of shared machines drifts. So figures are compared only within one `interleave`, which runs A B C A B C …;
each ratio is taken within a round. A timed call must return when its work is done (on a GPU it must synchronise).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

Clock = Callable[[], float]  # seconds, rising


@dataclass(frozen=True)
class Timing:
    """Repeated timings of one call."""

    runs: tuple[float, ...]  # seconds, in order

    @property
    def p50(self) -> float:
        """Median, seconds."""
        return float(np.percentile(self.runs, 50))

    @property
    def p95(self) -> float:
        """95th percentile, seconds (interpolated; of five runs, between the two slowest)."""
        return float(np.percentile(self.runs, 95))


@dataclass(frozen=True)
class Ratio:
    """A ratio of two timings with its spread over the rounds."""

    median: float
    low: float  # smallest of the rounds
    high: float  # largest of the rounds


def interleave(
    calls: Mapping[str, Callable[[], object]],
    repeats: int = 5,
    warmup: int = 1,
    progress: Callable[[str], None] | None = None,
    clock: Clock = time.perf_counter,
) -> dict[str, Timing]:
    """Time every call `repeats` times, in turn, after `warmup` untimed rounds; seconds per whole call.

    `progress` gets the name of each call that has ended, warm-up included. ValueError if there is nothing to time.
    """
    if not calls or repeats < 1 or warmup < 0:
        raise ValueError("interleave needs a call, repeats of at least 1 and a warmup of at least 0")
    runs: dict[str, list[float]] = {name: [] for name in calls}
    for round_ in range(warmup + repeats):
        for name, call in calls.items():
            seconds = _time(call, clock)
            if round_ >= warmup:
                runs[name].append(seconds)
            if progress is not None:
                progress(name)
    return {name: Timing(tuple(seconds)) for name, seconds in runs.items()}


def latencies(
    call_per_item: Callable[[int], object], n_items: int, warmup: int = 3, clock: Clock = time.perf_counter
) -> Timing:
    """Seconds of each item 0 … n_items - 1 at batch 1, after untimed runs of the first `warmup` items."""
    if n_items < 1:
        raise ValueError("latencies needs at least one item")
    for item in range(min(warmup, n_items)):
        call_per_item(item)
    return Timing(tuple(_time(partial(call_per_item, item), clock) for item in range(n_items)))


def paired_ratio(a: Timing, b: Timing) -> Ratio:
    """`a` over `b`, round by round: `paired_ratio(dense, adaptive)` is a speed-up. ValueError if unpaired."""
    if len(a.runs) != len(b.runs):
        raise ValueError(f"{len(a.runs)} runs cannot be paired with {len(b.runs)}: time both in one interleave")
    ratios = np.array(a.runs) / np.array(b.runs)
    return Ratio(float(np.median(ratios)), float(ratios.min()), float(ratios.max()))


def peak_memory_mib() -> float | None:
    """Peak memory of this process, MiB; None on Windows. It never falls, so compare systems in separate processes."""
    if sys.platform == "win32":
        return None
    status = Path("/proc/self/status")
    if status.exists():  # on Linux getrusage returns the parent's peak if that was higher
        line = next((line for line in status.read_text().splitlines() if line.startswith("VmHWM")), None)
        if line is not None:
            return int(line.split()[1]) / 1024
    import resource  # Unix only

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024 * 1024 if sys.platform == "darwin" else 1024)  # bytes on macOS, KiB elsewhere


@dataclass(frozen=True)
class Speed:
    """Speed of a call, and its gain over a baseline timed in the same rounds."""

    n_texts: int  # per call
    rounds: int
    texts_per_second_p50: float
    texts_per_second_p95: float  # at the 95th percentile of time, so the lower of the two
    milliseconds_per_text: float  # median
    time_gain: float  # the baseline's time over this one's: median of the rounds
    time_gain_low: float  # smallest of the rounds
    time_gain_high: float  # largest of the rounds


def speed_of(timing: Timing, n: int, gain: Ratio) -> Speed:
    """The speed of calls that answer n texts each, with the gain over a baseline."""
    return Speed(
        n_texts=n,
        rounds=len(timing.runs),
        texts_per_second_p50=n / timing.p50,
        texts_per_second_p95=n / timing.p95,
        milliseconds_per_text=1e3 * timing.p50 / n,
        time_gain=gain.median,
        time_gain_low=gain.low,
        time_gain_high=gain.high,
    )


def flops_fields(flops: np.ndarray, full_flops: np.ndarray) -> dict[str, float | int]:
    """Cost fields of a result row, from the FLOPs of answers (n) and of the full model (n)."""
    return {
        "gflops_mean": float(flops.mean() / 1e9),
        "flops_gain": float(full_flops.sum() / flops.sum()),
    }


def _time(call: Callable[[], object], clock: Clock) -> float:
    start = clock()
    call()
    return clock() - start
