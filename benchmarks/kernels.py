"""What the kernels reach, in operations per second: linear maps and attention.

    python -m benchmarks.kernels [--sets avx2,scalar] [--dtypes f32,i8] [--rows 1,54,1700] [--json FILE] [--torch]

The command measures one thread, each instruction set by itself, and prints GOP/s; `--torch` adds torch's float32
products, and with 1024 x 1024 matrices, about the processor's peak. `roofline`, a race of `engine.py`, measures all
threads at the same time beside the peak: products that never leave the registers, in the same round.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np

from scripts.shared import Row, command
from ziggurat.native import core

DTYPES = ("f32", "bf16", "i8")
SHAPES = ((384, 1152), (384, 384), (384, 1536), (1536, 384), (768, 2304), (768, 768), (768, 3072), (3072, 768))
ROWS = (1, 8, 20, 54, 256, 1700)  # of one thread
ALL_ROWS = (8, 20, 54, 128, 512, 1700)  # of all threads together
LENGTHS = (16, 54, 128, 512)  # tokens of a thread's sequence
WIDTHS = (32, 64)  # of a head
HIDDEN = 384
BEST_OF = 15  # measurements of one thread

Work = Callable[[int], tuple[float, float]]  # number of repetitions → operations and seconds of one thread


def linear(
    name: str, dtype: str, d_in: int, d_out: int, rows: int, finish: str = "none", with_preparation: bool = False
) -> Work:
    """A product with its dequantisation; `with_preparation` adds what converts the inputs (int8: to codes)."""
    draws = np.random.default_rng(0)
    weight = draws.standard_normal((d_out, d_in)).astype(np.float32)
    layer = core().kernels.Linear(name, weight, np.zeros(d_out, np.float32), dtype)
    x = draws.standard_normal((rows, d_in)).astype(np.float32)

    def work(repeats: int) -> tuple[float, float]:
        product, preparation = layer.seconds(x, finish, repeats)
        return 2.0 * repeats * rows * d_in * d_out, product + (preparation if with_preparation else 0.0)

    return work


def attention(name: str, width: int, scored: bool, tokens: int) -> Work:
    """Both products of all heads; the softmax between them takes time but counts no operations."""
    qkv = np.random.default_rng(0).standard_normal((tokens, 3 * HIDDEN)).astype(np.float32)

    def work(repeats: int) -> tuple[float, float]:
        seconds = core().kernels.attend_seconds(name, qkv, HIDDEN // width, scored, repeats)
        return 4.0 * repeats * tokens**2 * HIDDEN, seconds

    return work


def torch_linear(d_in: int, d_out: int, rows: int) -> Work:
    """The same product in torch's float32, one thread."""
    import torch

    torch.set_num_threads(1)
    x, weight = torch.randn(rows, d_in), torch.randn(d_out, d_in)

    def work(repeats: int) -> tuple[float, float]:
        start = time.thread_time()
        for _ in range(repeats):
            torch.nn.functional.linear(x, weight)
        return 2.0 * repeats * rows * d_in * d_out, time.thread_time() - start

    return work


def repeats_for(work: Work, budget: float) -> int:
    """The number of repetitions that take about `budget` seconds."""
    repeats = 1
    while (seconds := work(repeats)[1]) < budget / 4:
        repeats *= 2 if seconds < budget / 64 else 4
    return max(1, round(repeats * budget / seconds))


# --- all threads, beside the peak ----------------------------------------------------------------------------------


def roofline(threads: int, rounds: int, budget: float = 0.01) -> Iterator[Row]:
    """Rows of the fastest instruction set: linear maps of every shape by rows, and attention by length.

    `budget`: seconds that one measurement takes about; a row has the median, the least and the most of the rounds.
    Seconds are each thread's own.
    """
    name = core().kernels.names()[0]
    with ThreadPoolExecutor(threads) as pool:
        measured = partial(_beside_peak, name=name, pool=pool, threads=threads, rounds=rounds, budget=budget)
        for dtype in DTYPES:
            for d_in, d_out in SHAPES:
                works = {rows: linear(name, dtype, d_in, d_out, -(-rows // threads)) for rows in ALL_ROWS}
                sizes = {rows: {"d_in": d_in, "d_out": d_out, "rows": rows} for rows in ALL_ROWS}
                yield from measured(f"linear {dtype}", dtype, works, sizes)
        for width in WIDTHS:
            for scored in (False, True):
                works = {tokens: attention(name, width, scored, tokens) for tokens in LENGTHS}
                sizes = {tokens: {"width": width, "tokens": tokens} for tokens in LENGTHS}
                yield from measured("attention, scored" if scored else "attention", "f32", works, sizes)


def _beside_peak(
    label: str,
    dtype: str,
    works: Mapping[int, Work],
    sizes: Mapping[int, Mapping[str, int]],
    *,
    name: str,
    pool: ThreadPoolExecutor,
    threads: int,
    rounds: int,
    budget: float,
) -> Iterator[Row]:
    """One row for each size, with the peak of the same rounds."""
    calls: dict[Any, Work] = {"peak": partial(core().kernels.peak, name, dtype), **works}
    repeats = {key: repeats_for(work, budget) for key, work in calls.items()}
    rates: dict[Any, list[float]] = {key: [] for key in calls}  # operations per second, round by round
    for _ in range(rounds):
        for key, work in calls.items():
            rates[key].append(at_once(work, repeats[key], pool, threads))
    for key in works:
        yield {
            "race": "roofline", "what": label, "dtype": dtype, **sizes[key], "instructions": name, "threads": threads,
            "rounds": rounds, "tops": spread(rates[key], 1e-12), "peak_tops": spread(rates["peak"], 1e-12),
            "share": spread(np.divide(rates[key], rates["peak"])),
        }  # fmt: skip


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


# --- one thread, by instruction set --------------------------------------------------------------------------------


def by_instruction_set(options: argparse.Namespace) -> Iterator[Row]:
    """One row for each kernel, shape and set: GOP/s by number of rows or tokens."""
    rows = [int(number) for number in options.rows.split(",")]
    if options.torch:
        yield _rates("linear f32 1024x1024", "torch", {"rows 1024": torch_linear(1024, 1024, 1024)}, options.seconds)
        for d_in, d_out in SHAPES:
            works = {f"rows {n}": torch_linear(d_in, d_out, n) for n in rows}
            yield _rates(f"linear f32 {d_in}x{d_out}", "torch", works, options.seconds)
    for name in options.sets.split(","):
        for dtype in options.dtypes.split(","):
            for d_in, d_out in SHAPES:
                works = {f"rows {n}": linear(name, dtype, d_in, d_out, n, options.finish, True) for n in rows}
                yield _rates(f"linear {dtype} {d_in}x{d_out}", name, works, options.seconds)
        for width in WIDTHS:
            for scored in (False, True):
                works = {f"tokens {n}": attention(name, width, scored, n) for n in LENGTHS}
                title = f"attention of width {width}" + (", scored" if scored else "")
                yield _rates(title, name, works, options.seconds)


def _rates(kernel: str, name: str, works: Mapping[str, Work], budget: float) -> Row:
    return {"kernel": kernel, "set": name} | {size: _gops(work, budget) for size, work in works.items()}


def _gops(work: Work, budget: float) -> float:
    """The best of BEST_OF measurements of about `budget` seconds of this thread's own time."""
    repeats = repeats_for(work, budget)
    measured = (work(repeats) for _ in range(BEST_OF))
    return max(operations / seconds for operations, seconds in measured) / 1e9


@command("kernels")
def main(arguments: list[str] | None = None) -> None:
    """Prints a table; --json writes its rows."""
    sets = [name for name in core().kernels.names() if name != "emulated"]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", default=",".join(sets), help=f"default: {','.join(sets)}")
    parser.add_argument("--dtypes", default=",".join(DTYPES))
    parser.add_argument("--rows", default=",".join(map(str, ROWS)))
    parser.add_argument("--finish", default="none", help="what the product is finished with: none, gelu, ...")
    parser.add_argument("--seconds", type=float, default=0.003, help=f"per measurement; the best of {BEST_OF} counts")
    parser.add_argument("--torch", action="store_true", help="measure torch's float32 product first")
    parser.add_argument("--json", type=Path, help="file of rows to write")
    options = parser.parse_args(arguments)
    rows = []
    for row in by_instruction_set(options):
        rows.append(row)
        figures = "  ".join(f"{name} {value:7.1f}" for name, value in row.items() if isinstance(value, float))
        sys.stdout.write(f"{row['set']:10} {row['kernel']:28} {figures}  GOP/s\n")
        sys.stdout.flush()
    if options.json:
        options.json.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    main()
