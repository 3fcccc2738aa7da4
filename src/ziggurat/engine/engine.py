"""The one loop: requests queue before each tier of a ladder, full batches run, every ticket ends in one result."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np

from ziggurat.data.tokenizer import Encoded, pack_rows
from ziggurat.engine.backend import Finished, Outcomes, Work
from ziggurat.engine.queues import Job, Part, Pool, Request, calls, inputs_of, merged, rule_of
from ziggurat.engine.tiers import Ladder
from ziggurat.errors import DeadlinePassed, UserError
from ziggurat.policies.exits import exit_score
from ziggurat.policies.rules import ExitRule
from ziggurat.system import bar


@dataclass(frozen=True, eq=False, slots=True)
class Result:
    """How one ticket ended."""

    ticket: int
    outcomes: Outcomes | None  # of this one input; None = an error
    error: Exception | None
    seconds: float  # since it was submitted, by the engine's clock

    def get(self) -> Outcomes:
        """The outcomes; raises the error."""
        if self.outcomes is None:
            raise self.error or AssertionError("a result without outcomes has an error; this is a bug")
        return self.outcomes


@dataclass(frozen=True, eq=False, slots=True)
class Ended:
    """Inputs of one request whose tickets end."""

    request: Request
    rows: np.ndarray  # (m) int64
    error: Exception | None = None


class Engine:
    """Answers inputs of many requests, each under a rule of its own, in shared batches.

    An answer depends on nothing that shares its batch. `submit` and `cancel` may be called from any thread, `step` from
    one. Opening an engine costs microseconds: one serves one stream of requests, with its own batch sizes.
    """

    def __init__(
        self,
        ladder: Ladder,
        batch_sizes: Sequence[int],
        linger: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`batch_sizes` has one for each tier. What a tier does not answer waits at most `linger` seconds until the
        next tier has a full batch. UserError for numbers that make no sense.
        """
        if len(batch_sizes) != len(ladder.tiers):
            raise UserError(f"batch sizes {list(batch_sizes)}: give one of at least 1 for each tier")
        if not linger >= 0:
            raise UserError(f"linger {linger:g} s: must not be less than 0; 0.01 is ten milliseconds")
        self.clock = clock
        self._ladder, self._linger = ladder, linger
        self._wanted = batch_sizes
        self._sizes = [tier.batch_size(size) for tier, size in zip(ladder.tiers, batch_sizes, strict=True)]
        self._pools: list[dict[Hashable, Pool]] = [{} for _ in ladder.tiers]
        self._prepared: deque[tuple[Job, list[np.ndarray]]] = deque()
        self._requests: dict[int, Request] = {}  # by their first ticket
        self._next = 0
        self._flushing = False
        self._lock = threading.Lock()

    def submit(self, inputs: Encoded, rule: ExitRule, deadline: float | None = None) -> range:
        """Queues n inputs before the first tier that their rule asks: their tickets.

        After the moment `deadline` of the engine's clock what has no answer yet ends with `DeadlinePassed`. UserError
        for a rule of another ladder or of other inputs.
        """
        request = self.enqueue(inputs, rule, deadline)
        return range(request.first, request.first + len(inputs))

    def enqueue(self, inputs: Encoded, rule: ExitRule, deadline: float | None = None) -> Request:
        """As `submit`; the request, whose outcomes fill in."""
        n, limits = len(inputs), rule.thresholds
        if limits.shape[-1] != self._ladder.n_rungs - 1:
            raise UserError(f"exit rule: {limits.shape[-1]} thresholds, the model needs {self._ladder.n_rungs - 1}")
        if limits.ndim == 2 and len(limits) != n:
            raise UserError(f"exit rule: thresholds for {len(limits)} inputs, but there are {n}")
        now = self.clock()
        outcomes = self._ladder.no_outcomes(n, len(inputs.tokens))
        with self._lock:
            request = Request(self._next, inputs, rule, deadline, now, outcomes, n)
            self._next += n
            if n:
                self._requests[request.first] = request
                self._queue(Part(request, np.arange(n), now), -1)
        return request

    def cancel(self, tickets: Iterable[int]) -> None:
        """Ends tickets without a result; those that have ended, or that there are not, stay as they are."""
        with self._lock:
            firsts = list(self._requests)
            for ticket in tickets:
                index = int(np.searchsorted(firsts, ticket, side="right")) - 1
                request = self._requests.get(firsts[index]) if index >= 0 else None
                if request is not None and ticket < request.first + len(request.inputs):
                    row = np.array([ticket - request.first])
                    request.end(request.open(row[request.outcomes.rungs[row] < 0]))
                    if not request.left:
                        del self._requests[request.first]
                        firsts.remove(request.first)

    def wait(self) -> float | None:
        """Seconds until `step` has something to do, at least 0; None while nothing is queued."""
        with self._lock:
            if self._prepared:
                return 0.0
            pools = [(index, pool) for index, row in enumerate(self._pools) for pool in row.values()]
            if not pools:
                return None
            if self._flushing or any(pool.n >= self._sizes[index] for index, pool in pools):
                return 0.0
            return max(0.0, min(min(pool.due, pool.deadline) for _, pool in pools) - self.clock())

    def flush(self) -> None:
        """Nothing that is queued now waits for company any more."""
        self._flushing = True

    def step(self) -> list[Result]:
        """Runs one call of one tier if there is one to run, and ends what is late: the tickets that ended by it."""
        results: list[Result] = []
        for ended in self.run():
            request, seconds = ended.request, self.clock() - ended.request.arrived
            for row in np.sort(ended.rows).tolist():
                outcomes = None if ended.error is not None else request.outcomes.of_input(row, request.inputs)
                results.append(Result(request.first + row, outcomes, ended.error, seconds))
        return results

    def run(self) -> list[Ended]:
        """As `step`, with inputs of a request that end together as one record."""
        with self._lock:
            ended = self._late()
            if not self._prepared:
                self._prepare()
            if not self._prepared:
                self._flushing = False
                return ended
            job, batches = self._prepared.popleft()
        return [*ended, *self._run(job, batches)]

    def _late(self) -> list[Ended]:
        """Takes queued inputs out whose deadline has passed."""
        late: list[Part] = []
        for pools in self._pools:
            for key, pool in list(pools.items()):
                if pool.deadline < math.inf and pool.deadline <= (now := self.clock()):
                    late += pool.take_late(now)
                    if not pool.n:
                        del pools[key]
        return [ended for part in late for ended in self._ended(part.request, part.rows, DeadlinePassed())]

    def _prepare(self) -> None:
        """Chooses what runs next, and cuts it into calls."""
        while (chosen := self._chosen()) is not None:
            index, parts = chosen[0], merged(chosen[1])
            if parts:  # else all of them were cancelled
                part, tier = self._ladder.slices[index], self._ladder.tiers[index]
                rule = rule_of(parts)
                inputs = self._ladder.inputs_of(tier, inputs_of(parts))
                job = Job(part, index, parts, inputs, rule.in_tier(part.rungs.start, part.pruning(rule.tokens)))
                batches = tier.batches(inputs, self._wanted[index])
                self._prepared.extend((job, call) for call in calls(batches, job.size_of, tier.backend.together))
                return

    def _chosen(self) -> tuple[int, list[Part]] | None:
        """The tier that runs next, and which parts.

        Full batches of the deepest tier first: they end what was begun. Then what waits no longer, oldest first. When
        nothing more comes, tier by tier, so that each has all its inputs and full batches.
        """
        ready = [
            (index, pool.n >= self._sizes[index], pool.due, key)
            for index, pools in enumerate(self._pools)
            for key, pool in pools.items()
        ]
        if not ready:
            return None
        if self._flushing:
            index, _, _, key = min(ready, key=lambda one: (one[0], one[2]))
            pool = self._pools[index].pop(key)
            return index, pool.take(pool.n)
        full = [one for one in ready if one[1]]
        index, _, due, key = (
            min(full, key=lambda one: (-one[0], one[2])) if full else min(ready, key=lambda one: one[2])
        )
        pool, size = self._pools[index][key], self._sizes[index]
        if not full and due > self.clock():
            return None
        parts = pool.take_call(size, self._ladder.tiers[index].backend.together) if full else pool.take(pool.n)
        if not pool.n:
            del self._pools[index][key]
        return index, parts

    def _queue(self, part: Part, after: int) -> None:
        """Puts inputs before the next tier that their rule asks."""
        rule = part.request.rule
        for index in range(after + 1, len(self._pools)):
            if any(rule.asked[self._ladder.slices[index].rungs]):
                pools = self._pools[index]
                if (pool := pools.get(rule.batch_key)) is None:
                    pool = pools[rule.batch_key] = Pool()
                pool.add(part)
                return
        raise AssertionError("the last rung answers everything; this is a bug")

    def _run(self, job: Job, batches: list[np.ndarray]) -> list[Ended]:
        """One call of a backend. An exception ends the tickets of this call that have no answer yet, and no others."""
        ended: list[Ended] = []
        try:
            self._advance(job, batches, ended)
        except Exception as error:
            for part, rows, _ in job.by_part(np.concatenate(batches)):
                with self._lock:
                    ended += self._ended(part.request, rows[part.request.outcomes.rungs[rows] < 0], error)
        return ended

    def _advance(self, job: Job, batches: list[np.ndarray], ended: list[Ended]) -> None:
        """Runs inputs to the tier's last asked rung, layer by layer where a deadline may pass meanwhile."""
        backend, history = job.tier.tier.backend, job.history
        works = [
            backend.start(pack_rows(job.inputs, rows), None if history is None else history[rows]) for rows in batches
        ]
        work = works[0] if len(works) == 1 else backend.join(works)
        for layer in job.stops:
            if layer != job.stops[0]:
                work = self._in_time(job, work, ended)
                if not len(work.rows):
                    return
            work, done = backend.advance(work, job.rule, layer)
            if len(done.rows):
                self._store(job, done, ended)
            if not len(work.rows):
                return
        self._pass_on(job, work)

    def _in_time(self, job: Job, work: Work, ended: list[Ended]) -> Work:
        """What is left of a work without inputs that are late or cancelled by now."""
        now, keep = self.clock(), np.ones(len(work.rows), dtype=bool)
        with self._lock:
            for part, rows, places in job.by_part(work.rows):
                request = part.request
                if request.deadline is not None and request.deadline <= now:
                    ended += self._ended(request, rows, DeadlinePassed())
                if request.ended is not None:
                    keep[places] = ~request.ended[rows]
        return work.take(keep)

    def _store(self, job: Job, done: Finished, ended: list[Ended]) -> None:
        """Keeps answers with their requests."""
        for part, rows, places in job.by_part(done.rows):
            outcomes = part.request.outcomes
            outcomes.readings[rows], outcomes.rungs[rows] = done.readings[places], done.rungs[places] + job.rule.first
            outcomes.seconds[rows] += done.seconds[places]
            kept = done.kept if isinstance(places, slice) else done.kept[job.sequences_of(done.rows, places)]
            outcomes.kept[part.request.inputs.sequences_of(rows), job.tier.columns] = kept
            with self._lock:
                ended += self._ended(part.request, rows)

    def _pass_on(self, job: Job, work: Work) -> None:
        """Queues what a tier did not answer before the next one."""
        history = work.host_history() if exit_score(job.rule.score).looks_back else None
        due = self.clock() + self._linger
        for part, rows, places in job.by_part(work.rows):
            request, order = part.request, np.argsort(rows)
            request.outcomes.seconds[rows] += work.seconds[places]
            kept = work.kept if isinstance(places, slice) else work.kept[job.sequences_of(work.rows, places)]
            request.outcomes.kept[request.inputs.sequences_of(rows), job.tier.columns] = kept
            read = None if history is None else history[places][order]
            with self._lock:
                self._queue(Part(request, rows[order], due, read), job.index)

    def _ended(self, request: Request, rows: np.ndarray, error: Exception | None = None) -> list[Ended]:
        """Ends the tickets of those inputs (m) that are still open."""
        rows = request.open(rows)
        if error is None:
            request.left -= len(rows)
        else:
            request.end(rows)
        if not request.left:
            self._requests.pop(request.first, None)
        return [Ended(request, rows, error)] if len(rows) else []


def answer(
    ladder: Ladder, inputs: Encoded, rule: ExitRule, batch_sizes: Sequence[int], progress: bool = False
) -> Outcomes:
    """Answers n inputs under one rule, on an engine of their own; raises the first error."""
    engine = Engine(ladder, batch_sizes)
    request = engine.enqueue(inputs, rule)
    engine.flush()
    # Not even a bar that is not shown: a call may take less than a tenth of a millisecond.
    with bar(None, len(inputs), "texts") if progress else nullcontext() as shown:
        while request.left:
            for ended in engine.run():
                if ended.error is not None:
                    raise ended.error
                if shown is not None:
                    shown.update(len(ended.rows))
    return request.outcomes
