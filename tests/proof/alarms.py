"""Trial of the monitor: false alarms on streams that keep their limits, and how soon a change is found.

`guarantee.py` runs it. Beside it a monitor that is wrong on purpose: the fixed-sample test, repeated at
every look as if each look were the only one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from ziggurat.calibrate import DriftTest, Watch

TARGET, CHANGED, DELTA = 0.01, 0.03, 0.05  # disagreement that was promised, and after a change; false alarms
SHARE = 0.5  # of the answers that are checked; a service checks fewer, and waits as many times longer
COST, COST_CHANGED = 0.33, 0.45  # mean cost at its limit, and after a change
LOOK = 50  # checked answers between looks
QUIET = 5_000  # checked answers of a stream that keeps its limits
CHANGES = (0, 1000, 5_000)  # checked answers before a change
PATIENCE = 10_000  # checked answers after it, at most
Looks = Iterator[tuple[np.ndarray, np.ndarray]]  # costs and losses that are new


@dataclass(frozen=True)
class Alarms:
    """What one kind of stream led to. Delays are in observations after the change, to the next look."""

    stream: str
    streams: int
    false_alarms: float  # share of streams with one before any change
    allowed: float  # what chance makes exceed delta once in a thousand trials
    missed: float | None  # share of the others whose change was not found; None where nothing changes
    delay: float | None  # median of those that were found
    delay_90: float | None  # of nine in ten

    @property
    def kept(self) -> bool:
        """Whether false alarms are no more than was promised."""
        return self.false_alarms <= self.allowed


def looks(draws: np.random.Generator, n: int, risk: float, cost: float) -> Looks:
    """Answers, of which n are checked, LOOK of these at a time."""
    for _ in range(0, n, LOOK):
        yield (
            1.2 * draws.beta(10 * cost / 1.2, 10 * (1 - cost / 1.2), int(LOOK / SHARE)),
            (draws.random(LOOK) < risk).astype(np.float64),
        )


def alarm_after(stream: Looks, alarm: Callable[[np.ndarray, np.ndarray], bool]) -> int | None:
    """The number of looks until the alarm; None where it is not given."""
    return next((number for number, look in enumerate(stream, start=1) if alarm(*look)), None)


def promise_monitor() -> Callable[[np.ndarray, np.ndarray], bool]:
    """Alarm of a fresh monitor for the disagreement."""
    monitor = DriftTest(Watch(0, 1, TARGET, COST, tolerance=0, delta=DELTA))
    return lambda costs, losses: monitor.add(costs[:0], losses).promise_lost


def cost_monitor() -> Callable[[np.ndarray, np.ndarray], bool]:
    """Alarm of a fresh monitor for the cost."""
    monitor = DriftTest(Watch(0, 1, TARGET, COST, tolerance=0, delta=DELTA))
    return lambda costs, losses: monitor.add(costs).cost_drifted


def peeking() -> Callable[[np.ndarray, np.ndarray], bool]:
    """The wrong monitor: an exact test for one number of rows, at every look."""
    from scipy.special import bdtrc

    counts = np.zeros(2, dtype=np.int64)  # losses, answers

    def alarm(_: np.ndarray, losses: np.ndarray) -> bool:
        counts[:] += np.count_nonzero(losses), len(losses)
        return bool(bdtrc(counts[0] - 1, counts[1], TARGET) <= DELTA)

    return alarm


def watch_streams(
    make: Callable[[], Callable[[np.ndarray, np.ndarray], bool]], name: str, change: int | None, streams: int, seed: int
) -> Alarms:
    """Many streams at their limits, which change after `change` checked answers, or never."""
    from scipy.special import bdtrik

    false, missed, delays = 0, 0, []
    per_look = LOOK / SHARE if make is cost_monitor else LOOK
    for number in range(streams):
        draws, alarm = np.random.default_rng((seed, number)), make()
        if alarm_after(looks(draws, QUIET if change is None else change, TARGET, COST), alarm) is not None:
            false += 1
        elif change is not None:
            found = alarm_after(looks(draws, PATIENCE, CHANGED, COST_CHANGED), alarm)
            missed += found is None
            delays += [] if found is None else [found * per_look]
    return Alarms(
        stream=f"{name}, " + ("no change" if change is None else f"change after {change:,}"),
        streams=streams,
        false_alarms=false / streams,
        allowed=float(np.ceil(bdtrik(0.999, streams, DELTA)) / streams),
        missed=None if change is None else missed / streams,
        delay=float(np.median(delays)) if delays else None,
        delay_90=float(np.quantile(delays, 0.9)) if delays else None,
    )


def all_streams(streams: int, seed: int = 1) -> list[Alarms]:
    """Every kind of stream; the last is the wrong monitor's."""
    monitors = {"risk": promise_monitor, "cost": cost_monitor}
    kinds = [
        watch_streams(make, name, change, streams, seed)
        for name, make in monitors.items()
        for change in (None, *CHANGES)
    ]
    return [*kinds, watch_streams(peeking, "risk, peeking", None, streams, seed)]


def proven(kinds: Iterable[Alarms]) -> bool:
    """Whether only the wrong monitor, which stands last, gives too many false alarms, and every change is found."""
    *right, wrong = kinds
    return all(one.kept and not one.missed for one in right) and not wrong.kept


def table(kinds: Iterable[Alarms]) -> str:
    """One line per kind of stream."""
    lines = [f"{'stream':<32}{'false alarms':>13}{'allowed':>9}{'delay: median':>15}{'90 %':>8}"]
    for one in kinds:
        delays = "" if one.delay is None else f"{one.delay:>15,.0f}{one.delay_90:>8,.0f}"
        broken = "" if one.kept else "   too many"
        lines.append(f"{one.stream:<32}{one.false_alarms:>13.1%}{one.allowed:>9.1%}{delays}{broken}")
    return "\n".join(lines) + "\n"
