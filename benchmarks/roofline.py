"""What the kernels reach of the processor's peak, all threads at work at once; `engine.py` writes its rows.

The peak is measured in the same round: products that never leave the registers. Seconds are each thread's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Barrier
from typing import Any

import numpy as np

from ziggurat.native import core

DTYPES = ("i8", "f32", "bf16")
SHAPES = ((384, 1152), (384, 384), (384, 1536), (1536, 384), (768, 2304), (768, 768), (768, 3072), (3072, 768))
ROWS = (8, 20, 54, 128, 512, 1700)  # of all threads together
LENGTHS = (16, 54, 128, 512)  # tokens of each thread's sequence
WIDTHS = (32, 64)  # of a head
HIDDEN = 384

Work = Callable[[int], tuple[float, float]]  # so many times → operations and seconds of one thread


def roofline(threads: int, rounds: int, budget: float = 0.01) -> Iterator[dict[str, Any]]:
    """Rows of the fastest instruction set: every shape's linear maps by rows, and attention by length.

    `budget`: seconds that one measurement takes at least; a row has the median, the least and the most of the rounds.
    """
    name = core().kernels.names()[0]
    with ThreadPoolExecutor(threads) as pool:
        for dtype in DTYPES:
            for d_in, d_out in SHAPES:
                works = {rows: _linear(name, dtype, d_in, d_out, -(-rows // threads)) for rows in ROWS}
                sizes = {rows: {"d_in": d_in, "d_out": d_out, "rows": rows} for rows in ROWS}
                yield from _measured(f"linear {dtype}", name, dtype, works, sizes, pool, threads, rounds, budget)
        for width in WIDTHS:
            for scored in (False, True):
                works = {n: _attention(name, width, scored, n) for n in LENGTHS}
                sizes = {n: {"width": width, "tokens": n} for n in LENGTHS}
                what = "attention, scored" if scored else "attention"
                yield from _measured(what, name, "f32", works, sizes, pool, threads, rounds, budget)


def _measured(
    what: str,
    name: str,
    dtype: str,
    works: Mapping[int, Work],
    sizes: Mapping[int, dict[str, int]],
    pool: ThreadPoolExecutor,
    threads: int,
    rounds: int,
    budget: float,
) -> Iterator[dict[str, Any]]:
    """One row for each size, with the peak of the same rounds."""
    calls: dict[Any, Work] = {"peak": partial(core().kernels.peak, name, dtype), **works}
    repeats = {key: _repeats(work, budget) for key, work in calls.items()}
    rates = {key: [] for key in calls}  # operations per second, round by round
    for _ in range(rounds):
        for key, work in calls.items():
            rates[key].append(at_once(work, repeats[key], pool, threads))
    for key in works:
        yield {
            "race": "roofline",
            "what": what,
            "dtype": dtype,
            **sizes[key],
            "instructions": name,
            "threads": threads,
            "rounds": rounds,
            "tops": spread(rates[key], 1e-12),
            "peak_tops": spread(rates["peak"], 1e-12),
            "share": spread(np.divide(rates[key], rates["peak"])),
        }


def at_once(work: Work, repeats: int, pool: ThreadPoolExecutor, threads: int) -> float:
    """Operations per second of all threads together, started at the same time."""
    gate = Barrier(threads)

    def run() -> float:
        gate.wait()
        operations, seconds = work(repeats)
        return operations / seconds

    return sum(future.result() for future in [pool.submit(run) for _ in range(threads)])


def spread(values: Sequence[float] | np.ndarray, unit: float = 1.0) -> list[float]:
    """Median, least and most."""
    return [float(figure(values) * unit) for figure in (np.median, np.min, np.max)]


def _repeats(work: Work, budget: float) -> int:
    """How many take about `budget` seconds."""
    repeats = 1
    while (seconds := work(repeats)[1]) < budget / 4:
        repeats *= 2 if seconds < budget / 64 else 4
    return max(1, round(repeats * budget / seconds))


def _linear(name: str, dtype: str, d_in: int, d_out: int, rows: int) -> Work:
    """The product, its dequantisation included; what brings inputs into its form (for int8: codes) is not."""
    draws = np.random.default_rng(0)
    weight = draws.standard_normal((d_out, d_in)).astype(np.float32)
    layer = core().kernels.Linear(name, weight, np.zeros(d_out, np.float32), dtype)
    x = draws.standard_normal((rows, d_in)).astype(np.float32)

    def work(repeats: int) -> tuple[float, float]:
        return 2.0 * repeats * rows * d_in * d_out, layer.seconds(x, "none", repeats)[0]

    return work


def _attention(name: str, width: int, scored: bool, tokens: int) -> Work:
    """Both products of all heads; the softmax between them takes time but counts no operations."""
    qkv = np.random.default_rng(0).standard_normal((tokens, 3 * HIDDEN)).astype(np.float32)

    def work(repeats: int) -> tuple[float, float]:
        seconds = core().kernels.attend_seconds(name, qkv, HIDDEN // width, scored, repeats)
        return 4.0 * repeats * tokens**2 * HIDDEN, seconds

    return work
