"""What waits inside an engine: requests, the parts of them before each tier, and the calls that they are cut into."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from ziggurat.data.encoded import Encoded, join_encoded
from ziggurat.data.packing import cumulate, place_in_sequence
from ziggurat.engine.backend import Outcomes
from ziggurat.engine.tiers import TierSlice
from ziggurat.policies.rules import ExitRule, joined_rules
from ziggurat.system import cached_property

Batch = TypeVar("Batch")


@dataclass(eq=False, slots=True)
class Request:
    """Inputs that were submitted together."""

    first: int  # ticket of its first input; the others follow
    inputs: Encoded
    rule: ExitRule
    deadline: float | None  # by the engine's clock
    arrived: float  # by the engine's clock
    outcomes: Outcomes  # filled in as inputs finish
    left: int  # inputs whose tickets have not ended
    ended: np.ndarray | None = None  # (n) bool: the ticket ended, by an error or by cancelling; None = of no input

    def open(self, rows: np.ndarray) -> np.ndarray:
        """Those of some inputs (m) whose tickets have not ended."""
        return rows if self.ended is None else rows[~self.ended[rows]]

    def end(self, rows: np.ndarray) -> None:
        """Marks inputs (m), all of them open, as ended."""
        if self.ended is None:
            self.ended = np.zeros(len(self.inputs), dtype=bool)
        self.ended[rows] = True
        self.left -= len(rows)


@dataclass(eq=False, slots=True)
class Part:
    """Inputs of one request before one tier."""

    request: Request
    rows: np.ndarray  # (m) int64, of the request
    due: float  # when they wait no longer for others, by the engine's clock
    history: np.ndarray | None = None  # (m, rungs asked by earlier tiers, width); None = no score needs it

    def late(self, now: float) -> bool:
        """Whether its deadline has passed."""
        return self.request.deadline is not None and self.request.deadline <= now

    def split(self, n: int) -> tuple[Part, Part]:
        """The first n inputs, and the others."""
        sides = (None, None) if self.history is None else (self.history[:n], self.history[n:])
        parts = zip((self.rows[:n], self.rows[n:]), sides, strict=True)
        first, second = (Part(self.request, rows, self.due, history) for rows, history in parts)
        return first, second


class Pool:
    """Parts before one tier whose rules can run together, in the order in which they came."""

    def __init__(self) -> None:
        self.parts: deque[Part] = deque()
        self.n = 0  # inputs
        self.due = self.deadline = math.inf  # the earliest of its parts

    def add(self, part: Part) -> None:
        """Behind the others."""
        self.parts.append(part)
        self.n += len(part.rows)
        self.due = min(self.due, part.due)
        if part.request.deadline is not None:
            self.deadline = min(self.deadline, part.request.deadline)

    def take(self, n: int) -> list[Part]:
        """The first n inputs, or all."""
        taken: list[Part] = []
        while self.parts and n:
            part = self.parts.popleft()
            if len(part.rows) > n:
                part, rest = part.split(n)
                self.parts.appendleft(rest)
            taken.append(part)
            n, self.n = n - len(part.rows), self.n - len(part.rows)
        self._reset(self.parts)
        return taken

    def take_call(self, size: int, together: int) -> list[Part]:
        """The first full batches of `size` inputs that have so many tokens `together`, one at least."""
        n, tokens, edge = 0, 0, 0
        for part in self.parts:
            lengths = part.request.inputs.read[part.rows]
            while n + len(lengths) >= edge + size and (edge == 0 or tokens < together):
                tokens += int(lengths[max(0, edge - n) : edge + size - n].sum())
                edge += size
            n += len(lengths)
        return self.take(edge)

    def take_late(self, now: float) -> list[Part]:
        """Parts whose deadline has passed."""
        late = [part for part in self.parts if part.late(now)]
        self._reset([part for part in self.parts if not part.late(now)])
        return late

    def _reset(self, parts: Iterable[Part]) -> None:
        parts, self.parts = list(parts), deque()
        self.n, self.due, self.deadline = 0, math.inf, math.inf
        for part in parts:
            self.add(part)


class Job:
    """Parts that run in one tier, cut into calls of the backend; inputs are numbered through."""

    def __init__(self, place: TierSlice, index: int, parts: Sequence[Part], inputs: Encoded, rule: ExitRule) -> None:
        """`place` is the tier with this index, `inputs` (n) are as it reads them, `rule` as it runs it."""
        self.slice, self.index, self.parts, self.inputs, self.rule = place, index, parts, inputs, rule
        self.edges = [0]  # part i has inputs edges[i] … edges[i + 1] - 1
        for part in parts:
            self.edges.append(self.edges[-1] + len(part.rows))
        histories = [part.history for part in parts if part.history is not None]
        self.history = np.concatenate(histories) if histories else None

    def by_part(self, numbers: np.ndarray) -> Iterator[tuple[Part, np.ndarray, slice | np.ndarray]]:
        """Which parts some inputs (m) are of: the part, their rows in its request, and their places among the m."""
        if len(self.parts) == 1:
            yield self.parts[0], self.parts[0].rows[numbers], slice(None)
            return
        owners = np.searchsorted(self.edges, numbers, side="right") - 1
        for index in np.unique(owners).tolist():
            places = np.flatnonzero(owners == index)
            yield self.parts[index], self.parts[index].rows[numbers[places] - self.edges[index]], places

    def size_of(self, numbers: np.ndarray) -> tuple[int, int]:
        """How many inputs (m) these are, and their tokens."""
        return len(numbers), int(self.inputs.read[numbers].sum())

    def sequences_of(self, numbers: np.ndarray, places: np.ndarray) -> np.ndarray:
        """Where the sequences of inputs (m) at some places stand among the sequences of all m inputs."""
        if self.inputs.owners is None:
            return places
        counts = np.diff(self.inputs.edges)[numbers]
        found: np.ndarray = np.repeat(cumulate(counts)[places], counts[places]) + place_in_sequence(counts[places])
        return found

    @cached_property
    def stops(self) -> Sequence[int]:
        """Layers after which a call is looked at: the last asked one, and where an input may be late each before."""
        backend, last = self.slice.tier.backend, self.slice.last_asked(self.rule.asked)
        assert last is not None
        layer = backend.rung_layers[last]
        late = any(part.request.deadline is not None for part in self.parts)
        return range(1, layer + 1) if late and layer else (layer,)


def merged(parts: Sequence[Part]) -> list[Part]:
    """The same inputs with one part for each request, its rows rising, without those whose tickets have ended."""
    found: dict[int, list[Part]] = {}
    for part in parts:
        found.setdefault(id(part.request), []).append(part)
    return [part for same in found.values() if len((part := _merged(same)).rows)]


def _merged(parts: Sequence[Part]) -> Part:
    request = parts[0].request
    if len(parts) == 1 and request.ended is None:
        return parts[0]
    rows = np.concatenate([part.rows for part in parts])
    order = np.argsort(rows)
    if request.ended is not None:
        order = order[~request.ended[rows[order]]]
    histories = [part.history for part in parts if part.history is not None]
    history = np.concatenate(histories)[order] if histories else None
    return Part(request, rows[order], min(part.due for part in parts), history)


def inputs_of(parts: Sequence[Part]) -> Encoded:
    """The inputs of merged parts, behind one another."""
    whole = [(part.request.inputs, part.rows) for part in parts]
    return join_encoded([inputs if len(rows) == len(inputs) else inputs.take(rows) for inputs, rows in whole])


def rule_of(parts: Sequence[Part]) -> ExitRule:
    """The rule of parts whose rules can run together: thresholds that differ are given for each input."""
    return joined_rules([(part.request.rule, part.rows) for part in parts])


def calls(
    batches: Iterable[Batch], size_of: Callable[[Batch], tuple[int, int]], together: int
) -> Iterator[list[Batch]]:
    """Batches in their order, as many in each call as have so many tokens `together`; one at least.

    `size_of` a batch are its inputs and tokens. A batch of one input always comes alone: its answer is wanted first.
    """
    call: list[Batch] = []
    tokens = 0
    for batch in batches:
        call.append(batch)
        n, more = size_of(batch)
        tokens += more
        if tokens >= together or n == 1:
            yield call
            call, tokens = [], 0
    if call:
        yield call
