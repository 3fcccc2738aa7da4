"""The queues of an engine: requests, their parts before each tier, and the calls into which parts are split."""

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

    first: int  # ticket of its first input; the other tickets follow
    inputs: Encoded
    rule: ExitRule
    deadline: float | None  # by the engine's clock
    arrived: float  # by the engine's clock
    outcomes: Outcomes  # filled in as inputs finish
    n_open: int  # inputs whose tickets have not ended
    ended: np.ndarray | None = None  # (n) bool: the ticket ended by an error or by `cancel`; None = no such input

    def open(self, rows: np.ndarray) -> np.ndarray:
        """The inputs among these (m) whose tickets were not ended by an error or by `cancel`."""
        return rows if self.ended is None else rows[~self.ended[rows]]

    def end(self, rows: np.ndarray) -> None:
        """Marks open inputs (m) as ended."""
        if self.ended is None:
            self.ended = np.zeros(len(self.inputs), dtype=bool)
        self.ended[rows] = True
        self.n_open -= len(rows)


@dataclass(eq=False, slots=True)
class Part:
    """Inputs of one request before one tier."""

    request: Request
    rows: np.ndarray  # (m) int64, of the request
    due: float  # end of their wait for a full batch, by the engine's clock
    history: np.ndarray | None = None  # (m, active rungs of earlier tiers, width); None = no score needs it

    def late(self, now: float) -> bool:
        """Whether its deadline has passed."""
        return self.request.deadline is not None and self.request.deadline <= now

    def split(self, n: int) -> tuple[Part, Part]:
        """Two parts: the first n inputs and the rest."""
        sides = (None, None) if self.history is None else (self.history[:n], self.history[n:])
        parts = zip((self.rows[:n], self.rows[n:]), sides, strict=True)
        first, second = (Part(self.request, rows, self.due, history) for rows, history in parts)
        return first, second


class Pool:
    """Parts before one tier whose rules can run in one batch, in order of arrival."""

    def __init__(self) -> None:
        self.parts: deque[Part] = deque()
        self.n = 0  # inputs
        self.due = self.deadline = math.inf  # the earliest among its parts

    def add(self, part: Part) -> None:
        """Appends a part."""
        self.parts.append(part)
        self.n += len(part.rows)
        self.due = min(self.due, part.due)
        if part.request.deadline is not None:
            self.deadline = min(self.deadline, part.request.deadline)

    def take(self, n: int) -> list[Part]:
        """Removes and returns the first n inputs, or all if there are fewer."""
        first: list[Part] = []
        while self.parts and n:
            part = self.parts.popleft()
            if len(part.rows) > n:
                part, rest = part.split(n)
                self.parts.appendleft(rest)
            first.append(part)
            n, self.n = n - len(part.rows), self.n - len(part.rows)
        self._reset(self.parts)
        return first

    def take_call(self, size: int, together: int) -> list[Part]:
        """Removes and returns full batches of `size` inputs, until they have `together` tokens; at least one batch."""
        n, tokens, edge = 0, 0, 0
        for part in self.parts:
            lengths = part.request.inputs.read[part.rows]
            while n + len(lengths) >= edge + size and (edge == 0 or tokens < together):
                tokens += int(lengths[max(0, edge - n) : edge + size - n].sum())
                edge += size
            n += len(lengths)
        return self.take(edge)

    def take_late(self, now: float) -> list[Part]:
        """Removes and returns parts whose deadline has passed."""
        late = [part for part in self.parts if part.late(now)]
        self._reset([part for part in self.parts if not part.late(now)])
        return late

    def _reset(self, parts: Iterable[Part]) -> None:
        parts, self.parts = list(parts), deque()
        self.n, self.due, self.deadline = 0, math.inf, math.inf
        for part in parts:
            self.add(part)


class Job:
    """Parts that run in one tier, split into calls of the backend; their inputs are numbered from 0."""

    def __init__(self, place: TierSlice, index: int, parts: Sequence[Part], inputs: Encoded, rule: ExitRule) -> None:
        """`place` is the tier with this index; `inputs` (n) are encoded by its tokenizer, `rule` is its local rule."""
        self.slice, self.index, self.parts, self.inputs, self.rule = place, index, parts, inputs, rule
        self.edges = [0]  # part i has inputs edges[i] … edges[i + 1] - 1
        for part in parts:
            self.edges.append(self.edges[-1] + len(part.rows))
        histories = [part.history for part in parts if part.history is not None]
        self.history = np.concatenate(histories) if histories else None

    def by_part(self, numbers: np.ndarray) -> Iterator[tuple[Part, np.ndarray, slice | np.ndarray]]:
        """Groups inputs (m) by part: the part, their rows in its request, and their positions among the m."""
        if len(self.parts) == 1:
            yield self.parts[0], self.parts[0].rows[numbers], slice(None)
            return
        owners = np.searchsorted(self.edges, numbers, side="right") - 1
        for index in np.unique(owners).tolist():
            places = np.flatnonzero(owners == index)
            yield self.parts[index], self.parts[index].rows[numbers[places] - self.edges[index]], places

    def size_of(self, numbers: np.ndarray) -> tuple[int, int]:
        """Number of these inputs (m), and of their tokens."""
        return len(numbers), int(self.inputs.read[numbers].sum())

    def sequences_of(self, numbers: np.ndarray, places: np.ndarray) -> np.ndarray:
        """Indices, among the sequences of all m inputs, of the sequences of the inputs at `places`."""
        if self.inputs.owners is None:
            return places
        counts = np.diff(self.inputs.edges)[numbers]
        found: np.ndarray = np.repeat(cumulate(counts)[places], counts[places]) + place_in_sequence(counts[places])
        return found

    @cached_property
    def stops(self) -> Sequence[int]:
        """Layers after which deadlines are checked: the last active one; with a deadline, all layers up to it."""
        backend, last = self.slice.tier.backend, self.slice.last_active(self.rule.active)
        assert last is not None
        layer = backend.rung_layers[last]
        late = any(part.request.deadline is not None for part in self.parts)
        return range(1, layer + 1) if late and layer else (layer,)


def merged(parts: Sequence[Part]) -> list[Part]:
    """The same inputs as one part per request, in ascending order of rows, without ended tickets."""
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
    """The inputs of merged parts, concatenated."""
    pairs = [(part.request.inputs, part.rows) for part in parts]
    return join_encoded([inputs if len(rows) == len(inputs) else inputs.take(rows) for inputs, rows in pairs])


def rule_of(parts: Sequence[Part]) -> ExitRule:
    """One rule for parts whose rules can run in one batch; different thresholds become per-input thresholds."""
    return joined_rules([(part.request.rule, part.rows) for part in parts])


def calls(
    batches: Iterable[Batch], size_of: Callable[[Batch], tuple[int, int]], together: int
) -> Iterator[list[Batch]]:
    """Groups batches, in their order, into calls of about `together` tokens; at least one batch each.

    `size_of` gives the numbers of inputs and tokens of a batch. A call ends after a batch of one input: single-input
    batches are not held back, to keep latency low.
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
