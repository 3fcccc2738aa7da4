"""The engine's loop: requests queue before each tier of a ladder, full batches run, each ticket gets one result."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np

from ziggurat.data.encoded import Encoded, pack_rows
from ziggurat.data.packing import MOST_TOKENS
from ziggurat.engine.backend import Finished, Outcomes, Work
from ziggurat.engine.queues import Job, Part, Pool, Request, calls, inputs_of, merged, rule_of
from ziggurat.engine.tiers import Ladder
from ziggurat.errors import DeadlinePassed, UserError
from ziggurat.policies.rules import ExitRule, joined_rules
from ziggurat.system import bar


@dataclass(frozen=True, eq=False, slots=True)
class Result:
    """The outcome or the error of one ticket."""

    ticket: int
    outcomes: Outcomes | None  # of this single input; None = an error
    error: Exception | None
    seconds: float  # since `submit`, by the engine's clock

    def get(self) -> Outcomes:
        """The outcomes; raises the error if there is one."""
        if self.outcomes is None:
            raise self.error or AssertionError("a result without outcomes has an error; this is a bug")
        return self.outcomes


@dataclass(frozen=True, eq=False, slots=True)
class Ended:
    """Inputs of one request whose tickets ended in this step."""

    request: Request
    rows: np.ndarray  # (m) int64
    error: Exception | None = None


class Engine:
    """Answers many requests in shared batches; each request has its own rule.

    An answer does not depend on the other inputs of its batch. `submit` and `cancel` may be called from any thread,
    `step` from a single one. Creating an engine takes microseconds: use one per stream of requests.
    """

    def __init__(
        self,
        ladder: Ladder,
        batch_sizes: Sequence[int],
        linger: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Args:
            batch_sizes: sequences per batch, one number for each tier.
            linger: longest wait, in seconds, of unanswered inputs for a full batch of the next tier.
            clock: seconds; deadlines refer to it.

        Raises:
            UserError: a wrong number of batch sizes, or a negative `linger`.
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
        self._requests: dict[int, Request] = {}  # key: first ticket
        self._next = 0
        self._flushing = False
        self._lock = threading.Lock()

    def submit(self, inputs: Encoded, rule: ExitRule, deadline: float | None = None) -> range:
        """Queues n inputs before the first tier with an active rung; returns their tickets.

        At the time `deadline` of the engine's clock, inputs without an answer end with `DeadlinePassed`. UserError for
        a rule that does not fit the ladder or the number of inputs.
        """
        request = self.enqueue(inputs, rule, deadline)
        return range(request.first, request.first + len(inputs))

    def enqueue(self, inputs: Encoded, rule: ExitRule, deadline: float | None = None) -> Request:
        """As `submit`; returns the request, whose outcomes are filled in by later steps."""
        n = len(inputs)
        self._ladder.check_rule(rule, n)
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
        """Ends tickets without a result; ignores unknown tickets and those that have ended."""
        with self._lock:
            firsts = list(self._requests)
            for ticket in tickets:
                index = int(np.searchsorted(firsts, ticket, side="right")) - 1
                request = self._requests.get(firsts[index]) if index >= 0 else None
                if request is not None and ticket < request.first + len(request.inputs):
                    row = np.array([ticket - request.first])
                    request.end(request.open(row[request.outcomes.rungs[row] < 0]))
                    if not request.n_open:
                        del self._requests[request.first]
                        firsts.remove(request.first)

    def wait(self) -> float | None:
        """Seconds until `step` has work to do, at least 0; None if no input is queued."""
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
        """Inputs that are queued now no longer wait for full batches."""
        self._flushing = True

    def step(self) -> list[Result]:
        """Runs at most one call of one tier and ends late tickets; returns the results of the tickets that ended."""
        results: list[Result] = []
        for ended in self.run_call():
            request, seconds = ended.request, self.clock() - ended.request.arrived
            for row in np.sort(ended.rows).tolist():
                outcomes = None if ended.error is not None else request.outcomes.of_input(row, request.inputs)
                results.append(Result(request.first + row, outcomes, ended.error, seconds))
        return results

    def run_call(self) -> list[Ended]:
        """As `step`, with one record for inputs of a request that end together."""
        with self._lock:
            ended = self._late()
        if not self._prepared and not self._prepare(ended):
            return ended
        job, batches = self._prepared.popleft()
        try:
            self._advance(job, batches, ended)
        except Exception as error:  # an error ends only the unanswered tickets of this call
            for part, rows, _ in job.by_part(np.concatenate(batches)):
                ended += self._end(part.request, rows[part.request.outcomes.rungs[rows] < 0], error)
        return ended

    def _late(self) -> list[Ended]:
        """Removes queued inputs whose deadline has passed, and ends their tickets."""
        late: list[Part] = []
        for pools in self._pools:
            for key, pool in list(pools.items()):
                if pool.deadline < math.inf and pool.deadline <= (now := self.clock()):
                    late += pool.take_late(now)
                    if not pool.n:
                        del pools[key]
        return [ended for part in late for ended in self._ended(part.request, part.rows, DeadlinePassed())]

    def _prepare(self, ended: list[Ended]) -> bool:
        """Chooses the next inputs to run and splits them into calls; False if there are none."""
        while True:
            with self._lock:
                chosen = self._chosen()
                if chosen is None:
                    self._flushing = False
                    return False
                index, parts = chosen[0], merged(chosen[1])
            try:
                if parts:  # else all of them were cancelled
                    self._prepared.extend(self._calls(index, parts))
                    return True
            except Exception as error:  # for example a text that a tier's tokenizer cannot read
                for part in parts:
                    ended += self._end(part.request, part.rows, error)

    def _calls(self, index: int, parts: list[Part]) -> list[tuple[Job, list[np.ndarray]]]:
        """The parts as calls of the tier with this index."""
        part, rule = self._ladder.slices[index], rule_of(parts)
        inputs = self._ladder.inputs_of(part.tier, inputs_of(parts))
        job = Job(part, index, parts, inputs, rule.in_tier(part.rungs.start, part.pruning(rule.tokens)))
        batches = part.tier.batches(inputs, self._wanted[index])
        return [(job, call) for call in calls(batches, job.size_of, part.tier.backend.together)]

    def _chosen(self) -> tuple[int, list[Part]] | None:
        """The tier that runs next and its parts; None if no batch is due.

        Full batches of the deepest tier come first: they finish started inputs. Then come pools whose wait is over,
        oldest first. While flushing, tiers run in order, so that each gets all its inputs in full batches.
        """
        ready = [
            (index, pool.n >= self._sizes[index], pool.due, key)
            for index, pools in enumerate(self._pools)
            for key, pool in pools.items()
        ]
        if not ready:
            return None
        if self._flushing:
            index, _, _, key = min(ready, key=lambda entry: (entry[0], entry[2]))
            pool = self._pools[index].pop(key)
            return index, pool.take(pool.n)
        full = [entry for entry in ready if entry[1]]
        index, _, due, key = (
            min(full, key=lambda entry: (-entry[0], entry[2])) if full else min(ready, key=lambda entry: entry[2])
        )
        pool, size = self._pools[index][key], self._sizes[index]
        if not full and due > self.clock():
            return None
        parts = pool.take_call(size, self._ladder.tiers[index].backend.together) if full else pool.take(pool.n)
        if not pool.n:
            del self._pools[index][key]
        return index, parts

    def _queue(self, part: Part, after: int) -> None:
        """Queues inputs before the next tier with an active rung."""
        rule = part.request.rule
        for index in range(after + 1, len(self._pools)):
            if any(rule.active[self._ladder.slices[index].rungs]):
                pools = self._pools[index]
                if (pool := pools.get(rule.batch_key)) is None:
                    pool = pools[rule.batch_key] = Pool()
                pool.add(part)
                return
        raise AssertionError("the last rung answers everything; this is a bug")

    def _advance(self, job: Job, batches: list[np.ndarray], ended: list[Ended]) -> None:
        """Runs inputs to the tier's last active rung; layer by layer if there is a deadline to check."""
        backend, history = job.slice.tier.backend, job.history
        works = []
        for numbers in batches:
            numbers = numbers[self._in_time(job, numbers, ended)]
            if len(numbers):
                read = None if history is None else history[numbers]
                works.append(backend.start(pack_rows(job.inputs, numbers), read))
        if not works:
            return
        work = works[0] if len(works) == 1 else backend.join(works)
        for layer in job.stops:
            if layer != job.stops[0]:
                work = work.take(self._in_time(job, work.rows, ended))
                if not len(work.rows):
                    return
            work, done = backend.advance(work, job.rule, layer)
            if len(done.rows):
                self._store(job, done, ended)
            if not len(work.rows):
                return
        self._pass_on(job, work)

    def _in_time(self, job: Job, numbers: np.ndarray, ended: list[Ended]) -> np.ndarray:
        """Which inputs of a job (m) are neither late nor cancelled, (m) bool; ends the late ones."""
        keep = np.ones(len(numbers), dtype=bool)
        if all(part.request.deadline is None and part.request.ended is None for part in job.parts):
            return keep
        now = self.clock()
        for part, rows, places in job.by_part(numbers):
            if part.late(now):
                ended += self._end(part.request, rows, DeadlinePassed())
            if part.request.ended is not None:
                keep[places] = ~part.request.ended[rows]
        return keep

    def _store(self, job: Job, done: Finished, ended: list[Ended]) -> None:
        """Writes answers into the outcomes of their requests."""
        for part, rows, places in job.by_part(done.rows):
            answers = done if isinstance(places, slice) else done.take(places, job.sequences_of(done.rows, places))
            part.request.outcomes.put(part.request.inputs, rows, answers, job.slice.columns, job.rule.first)
            ended += self._end(part.request, rows)

    def _pass_on(self, job: Job, work: Work) -> None:
        """Queues the unanswered inputs of a tier before the next tier."""
        history = work.host_history() if job.rule.looks_back else None
        due = self.clock() + self._linger
        for part, rows, places in job.by_part(work.rows):
            request, order = part.request, np.argsort(rows)
            sequences = places if isinstance(places, slice) else job.sequences_of(work.rows, places)
            request.outcomes.seconds[rows] += work.seconds[places]
            counts = work.token_counts[sequences]
            request.outcomes.token_counts[request.inputs.sequences_of(rows), job.slice.columns] = counts
            read = None if history is None else history[places][order]
            with self._lock:
                self._queue(Part(request, rows[order], due, read), job.index)

    def _end(self, request: Request, rows: np.ndarray, error: Exception | None = None) -> list[Ended]:
        with self._lock:
            return self._ended(request, rows, error)

    def _ended(self, request: Request, rows: np.ndarray, error: Exception | None = None) -> list[Ended]:
        """Ends the open tickets among these inputs (m)."""
        rows = request.open(rows)
        if error is None:
            request.n_open -= len(rows)
        else:
            request.end(rows)
        if not request.n_open:
            self._requests.pop(request.first, None)
        return [Ended(request, rows, error)] if len(rows) else []


def answer(
    ladder: Ladder, inputs: Encoded, rule: ExitRule, batch_sizes: Sequence[int], progress: bool = False
) -> Outcomes:
    """Answers n inputs under one rule on a new engine; raises the first error."""
    sizes = [tier.batch_size(size) for tier, size in zip(ladder.tiers, batch_sizes, strict=True)]
    n = len(inputs)
    one_batch = 0 < len(inputs.tokens) <= min(sizes) and (n == 1 or n * int(inputs.longest.max()) <= MOST_TOKENS)
    if one_batch and not progress:
        return _at_once(ladder, inputs, rule)
    engine = Engine(ladder, batch_sizes)
    request = engine.enqueue(inputs, rule)
    engine.flush()
    with bar(None, n, "texts") if progress else nullcontext() as shown:  # a hidden bar starts a thread, too
        while request.n_open:
            for ended in engine.run_call():
                if ended.error is not None:
                    raise ended.error
                if shown is not None:
                    shown.update(len(ended.rows))
    return request.outcomes


def _at_once(ladder: Ladder, inputs: Encoded, rule: ExitRule) -> Outcomes:
    """Runs a request of a single batch from tier to tier without queues: these take longer than a small model."""
    ladder.check_rule(rule, len(inputs))
    outcomes, rows, history = None, np.arange(len(inputs)), None
    for part in ladder.slices:
        last, backend = part.last_active(rule.active), part.tier.backend
        if last is None:
            continue
        remaining = inputs if len(rows) == len(inputs) else inputs.take(rows)
        batch = pack_rows(ladder.inputs_of(part.tier, remaining), np.arange(len(rows)))
        local = joined_rules([(rule, rows)]).in_tier(part.rungs.start, part.pruning(rule.tokens))
        work, done = backend.advance(backend.start(batch, history), local, backend.rung_layers[last])
        if len(done.token_counts) == len(inputs.tokens) and len(ladder.slices) == 1 and (done.rows == rows).all():
            return Outcomes(done.readings, done.rungs, done.seconds, done.token_counts)
        if outcomes is None:
            outcomes = ladder.no_outcomes(len(inputs), len(inputs.tokens))
        outcomes.put(inputs, rows[done.rows], done, part.columns, part.rungs.start)
        if not len(work.rows):
            return outcomes
        order = np.argsort(work.rows)
        history = work.host_history()[order] if rule.looks_back else None
        outcomes.seconds[rows[work.rows]] += work.seconds
        outcomes.token_counts[inputs.sequences_of(rows[work.rows]), part.columns] = work.token_counts
        rows = rows[work.rows[order]]
    raise AssertionError("the last rung answers everything; this is a bug")
