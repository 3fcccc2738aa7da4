"""Our engine and its peers against the clock: each in both orders of the texts, at its best batch size, interleaved."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from ziggurat.bench.peers.peer import Peer, padded
from ziggurat.data.packing import by_length, in_order
from ziggurat.data.tokenizer import Encoded
from ziggurat.measure.clock import Clock, Timing, interleave
from ziggurat.system import Progress

ARRIVAL, SORTED = "as it comes", "sorted"
ORDERS = (ARRIVAL, SORTED)

Batches = Sequence[np.ndarray]  # indices of the texts in each batch; every text is in one
Answer = Callable[[], np.ndarray]  # logits (n, n_classes) float32 in the order of the texts
Encode = Callable[[Sequence[int]], Encoded]  # tokenises the texts with these indices


@dataclass(frozen=True)
class Contestant:
    """One engine with the model in it, ready to answer."""

    what: str  # "OpenVINO", "ziggurat full depth"
    engine: str
    dtype: str
    prepare: Callable[[Encoded, Batches], Answer]  # what a peer may do off the clock: padding
    point: str | None = None  # our operating point; None = a peer, at full depth
    streams: int = 1  # batches that it works on at once

    @property
    def key(self) -> str:
        """Its name; ways to run the same peer share it."""
        return f"{self.what} {self.dtype}" if self.is_peer else f"{self.what} ({self.engine} {self.dtype})"

    @property
    def is_peer(self) -> bool:
        """Whether it is somebody else's engine."""
        return self.point is None


@dataclass(frozen=True)
class Entry:
    """A contestant as it runs: in which order it gets the texts, how many at once."""

    contestant: Contestant
    order: str
    batch: int

    @property
    def label(self) -> str:
        """Unique among the entries of one race."""
        return f"{self.contestant.key}, {self.order}"

    def batches(self, lengths: np.ndarray) -> list[np.ndarray]:
        """Which texts share a batch."""
        if self.order == SORTED:
            return list(by_length(lengths, self.batch))
        return list(in_order(np.arange(len(lengths)), self.batch))

    def prepared(self, encoded: Encoded) -> Answer:
        """What answers these texts."""
        return self.contestant.prepare(encoded, self.batches(encoded.lengths))


@dataclass(frozen=True)
class Latencies:
    """Times of single texts."""

    seconds: np.ndarray  # (rounds, n), n in the order of the texts

    @property
    def per_text(self) -> np.ndarray:
        """Median of the rounds, (n) seconds."""
        return np.asarray(np.median(self.seconds, axis=0))

    @property
    def medians(self) -> Timing:
        """The median text's time in each round."""
        return Timing(tuple(np.median(self.seconds, axis=1).tolist()))


def of_peer(peer: Peer, engine: str) -> Contestant:
    """A peer as a contestant."""

    def prepare(encoded: Encoded, batches: Batches) -> Answer:
        feeds = [padded([encoded.tokens[row] for row in rows], peer.inputs) for rows in batches]
        return lambda: in_call_order(peer.all_logits(feeds), batches)

    return Contestant(peer.name, engine, peer.dtype, prepare, streams=peer.streams)


def in_call_order(answers: Sequence[np.ndarray], batches: Batches) -> np.ndarray:
    """Logits of all texts, those of batch b in `answers[b]`, back in the order of the texts."""
    stacked = np.concatenate(answers)
    logits = np.empty_like(stacked)
    logits[np.concatenate(batches)] = stacked
    return logits


def best_entries(
    contestants: Sequence[Contestant],
    encoded: Encoded,
    sizes: Sequence[int],
    repeats: int,
    progress: Progress = None,
    clock: Clock = time.perf_counter,
) -> list[Entry]:
    """For each contestant and order the fastest batch size on these texts, and the fastest of several ways to run it.

    Sizes above the number of texts are left out, for they would all be the same batch. ValueError if none is left.
    """
    fitting = sorted({size for size in sizes if size <= len(encoded.tokens)})
    if not fitting:
        raise ValueError(f"no batch size of {list(sizes)} fits into {len(encoded.tokens)} texts")
    tried = [Entry(one, order, size) for one in contestants for order in ORDERS for size in fitting]
    named = {f"{entry.label}, batch {entry.batch}, {entry.contestant.streams} streams": entry for entry in tried}
    calls = {name: entry.prepared(encoded) for name, entry in named.items()}
    timings = interleave(calls, repeats, progress=progress, clock=clock)
    best: dict[str, tuple[float, Entry]] = {}
    for name, entry in named.items():
        seconds = timings[name].p50
        if entry.label not in best or seconds < best[entry.label][0]:
            best[entry.label] = (seconds, entry)
    return [entry for _, entry in best.values()]


def single_entries(contestants: Sequence[Contestant]) -> list[Entry]:
    """Batch 1 in both orders: one text is waited for before the next is sent, so streams have no part in it."""
    return [Entry(one, order, 1) for one in contestants for order in ORDERS if one.streams == 1]


def race(entries: Sequence[Entry], encoded: Encoded, repeats: int, progress: Progress = None) -> dict[str, Timing]:
    """The models' time for all texts: token ids in, logits out."""
    return interleave({entry.label: entry.prepared(encoded) for entry in entries}, repeats, progress=progress)


def race_from_texts(
    entries: Sequence[Entry], encode: Encode, n: int, repeats: int, progress: Progress = None
) -> dict[str, Timing]:
    """Time from strings to logits of n texts: the same tokeniser for all, sorting, padding, the model."""

    def whole(entry: Entry) -> np.ndarray:
        return entry.prepared(encode(range(n)))()

    return interleave({entry.label: partial(whole, entry) for entry in entries}, repeats, progress=progress)


def race_single(
    entries: Sequence[Entry], encoded: Encoded, repeats: int, progress: Progress = None, encode: Encode | None = None
) -> dict[str, Latencies]:
    """Every text by itself, one after the other; with `encode` from its string, else from its token ids."""
    sweeps = {entry.label: _Sweep(_steps(entry, encoded, encode)) for entry in entries}
    interleave(sweeps, repeats, warmup=1, progress=progress)
    return {label: Latencies(np.array(sweep.rounds[1:])) for label, sweep in sweeps.items()}


def _steps(entry: Entry, encoded: Encoded, encode: Encode | None) -> list[tuple[int, Answer]]:
    """Which text is answered when, and how."""
    alone, prepare = [np.arange(1)], entry.contestant.prepare
    steps: list[tuple[int, Answer]] = []
    for row in np.concatenate(entry.batches(encoded.lengths)).tolist():
        if encode is None:
            steps.append((row, prepare(encoded.take(np.array([row])), alone)))
        else:
            steps.append((row, partial(_from_string, prepare, encode, row)))
    return steps


def _from_string(prepare: Callable[[Encoded, Batches], Answer], encode: Encode, row: int) -> np.ndarray:
    return prepare(encode([row]), [np.arange(1)])()


class _Sweep:
    """All texts one by one, each timed."""

    def __init__(self, steps: Iterable[tuple[int, Answer]]) -> None:
        self._steps = list(steps)
        self.rounds: list[np.ndarray] = []

    def __call__(self) -> None:
        seconds = np.empty(len(self._steps))
        for row, step in self._steps:
            start = time.perf_counter()
            step()
            seconds[row] = time.perf_counter() - start
        self.rounds.append(seconds)
