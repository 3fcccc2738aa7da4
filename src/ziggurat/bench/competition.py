"""Times Ziggurat and its peers: in both orders of the texts, each at its best batch size, interleaved."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from ziggurat.bench.peers.peer import Peer, padded
from ziggurat.data.packing import by_length, in_order, padded_slots
from ziggurat.data.tokenizer import Encoded, pack_rows
from ziggurat.measure.clock import Clock, Timing, interleave
from ziggurat.problems.problem import Reader
from ziggurat.system import Progress

ARRIVAL, SORTED = "as it comes", "sorted"
ORDERS = (ARRIVAL, SORTED)

Batches = Sequence[np.ndarray]  # indices of the inputs in each batch; every input is in one
Answer = Callable[[], np.ndarray]  # readings (n, width) in the order of the inputs
Encode = Callable[[Sequence[int]], Encoded]  # tokenises the texts with these indices


@dataclass(frozen=True)
class Contestant:
    """One engine with the loaded model."""

    name: str  # "OpenVINO", "ziggurat full depth"
    engine: str
    dtype: str
    prepare: Callable[[Encoded, Batches], Answer]  # work that is not timed: padding, for peers
    point: str | None = None  # operating point; None = a peer, at full depth
    streams: int = 1  # batches that run in parallel

    @property
    def key(self) -> str:
        """Name with engine and dtype; several ways to run the same peer share it."""
        return f"{self.name} {self.dtype}" if self.is_peer else f"{self.name} ({self.engine} {self.dtype})"

    @property
    def is_peer(self) -> bool:
        """Whether this is another engine than Ziggurat."""
        return self.point is None


@dataclass(frozen=True)
class Entry:
    """A contestant with an order of the texts and a batch size."""

    contestant: Contestant
    order: str
    batch: int

    @property
    def label(self) -> str:
        """Unique name among the entries of one race."""
        return f"{self.contestant.key}, {self.order}"

    def batches(self, encoded: Encoded) -> list[np.ndarray]:
        """Indices of the inputs of each batch. A batch has at most `batch` sequences, or those of a single input."""
        counts = None if encoded.owners is None else np.diff(encoded.edges)
        if self.order == SORTED:
            return list(by_length(encoded.longest, self.batch, counts))
        return list(in_order(np.arange(len(encoded)), self.batch, counts))

    def prepared(self, encoded: Encoded) -> Answer:
        """The function that answers these texts."""
        return self.contestant.prepare(encoded, self.batches(encoded))


@dataclass(frozen=True)
class Latencies:
    """Times of single texts."""

    seconds: np.ndarray  # (rounds, n), in the order of the texts

    @property
    def per_text(self) -> np.ndarray:
        """Median over rounds, (n) seconds."""
        return np.asarray(np.median(self.seconds, axis=0))

    @property
    def medians(self) -> Timing:
        """The median text's time in each round."""
        return Timing(tuple(np.median(self.seconds, axis=1).tolist()))


def of_peer(peer: Peer, engine: str, reader: Reader | None = None) -> Contestant:
    """A peer as a contestant; a `reader` converts its outputs to readings, which is timed as in Ziggurat."""

    def prepare(encoded: Encoded, batches: Batches) -> Answer:
        chosen = [encoded.sequences_of(rows) for rows in batches]
        feeds = [padded([encoded.tokens[sequence] for sequence in sequences], peer.inputs) for sequences in chosen]
        if reader is None:
            return lambda: in_call_order(peer.all_logits(feeds), batches)
        packed = [pack_rows(encoded, rows) for rows in batches]
        marks = [batch.with_states(batch.states[:, 2]) for batch in packed]

        def answer() -> np.ndarray:
            outputs = zip(peer.all_logits(feeds), marks, strict=True)
            readings = [
                reader.read(logits.reshape(-1, 2)[padded_slots(mark.lengths)], mark) for logits, mark in outputs
            ]
            return in_call_order(readings, batches)

        return answer

    return Contestant(peer.name, engine, peer.dtype, prepare, streams=peer.streams)


def in_call_order(answers: Sequence[np.ndarray], batches: Batches) -> np.ndarray:
    """Readings in the order of the inputs; `answers[b]` has those of batch b."""
    stacked = np.concatenate(answers)
    readings = np.empty_like(stacked)
    readings[np.concatenate(batches)] = stacked
    return readings


def best_entries(
    contestants: Sequence[Contestant],
    encoded: Encoded,
    sizes: Sequence[int],
    repeats: int,
    progress: Progress = None,
    clock: Clock = time.perf_counter,
) -> list[Entry]:
    """For each contestant and order, the fastest batch size on these texts, and the fastest way to run it.

    Sizes above the number of sequences are skipped, since they give the same single batch; if none remains, that one.
    """
    fitting = sorted({size for size in sizes if size <= len(encoded.tokens)}) or [len(encoded.tokens)]
    entries = [Entry(contestant, order, size) for contestant in contestants for order in ORDERS for size in fitting]
    named = {f"{entry.label}, batch {entry.batch}, {entry.contestant.streams} streams": entry for entry in entries}
    calls = {name: entry.prepared(encoded) for name, entry in named.items()}
    timings = interleave(calls, repeats, progress=progress, clock=clock)
    best: dict[str, tuple[float, Entry]] = {}
    for name, entry in named.items():
        seconds = timings[name].p50
        if entry.label not in best or seconds < best[entry.label][0]:
            best[entry.label] = (seconds, entry)
    return [entry for _, entry in best.values()]


def single_entries(contestants: Sequence[Contestant]) -> list[Entry]:
    """Batch 1 in both orders. Texts are answered one after the other, so several streams are no help."""
    return [Entry(contestant, order, 1) for contestant in contestants for order in ORDERS if contestant.streams == 1]


def race(entries: Sequence[Entry], encoded: Encoded, repeats: int, progress: Progress = None) -> dict[str, Timing]:
    """Time for all inputs, from token ids to readings."""
    return interleave({entry.label: entry.prepared(encoded) for entry in entries}, repeats, progress=progress)


def race_from_texts(
    entries: Sequence[Entry], encode: Encode, n: int, repeats: int, progress: Progress = None
) -> dict[str, Timing]:
    """Time from strings to readings of n inputs: tokenising (the same for all), sorting, padding, the model."""

    def answer(entry: Entry) -> np.ndarray:
        return entry.prepared(encode(range(n)))()

    return interleave({entry.label: partial(answer, entry) for entry in entries}, repeats, progress=progress)


def race_single(
    entries: Sequence[Entry], encoded: Encoded, repeats: int, progress: Progress = None, encode: Encode | None = None
) -> dict[str, Latencies]:
    """Times single texts, one after the other; with `encode` from strings, else from token ids."""
    sweeps = {entry.label: _Sweep(_steps(entry, encoded, encode)) for entry in entries}
    interleave(sweeps, repeats, warmup=1, progress=progress)
    return {label: Latencies(np.array(sweep.rounds[1:])) for label, sweep in sweeps.items()}


def _steps(entry: Entry, encoded: Encoded, encode: Encode | None) -> list[tuple[int, Answer]]:
    """Index of each text, in order, and the function that answers it."""
    alone, prepare = [np.arange(1)], entry.contestant.prepare
    steps: list[tuple[int, Answer]] = []
    for row in np.concatenate(entry.batches(encoded)).tolist():
        if encode is None:
            steps.append((row, prepare(encoded.take(np.array([row])), alone)))
        else:
            steps.append((row, partial(_from_string, prepare, encode, row)))
    return steps


def _from_string(prepare: Callable[[Encoded, Batches], Answer], encode: Encode, row: int) -> np.ndarray:
    return prepare(encode([row]), [np.arange(1)])()


class _Sweep:
    """Answers all texts one by one and times each."""

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
