"""Watches a certified point in production: alarms for a promise that is no longer supported, and for cost that drifts.

Both are bets against "the mean is at most the limit", whose capital ever exceeds 1 / delta, over an endless stream,
with probability delta at most (Ville). So that a late change is found as well, the capital is not staked at once: half
at the start, the rest bit by bit for ever, as a prior for the time of the change (Shiryaev 1963; sums of e-processes
that start at every time: Shin, Ramdas & Rinaldo, "E-detectors", 2024). What was staked before a change is mostly lost
when it comes, what is staked after it grows. A change after k observations needs about log k + 2 log log k nats more
evidence than one at the start; a CUSUM that may give one false alarm in k observations needs log k as well.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self

import numpy as np

from ziggurat.config import from_mapping, require
from ziggurat.errors import UserError

# Bets at which equal parts of each stake play, from what wins most on a change to certain loss to what finds a small
# one: the mean after a change is not known, and the best of a few halvings is never far from the best bet.
_BETS = 0.9 * 0.5 ** np.arange(8)  # times the largest that cannot ruin
_AT_ONCE = 0.5  # share that is staked at the start
_PACE = 100.0  # observations after which staking slows down
_LARGEST = 1e300  # capital that floats still hold; far beyond any alarm
_LONGEST = 10**12  # observations; behind many more floats no longer tell one from the next, and nothing would be staked
_SEEDS = 2**64


def _waiting(times: np.ndarray) -> np.ndarray:
    """The capital that is not yet staked after so many observations."""
    return (1 - _AT_ONCE) / (1 + np.log1p(times / _PACE))


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
        """The mean cost above which it has drifted."""
        return self.expected_cost * (1 + self.tolerance)


@dataclass(frozen=True)
class Evidence:
    """A bet against one limit. Eight numbers, however long the stream."""

    n: int = 0  # observations
    total: float = 0.0  # their sum
    stakes: tuple[float, ...] = (_AT_ONCE / len(_BETS),) * len(_BETS)  # what each bet has made of its part
    largest: float = 1.0  # capital, at any time so far

    def __post_init__(self) -> None:
        require(self.n >= 0, "n", self.n, "at least 0")
        require(math.isfinite(self.total), "total", self.total, "finite")
        require(len(self.stakes) == len(_BETS), "stakes", self.stakes, f"{len(_BETS)} numbers")
        require(all(0 <= stake <= _LARGEST for stake in self.stakes), "stakes", self.stakes, "from 0 to 1e300")
        reached = max(1.0, self.capital * (1 - 1e-9))
        require(reached <= self.largest <= 10 * _LARGEST, "largest", self.largest, "what the capital has reached")

    @property
    def capital(self) -> float:
        """What the bets have made of the 1 that they began with: an alarm is due when it reaches 1 / delta."""
        return sum(self.stakes) + float(_waiting(np.array(self.n)))


@dataclass(frozen=True)
class Place:
    """Where a bet stands on the way of one monitor."""

    n: int = 0  # observations
    growth: tuple[float, ...] = (0.0,) * len(_BETS)  # logarithm of what each bet has made of 1 since the monitor began
    stakes: tuple[float, ...] = ()  # what each bet has made of its part


@dataclass(frozen=True)
class Way:
    """What it takes to add a monitor's evidence to that of another one."""

    here: Place = Place()
    top: Place = Place()  # where the capital was largest since the monitor began
    capital: float = 0.0  # there


@dataclass
class Origin:
    """Of which state a monitor's states are, and up to which of them some place has what it saw."""

    start: State | None  # None = it began anew
    kept: dict[str, State] = field(default_factory=dict)  # by place


@dataclass(frozen=True)
class State:
    """All that a monitor knows."""

    watch: Watch
    drawn: int = 0  # inputs for which it was decided whether they are checked
    risk: Evidence = Evidence()
    cost: Evidence = Evidence()
    # Within a process only: of risk and cost, and of the monitor.
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
        """Alarm: the mean loss of the inputs that were checked exceeds the target. It stays."""
        return self.risk.largest >= 1 / self.watch.delta

    @property
    def cost_drifted(self) -> bool:
        """Alarm: the mean cost exceeds its limit. It stays."""
        return self.cost.largest >= 1 / self.watch.delta

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        kept = asdict(replace(self, ways=(), origin=None))  # type: ignore[arg-type]
        parts = {name: kept[name] for name in _KEPT}
        for name in ("risk", "cost"):
            parts[name]["stakes"] = list(parts[name]["stakes"])
        return parts

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """What `to_dict` gave; UserError says what no monitor can have written, such as a stake below 0."""
        if set(values) != set(_KEPT):
            raise UserError(f"it must have {', '.join(_KEPT)}")
        try:
            found = from_mapping(cls, values, where="state")
        except OverflowError:
            raise UserError("a number is too large") from None
        if max(found.drawn, found.risk.n, found.cost.n) > _LONGEST:
            raise UserError(f"no monitor has seen more than {_LONGEST} inputs")
        return found

    def added_to(self, kept: State | None, place: str, anew: bool) -> State:
        """What a place that has the state `kept` by now is to have: that and what this state's monitor saw since it
        began, or since it was added last. So two runs that went on from one state both count.

        `anew`: a monitor that began with none takes the place of what is there. What others saw comes first, then this
        monitor's, of which no more is staked than if one monitor had seen all in this order (a little less may be): so
        the guarantee holds. ValueError where something else is watched by now.
        """
        origin = Origin(None) if self.origin is None else self.origin
        since = origin.kept.get(place, origin.start)
        if kept is None or (since is None and anew):
            return self
        if self.watch != kept.watch:
            raise ValueError("two monitors of different watches have no evidence in common")
        since = State(self.watch) if since is None else since
        risk = _joined(kept.risk, (since.risk, since.ways[0]), (self.risk, self.ways[0]))
        cost = _joined(kept.cost, (since.cost, since.ways[1]), (self.cost, self.ways[1]))
        return State(self.watch, kept.drawn + self.drawn - since.drawn, risk, cost)

    def is_at(self, place: str) -> None:
        """Notes that what the monitor saw until this state is now at this place."""
        if self.origin is not None:
            self.origin.kept[place] = self


_KEPT = ("watch", "drawn", "risk", "cost")  # of a state, beyond the process


class DriftTest:
    """Fed with what answers cost and lost, one at a time or many: `due`, then `add`, for ever; then `state`.

    Guaranteed, for each alarm: if the mean, given all that came before, never exceeds its limit, the alarm is given
    with a probability of at most delta over the whole endless stream, whenever one looks. Inputs may depend on each
    other and may change, as long as the mean keeps the limit. How soon a change is found is not guaranteed: it takes
    about log(16 k / delta) + 2 log(1 + log(1 + k / 100)) over the best bet's mean log growth, observations after the
    k-th. An alarm stays until a new monitor is made, as for a new operating point.
    """

    def __init__(self, start: Watch | State) -> None:
        state = start if isinstance(start, State) else State(start)
        origin = Origin(State(state.watch, state.drawn, state.risk, state.cost) if state is start else None)
        self._state = replace(state, ways=(Way(), Way()), origin=origin)

    @property
    def state(self) -> State:
        """A snapshot; `DriftTest(State.from_dict(...))` goes on from it."""
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
        cost, cost_way = _after(old.cost, old.ways[1], costs, 0, watch.largest_cost, watch.cost_limit)
        checked = np.empty(0) if losses is None else losses
        risk, risk_way = _after(old.risk, old.ways[0], checked, watch.low, watch.high, watch.target)
        self._state = replace(old, risk=risk, cost=cost, ways=(risk_way, cost_way))
        return self._state


def _after(
    old: Evidence, way: Way, values: np.ndarray | float, low: float, high: float, limit: float
) -> tuple[Evidence, Way]:
    """The evidence, and the way, with values (n) in [low, high] or one of them added."""
    seen = np.atleast_1d(np.asarray(values, dtype=np.float64))
    if seen.ndim != 1 or not ((seen >= low) & (seen <= high)).all():  # NaN is neither
        raise ValueError(f"costs and losses must lie in their ranges, here [{low:g}, {high:g}]; they are not clipped")
    if not len(seen):
        return old, way
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
    evidence = Evidence(
        n=old.n + len(seen),
        total=old.total + float(seen.sum()),
        stakes=tuple(stakes[-1].tolist()),
        largest=float(max(old.largest, capital.max())),
    )

    def place(row: int) -> Place:
        grown = growth[row] + way.here.growth
        return Place(old.n + row + 1, tuple(grown.tolist()), tuple(stakes[row].tolist()))

    best = int(capital.argmax())
    higher = capital[best] > way.capital
    top = (place(best), float(capital[best])) if higher else (way.top, way.capital)
    return evidence, Way(place(len(seen) - 1), *top)


def _joined(onto: Evidence, since: tuple[Evidence, Way], now: tuple[Evidence, Way]) -> Evidence:
    """`onto` with what one monitor saw between two of its states, as if it came behind."""
    (before, way), (after, later) = since, now
    if after.n == before.n:
        return onto
    if onto == before:
        return after
    # Behind a longer stream each observation brings less fresh money into play. The share falls least at once, so that
    # this is the most that may be taken of what the fresh money became.
    paid = [float(_waiting(np.array(n)) - _waiting(np.array(n + 1))) for n in (onto.n, before.n)]
    pace = min(1.0, paid[0] / paid[1])

    def capital_at(place: Place) -> tuple[np.ndarray, float]:
        """The stakes that `onto` has there, and its capital."""
        grown = np.array(place.growth) - way.here.growth
        with np.errstate(divide="ignore"):  # of a stake of 0 nothing grows
            old, written = (np.exp(np.minimum(np.log(one.stakes) + grown, np.log(_LARGEST))) for one in (before, onto))
        fresh = np.maximum(place.stakes - old, 0)
        stakes = np.minimum(written + pace * fresh, _LARGEST)
        return stakes, float(stakes.sum() + _waiting(np.array(onto.n + place.n - before.n)))

    stakes, capital = capital_at(later.here)
    highest = capital_at(later.top)[1] if later.top.n > before.n else 0.0
    return Evidence(
        n=onto.n + after.n - before.n,
        total=onto.total + after.total - before.total,
        stakes=tuple(stakes.tolist()),
        largest=max(onto.largest, capital, highest),
    )
