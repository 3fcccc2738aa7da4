"""A ladder over a stream: what a tier is unsure of waits until the next tier's batch is full, or a deadline passes.

TangoBERT 6.2. An answer is the one that `run_ladder` gives, whatever arrives with it and however long it waits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ziggurat.data.tokenizer import Encoded, join_encoded
from ziggurat.engine.ladder import inputs_of, run_tier
from ziggurat.engine.rules import ExitRule
from ziggurat.engine.runner import Outcomes, nothing_yet
from ziggurat.engine.tiers import Place, Tier, places
from ziggurat.errors import UserError


@dataclass(frozen=True, eq=False)
class Finished:
    """Inputs that have their answer, in no order that means anything."""

    numbers: np.ndarray  # (n) int64: the how manieth input of the stream each is, from 0
    outcomes: Outcomes  # (n); `seconds` since its arrival


@dataclass(frozen=True, eq=False)
class _Waiting:
    """Inputs that a tier has not read yet."""

    numbers: np.ndarray  # (n) int64
    encoded: Encoded
    heard: np.ndarray  # (n, asked rungs so far, n_classes)
    kept: np.ndarray  # (n, columns of all tiers)
    arrived: np.ndarray  # (n) float64, by the clock: at the ladder …
    queued: np.ndarray  # (n) float64: … and before this tier

    def take(self, rows: np.ndarray) -> _Waiting:
        return _Waiting(
            self.numbers[rows],
            self.encoded.take(rows),
            self.heard[rows],
            self.kept[rows],
            self.arrived[rows],
            self.queued[rows],
        )

    def and_then(self, other: _Waiting) -> _Waiting:
        """Both, the others behind."""
        arrays = (
            np.concatenate([getattr(self, name), getattr(other, name)])
            for name in ("numbers", "heard", "kept", "arrived", "queued")
        )
        numbers, heard, kept, arrived, queued = arrays
        return _Waiting(numbers, join_encoded([self.encoded, other.encoded]), heard, kept, arrived, queued)


@dataclass
class Escalation:
    """The queues between the tiers of a ladder. Not for several threads at once."""

    tiers: Sequence[Tier]
    rule: ExitRule  # of all rungs, the same thresholds for every input
    batch_sizes: Sequence[int]  # one for each tier: the first reads what arrives at once, the others wait for so many
    deadline: float  # seconds that an input waits for company before a tier, at most
    clock: Callable[[], float] = time.monotonic
    _queues: list[_Waiting | None] = field(init=False)
    _arrived: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        if not self.deadline > 0:
            raise UserError(f"deadline {self.deadline:g} s: must be more than 0; 0.01 is ten milliseconds")
        if len(self.batch_sizes) != len(self.tiers) or min(self.batch_sizes) < 1:
            raise UserError(f"batch sizes {list(self.batch_sizes)}: give one of at least 1 for each tier")
        if self.rule.thresholds.ndim != 1:
            raise UserError("exit rule: in a stream all inputs have the same thresholds")
        self._places = [place for place in places(self.tiers) if place.last_asked(self.rule.asked) is not None]
        self._sizes = [
            size
            for place, size in zip(places(self.tiers), self.batch_sizes, strict=True)
            if place.last_asked(self.rule.asked) is not None
        ]
        self._queues = [None] * len(self._places)

    @property
    def waiting(self) -> int:
        """How many inputs have no answer yet."""
        return sum(len(queue.numbers) for queue in self._queues if queue is not None)

    def submit(self, encoded: Encoded) -> list[Finished]:
        """Takes inputs in; returns what is answered by now, of these and of earlier ones."""
        now, n = self.clock(), len(encoded)
        columns = sum(tier.columns for tier in self.tiers)
        n_classes = self.tiers[-1].backend.n_classes
        numbers = np.arange(self._arrived, self._arrived + n)
        times = np.full(n, now)
        heard = np.empty((n, 0, n_classes), dtype=np.float32)
        new = _Waiting(numbers, encoded, heard, np.zeros((n, columns), dtype=np.int64), times, times)
        self._arrived += n
        if n:
            self._queue(0, new)
        return list(self._work(first=True))

    def poll(self) -> list[Finished]:
        """Runs the tiers before which somebody has waited long enough."""
        return list(self._work())

    def flush(self) -> list[Finished]:
        """Everything that still waits, to its answer."""
        return list(self._work(everything=True))

    def due(self) -> float | None:
        """Seconds until `poll` has something to do, at least 0; None while nobody waits."""
        moments = [self._due(queue) for queue in self._queues if queue is not None]
        return max(0.0, min(moments) - self.clock()) if moments else None

    def _due(self, queue: _Waiting) -> float:
        """When its oldest has waited long enough, by the clock: the same number for who asks and for who runs."""
        return float(queue.queued.min()) + self.deadline

    def _queue(self, at: int, more: _Waiting) -> None:
        queue = self._queues[at]
        self._queues[at] = more if queue is None else queue.and_then(more)

    def _work(self, first: bool = False, everything: bool = False) -> Iterator[Finished]:
        """Tier by tier: an escalated input may pass several at once."""
        for at in range(len(self._places)):
            queue = self._queues[at]
            if queue is None:
                continue
            n, size = len(queue.numbers), self._sizes[at]
            late = self._due(queue) <= self.clock()
            ready = n if everything or late or (first and at == 0) else n - n % size
            if ready:
                self._queues[at] = queue.take(np.arange(ready, n)) if ready < n else None
                finished = self._run(at, queue.take(np.arange(ready)))
                if len(finished.numbers):
                    yield finished

    def _run(self, at: int, work: _Waiting) -> Finished:
        place: Place = self._places[at]
        mine = inputs_of(place.tier, self.tiers[-1], work.encoded, np.arange(len(work.numbers)))
        rule = replace(self.rule, tokens=place.pruning(self.rule.tokens))
        done, heard = run_tier(place, mine, rule, work.heard, self._sizes[at], False)
        work.kept[:, place.columns] = done.kept
        now, left = self.clock(), done.rungs >= 0
        if not left.all():
            stay = np.flatnonzero(~left)
            self._queue(at + 1, replace(work.take(stay), heard=heard[stay], queued=np.full(len(stay), now)))
        gone = np.flatnonzero(left)
        outcomes = nothing_yet(len(gone), done.logits.shape[1], work.kept.shape[1])
        outcomes.logits[:], outcomes.rungs[:] = done.logits[gone], done.rungs[gone] + place.rungs.start
        outcomes.seconds[:], outcomes.kept[:] = now - work.arrived[gone], work.kept[gone]
        return Finished(work.numbers[gone], outcomes)
