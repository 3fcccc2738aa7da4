"""Watches a certified point in production: alarms for a promise that is no longer supported, and for cost that drifts.

Both are bets against "the mean is at most the limit", whose capital ever exceeds 1 / delta, over an endless stream,
with probability delta at most (Ville). So that a late change is found as well, the capital is not staked at once: half
at the start, the rest bit by bit for ever, as a prior for the time of the change (Shiryaev 1963; sums of e-processes
that start at every time: Shin, Ramdas & Rinaldo, "E-detectors", 2024). What was staked before a change is mostly lost
when it comes, what is staked after it grows. A change after k observations needs about log k + 2 log log k nats more
evidence than one at the start; a CUSUM that may give one false alarm in k observations needs log k as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import numpy as np

# Bets at which equal parts of each stake play, from what wins most on a change to certain loss to what finds a small
# one: the mean after a change is not known, and the best of a few halvings is never far from the best bet.
_BETS = 0.9 * 0.5 ** np.arange(8)  # times the largest that cannot ruin
_AT_ONCE = 0.5  # share that is staked at the start
_PACE = 100.0  # observations after which staking slows down
_LARGEST = 1e300  # capital that floats still hold; far beyond any alarm


@dataclass(frozen=True)
class Watch:
    """What is watched, and with what probability of a false alarm."""

    low: float  # range of the risk's loss, see ziggurat.calibrate.risks
    high: float
    target: float  # mean loss that was promised, in [low, high)
    expected_cost: float  # mean cost of an answer on the certifying rows; the full model's is 1
    tolerance: float = 0.1  # share by which the mean cost may exceed that
    largest_cost: float = 1.5  # that one answer can have
    delta: float = 0.05  # probability that an alarm that should never come does, for each of the two
    share: float = 0.02  # of the inputs that are run at full depth too
    seed: int = 0  # of the draw of those

    def __post_init__(self) -> None:
        if not self.low <= self.target < self.high:
            raise ValueError(f"target must lie in [{self.low:g}, {self.high:g}), not {self.target}")
        if not (self.expected_cost >= 0 and self.tolerance >= 0 and 0 < self.cost_limit < self.largest_cost):
            raise ValueError(f"cost limit must lie in (0, {self.largest_cost:g}), not {self.cost_limit}")
        if not (0 < self.delta < 1 and 0 < self.share <= 1):
            raise ValueError(f"delta {self.delta} and share {self.share} must be between 0 and 1")

    @property
    def cost_limit(self) -> float:
        """The mean cost above which it has drifted."""
        return self.expected_cost * (1 + self.tolerance)


@dataclass(frozen=True)
class Evidence:
    """A bet against one limit. Eight numbers, however long the stream."""

    n: int = 0  # observations
    total: float = 0.0  # their sum
    stakes: tuple[float, ...] = (_AT_ONCE / len(_BETS),) * len(_BETS)  # what each bet has made of its part
    largest: float = 1.0  # capital, at any time so far

    @property
    def capital(self) -> float:
        """What the bets have made of the 1 that they began with: an alarm is due when it reaches 1 / delta."""
        return sum(self.stakes) + float(_waiting(np.array(self.n)))


@dataclass(frozen=True)
class State:
    """All that a monitor knows."""

    watch: Watch
    drawn: int = 0  # inputs for which it was decided whether they are checked
    risk: Evidence = Evidence()
    cost: Evidence = Evidence()

    @property
    def promise_lost(self) -> bool:
        """Alarm: the mean loss of the inputs that were checked exceeds the target. It stays."""
        return self.risk.largest >= 1 / self.watch.delta

    @property
    def cost_drifted(self) -> bool:
        """Alarm: the mean cost exceeds its limit. It stays."""
        return self.cost.largest >= 1 / self.watch.delta

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        parts = asdict(self)
        for name in ("risk", "cost"):
            parts[name]["stakes"] = list(parts[name]["stakes"])
        return parts

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """What `to_dict` gave. TypeError, ValueError or KeyError where something else did."""
        risk, cost = (_evidence(**values[name]) for name in ("risk", "cost"))
        return cls(Watch(**values["watch"]), int(values["drawn"]), risk, cost)


def _evidence(n: int, total: float, stakes: Sequence[float], largest: float) -> Evidence:
    """From values of any type; ValueError or TypeError for what is no number, or not one stake for each bet."""
    if len(stakes) != len(_BETS):
        raise ValueError(f"{len(stakes)} stakes for {len(_BETS)} bets")
    return Evidence(int(n), float(total), tuple(map(float, stakes)), float(largest))


class Monitor:
    """Fed with what answers cost and lost, one at a time or many: `due`, then `add`, for ever; then `state`.

    Guaranteed, for each alarm: if the mean, given all that came before, never exceeds its limit, the alarm is given
    with a probability of at most delta over the whole endless stream, whenever one looks. Inputs may depend on each
    other and may change, as long as the mean keeps the limit. How soon a change is found is not guaranteed: it takes
    about log(16 k / delta) + 2 log(1 + log(1 + k / 100)) over the best bet's mean log growth, observations after the
    k-th. An alarm stays until a new monitor is made, as for a new operating point.
    """

    def __init__(self, start: Watch | State) -> None:
        self._state = start if isinstance(start, State) else State(start)

    @property
    def state(self) -> State:
        """A snapshot; `Monitor(State.from_dict(...))` goes on from it."""
        return self._state

    def due(self, n: int = 1) -> np.ndarray:
        """Which of the next n inputs are to be run at full depth too: (n) bool, a seeded random share of them."""
        draws = np.random.Generator(np.random.PCG64(self._state.watch.seed).advance(self._state.drawn))
        self._state = replace(self._state, drawn=self._state.drawn + n)
        return draws.random(n) < self._state.watch.share

    def add(self, costs: np.ndarray | float, losses: np.ndarray | float | None = None) -> State:
        """Take note of the costs (n) of all answers, and the losses (k) of those that were checked; → the new state.

        Costs are shares of the full model's, without what checking cost. Losses as `Risk.of` gives them. ValueError for
        values outside of their ranges or NaN; then nothing is taken note of.
        """
        watch, old = self._state.watch, self._state
        cost = _after(old.cost, costs, 0, watch.largest_cost, watch.cost_limit)
        checked = np.empty(0) if losses is None else losses
        risk = _after(old.risk, checked, watch.low, watch.high, watch.target)
        self._state = replace(old, risk=risk, cost=cost)
        return self._state


def _waiting(times: np.ndarray) -> np.ndarray:
    """The capital that is not yet staked after so many observations."""
    return (1 - _AT_ONCE) / (1 + np.log1p(times / _PACE))


def _after(old: Evidence, values: np.ndarray | float, low: float, high: float, limit: float) -> Evidence:
    """The evidence with values (n) in [low, high] or one of them added."""
    seen = np.atleast_1d(np.asarray(values, dtype=np.float64))
    if seen.ndim != 1 or not ((seen >= low) & (seen <= high)).all():  # NaN is neither
        raise ValueError(f"costs and losses must lie in their ranges, here [{low:g}, {high:g}]; they are not clipped")
    if not len(seen):
        return old
    # Played is (value - limit) / (limit - low) >= -1, so that a bet below 1 cannot ruin; at limit = low any value above
    # it is proof, and any large finite factor will do.
    room = max(limit - low, 1e-9 * (high - low))
    growth = np.cumsum(np.log1p(_BETS * ((seen - limit) / room)[:, None]), axis=0)  # (n, bets)
    times = old.n + np.arange(len(seen) + 1)
    waiting = _waiting(times)
    before = np.vstack([np.zeros(len(_BETS)), growth[:-1]])
    fresh = np.log((waiting[:-1] - waiting[1:])[:, None] / len(_BETS)) - before
    with np.errstate(divide="ignore"):  # a stake of 0 has the logarithm -inf, which adds nothing
        fresh[0] = np.logaddexp(fresh[0], np.log(old.stakes))
    stakes = np.exp(np.minimum(np.logaddexp.accumulate(fresh, axis=0) + growth, np.log(_LARGEST)))
    capital = stakes.sum(axis=1) + waiting[1:]
    return Evidence(
        n=old.n + len(seen),
        total=old.total + float(seen.sum()),
        stakes=tuple(stakes[-1].tolist()),
        largest=float(max(old.largest, capital.max())),
    )
