"""Monitors a certified point in production: alarms for a promise that is no longer supported, and for drifting cost.

Each alarm is a bet against "the mean is at most the limit". Over an endless stream its capital ever exceeds 1 / delta
with probability at most delta (Ville's inequality). To detect late changes as well, the capital is not staked at once:
half at the start, the rest little by little without end. That is a prior for the time of the change (Shiryaev 1963;
sums of e-processes that start at every time: Shin, Ramdas & Rinaldo, "E-detectors", 2024). A change mostly destroys
stakes that were placed before it; later stakes grow. A change after k observations needs about log k + 2 log log k nats
more evidence than one at the start. A CUSUM that may give one false alarm in k observations needs log k as well.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self

import numpy as np

from ziggurat.config import from_mapping, require
from ziggurat.errors import UserError

# Each stake is split equally over these bets. Large ones win most if every later input has a loss; small ones detect
# small changes. The mean after a change is unknown, and one of a few halvings is always close to the best bet.
_BETS = 0.9 * 0.5 ** np.arange(8)  # shares of the largest bet that cannot lose all capital
_AT_ONCE = 0.5  # share that is staked at the start
_PACE = 100.0  # observations after which staking slows down
_LARGEST = 1e300  # cap of the capital, within float range and far beyond any alarm
_LONGEST = 10**12  # observations; far beyond it floats cannot resolve the next one, and no capital would be staked
_SEEDS = 2**64


def _waiting(times: np.ndarray) -> np.ndarray:
    """The capital that is not yet staked after `times` observations."""
    return (1 - _AT_ONCE) / (1 + np.log1p(times / _PACE))


@dataclass(frozen=True)
class Watch:
    """The limits that are monitored, and the probability of a false alarm."""

    low: float  # range of the risk's loss, see ziggurat.calibrate.risks
    high: float
    target: float  # promised mean loss, in [low, high)
    expected_cost: float  # mean cost of an answer on the certifying rows; the full model's is 1
    tolerance: float = 0.1  # share by which the mean cost may exceed `expected_cost`
    largest_cost: float = 1.5  # largest cost of one answer
    delta: float = 0.05  # probability of a false alarm, for each of the two alarms
    share: float = 0.02  # of the inputs that also run at full depth
    seed: int = 0  # of the random choice of these inputs

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            require(math.isfinite(value), name, value, "finite")
        require(0 <= self.seed < _SEEDS, "seed", self.seed, f"at least 0 and below {_SEEDS}")
        if not self.low <= self.target < self.high:
            raise ValueError(f"target must lie in [{self.low:g}, {self.high:g}), not {self.target}")
        if not (self.expected_cost >= 0 and self.tolerance >= 0 and 0 < self.cost_limit < self.largest_cost):
            raise ValueError(f"cost limit must lie in (0, {self.largest_cost:g}), not {self.cost_limit}")
        if not (0 < self.delta < 1 and 0 < self.share <= 1):
            raise ValueError(f"delta {self.delta} and share {self.share} must be between 0 and 1")

    @property
    def cost_limit(self) -> float:
        """The mean cost above which the cost has drifted."""
        return self.expected_cost * (1 + self.tolerance)


@dataclass(frozen=True)
class Evidence:
    """State of the bets against one limit. Its size does not depend on the length of the stream."""

    n: int = 0  # observations
    total: float = 0.0  # their sum
    stakes: tuple[float, ...] = (_AT_ONCE / len(_BETS),) * len(_BETS)  # current stake of each bet
    largest: float = 1.0  # largest capital so far

    def __post_init__(self) -> None:
        require(self.n >= 0, "n", self.n, "at least 0")
        require(math.isfinite(self.total), "total", self.total, "finite")
        require(len(self.stakes) == len(_BETS), "stakes", self.stakes, f"{len(_BETS)} numbers")
        require(all(0 <= stake <= _LARGEST for stake in self.stakes), "stakes", self.stakes, "from 0 to 1e300")
        reached = max(1.0, self.capital * (1 - 1e-9))
        require(reached <= self.largest <= 10 * _LARGEST, "largest", self.largest, "what the capital has reached")

    @property
    def capital(self) -> float:
        """Staked and unstaked capital. It starts at 1; the alarm is raised when it reaches 1 / delta."""
        return sum(self.stakes) + float(_waiting(np.array(self.n)))


@dataclass(frozen=True)
class Place:
    """State of the bets at one observation of one monitor."""

    n: int = 0  # observations
    growth: tuple[float, ...] = (0.0,) * len(_BETS)  # logarithm of each bet's growth since the monitor began
    stakes: tuple[float, ...] = ()  # current stake of each bet


@dataclass(frozen=True)
class Way:
    """What is needed to merge a monitor's evidence into another's: its latest place and its best one."""

    latest: Place = Place()
    top: Place = Place()  # of the largest capital since the monitor began
    capital: float = 0.0  # at `top`


@dataclass
class Origin:
    """The state from which a monitor began, and the latest of its states that each file already contains."""

    start: State | None  # None = the monitor began without a state
    saved: dict[str, State] = field(default_factory=dict)  # by file


@dataclass(frozen=True)
class State:
    """The whole state of a monitor."""

    watch: Watch
    drawn: int = 0  # inputs so far, checked or not
    risk: Evidence = Evidence()
    cost: Evidence = Evidence()
    # Only within a process, not written to files: `ways` are of risk and cost.
    ways: tuple[Way, Way] = field(default=(Way(), Way()), compare=False, repr=False)
    origin: Origin | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        require(self.drawn >= 0, "drawn", self.drawn, "at least 0")
        limits = (self.risk, self.watch.low, self.watch.high), (self.cost, 0.0, self.watch.largest_cost)
        for evidence, low, high in limits:
            slack = 1e-6 * (1 + evidence.n * max(abs(low), abs(high)))
            fits = low * evidence.n - slack <= evidence.total <= high * evidence.n + slack
            require(fits, "total", evidence.total, f"what {evidence.n} observations can add up to")

    @property
    def promise_lost(self) -> bool:
        """Alarm: the mean loss of the checked inputs exceeds the target. Once true, it stays true."""
        return self.risk.largest >= 1 / self.watch.delta

    @property
    def cost_drifted(self) -> bool:
        """Alarm: the mean cost exceeds its limit. Once true, it stays true."""
        return self.cost.largest >= 1 / self.watch.delta

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        fields = asdict(replace(self, ways=(), origin=None))  # type: ignore[arg-type]
        parts = {name: fields[name] for name in _SAVED_FIELDS}
        for name in ("risk", "cost"):
            parts[name]["stakes"] = list(parts[name]["stakes"])
        return parts

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Inverse of `to_dict`; UserError for values that no monitor can have, such as a stake below 0."""
        if set(values) != set(_SAVED_FIELDS):
            raise UserError(f"it must have {', '.join(_SAVED_FIELDS)}")
        try:
            found = from_mapping(cls, values, where="state")
        except OverflowError:
            raise UserError("a number is too large") from None
        if max(found.drawn, found.risk.n, found.cost.n) > _LONGEST:
            raise UserError(f"no monitor has seen more than {_LONGEST} inputs")
        return found

    def added_to(self, stored: State | None, place: str, anew: bool) -> State:
        """Merges this state into `stored`, the state that the file `place` has now; → the merged state.

        It adds what this monitor observed since it began, or since it was last merged into the file. So two runs that
        continued from the same state both count. `anew`: a monitor that began without a state replaces the file. The
        stored observations come first, then this monitor's. For these no more capital is staked than one monitor would
        have staked for all observations in this order, so the guarantee holds. ValueError if `stored` has another
        watch.
        """
        origin = Origin(None) if self.origin is None else self.origin
        since = origin.saved.get(place, origin.start)
        if stored is None or (since is None and anew):
            return self
        if self.watch != stored.watch:
            raise ValueError("two monitors of different watches have no evidence in common")
        since = State(self.watch) if since is None else since
        risk = _joined(stored.risk, (since.risk, since.ways[0]), (self.risk, self.ways[0]))
        cost = _joined(stored.cost, (since.cost, since.ways[1]), (self.cost, self.ways[1]))
        return State(self.watch, stored.drawn + self.drawn - since.drawn, risk, cost)

    def is_at(self, place: str) -> None:
        """Records that the file `place` now contains the monitor's observations up to this state."""
        if self.origin is not None:
            self.origin.saved[place] = self


_SAVED_FIELDS = ("watch", "drawn", "risk", "cost")  # the fields of a state that files have


class DriftTest:
    """Sequential test of costs and losses: call `due` and `add` for each batch of answers; read `state` at any time.

    The guarantee holds for each alarm. If the mean, given all earlier observations, never exceeds its limit, the alarm
    is raised with probability at most delta over the whole endless stream. Inputs may depend on each other and may
    change, as long as the mean keeps the limit. The detection delay has no guarantee: for a change after k observations
    it is about (log(16 k / delta) + 2 log(1 + log(1 + k / 100))) / (mean log growth of the best bet) observations. An
    alarm stays until a new monitor is made, as for a new operating point.
    """

    def __init__(self, start: Watch | State) -> None:
        state = start if isinstance(start, State) else State(start)
        origin = Origin(State(state.watch, state.drawn, state.risk, state.cost) if state is start else None)
        self._state = replace(state, ways=(Way(), Way()), origin=origin)

    @property
    def state(self) -> State:
        """A snapshot; `DriftTest(State.from_dict(...))` continues from it."""
        return self._state

    def due(self, n: int = 1) -> np.ndarray:
        """Which of the next n inputs must also run at full depth: (n) bool, a seeded random share of them."""
        draws = np.random.Generator(np.random.PCG64(self._state.watch.seed).advance(self._state.drawn))
        self._state = replace(self._state, drawn=self._state.drawn + n)
        return draws.random(n) < self._state.watch.share

    def add(self, costs: np.ndarray | float, losses: np.ndarray | float | None = None) -> State:
        """Adds the costs (n) of all answers, and the losses (k) of the checked ones; → the new state.

        Costs are shares of the full model's, without the cost of checking. Losses are as `Risk.of` returns them.
        ValueError for NaN or values outside of their ranges; then nothing is added.
        """
        watch, old = self._state.watch, self._state
        cost, cost_way = _after(old.cost, old.ways[1], costs, 0, watch.largest_cost, watch.cost_limit)
        checked = np.empty(0) if losses is None else losses
        risk, risk_way = _after(old.risk, old.ways[0], checked, watch.low, watch.high, watch.target)
        self._state = replace(old, risk=risk, cost=cost, ways=(risk_way, cost_way))
        return self._state


def _after(
    old: Evidence, way: Way, values: np.ndarray | float, low: float, high: float, limit: float
) -> tuple[Evidence, Way]:
    """The evidence and the way, with new values added: a number, or (n), in [low, high]."""
    observed = np.atleast_1d(np.asarray(values, dtype=np.float64))
    if observed.ndim != 1 or not ((observed >= low) & (observed <= high)).all():  # NaN is neither
        raise ValueError(f"costs and losses must lie in their ranges, here [{low:g}, {high:g}]; they are not clipped")
    if not len(observed):
        return old, way
    # Bets are on (value - limit) / (limit - low) >= -1, so a bet below 1 cannot lose all capital. If limit = low, any
    # value above the limit is proof, and any large finite factor serves.
    room = max(limit - low, 1e-9 * (high - low))
    growth = np.cumsum(np.log1p(_BETS * ((observed - limit) / room)[:, None]), axis=0)  # (n, bets)
    times = old.n + np.arange(len(observed) + 1)
    waiting = _waiting(times)
    before = np.vstack([np.zeros(len(_BETS)), growth[:-1]])
    fresh = np.log((waiting[:-1] - waiting[1:])[:, None] / len(_BETS)) - before
    with np.errstate(divide="ignore"):  # a stake of 0 has the logarithm -inf, which adds nothing
        fresh[0] = np.logaddexp(fresh[0], np.log(old.stakes))
    stakes = np.exp(np.minimum(np.logaddexp.accumulate(fresh, axis=0) + growth, np.log(_LARGEST)))
    capital = stakes.sum(axis=1) + waiting[1:]
    evidence = Evidence(
        n=old.n + len(observed),
        total=old.total + float(observed.sum()),
        stakes=tuple(stakes[-1].tolist()),
        largest=float(max(old.largest, capital.max())),
    )

    def place(row: int) -> Place:
        grown = growth[row] + way.latest.growth
        return Place(old.n + row + 1, tuple(grown.tolist()), tuple(stakes[row].tolist()))

    best = int(capital.argmax())
    higher = capital[best] > way.capital
    top = (place(best), float(capital[best])) if higher else (way.top, way.capital)
    return evidence, Way(place(len(observed) - 1), *top)


def _joined(onto: Evidence, since: tuple[Evidence, Way], now: tuple[Evidence, Way]) -> Evidence:
    """`onto` followed by what one monitor observed between two of its states."""
    (before, way), (after, later) = since, now
    if after.n == before.n:
        return onto
    if onto == before:
        return after
    # After a longer stream each observation stakes less new capital. The ratio of the two shares is smallest at the
    # first observation, so it bounds how much of the grown new stakes may be counted.
    paid = [float(_waiting(np.array(n)) - _waiting(np.array(n + 1))) for n in (onto.n, before.n)]
    pace = min(1.0, paid[0] / paid[1])

    def capital_at(place: Place) -> tuple[np.ndarray, float]:
        """The stakes that `onto` has at `place`, and its capital."""
        grown = np.array(place.growth) - way.latest.growth
        with np.errstate(divide="ignore"):  # the logarithm of a stake of 0 is -inf
            old, written = (np.exp(np.minimum(np.log(bet.stakes) + grown, np.log(_LARGEST))) for bet in (before, onto))
        fresh = np.maximum(place.stakes - old, 0)
        stakes = np.minimum(written + pace * fresh, _LARGEST)
        return stakes, float(stakes.sum() + _waiting(np.array(onto.n + place.n - before.n)))

    stakes, capital = capital_at(later.latest)
    highest = capital_at(later.top)[1] if later.top.n > before.n else 0.0
    return Evidence(
        n=onto.n + after.n - before.n,
        total=onto.total + after.total - before.total,
        stakes=tuple(stakes.tolist()),
        largest=max(onto.largest, capital, highest),
    )
