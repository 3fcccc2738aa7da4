"""What the kernels reach on one thread: linear maps and attention, in operations per second.

    python -m benchmarks.kernels [--sets avx2,scalar] [--json rows.jsonl] [--torch]

`--torch` adds what torch reaches with float32 in the same run, and with 1024 x 1024 matrices: about the peak.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from ziggurat.native import core

kernels = core().kernels
SHAPES = ((384, 1152), (384, 384), (384, 1536), (1536, 384), (768, 3072))
ROWS = (1, 8, 20, 54, 256, 1700)
LENGTHS = (16, 54, 128, 512)
WIDTHS = (32, 64)
DTYPES = ("f32", "bf16", "i8")


def main() -> None:
    """Prints a table; --json writes its rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", default=",".join(name for name in kernels.names() if name != "emulated"))
    parser.add_argument("--dtypes", default=",".join(DTYPES))
    parser.add_argument("--rows", default=",".join(map(str, ROWS)))
    parser.add_argument("--finish", default="none")
    parser.add_argument("--seconds", type=float, default=0.003, help="per measurement; the best of 15 counts")
    parser.add_argument("--torch", action="store_true", help="measure torch's float32 product first")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows = list(measure(arguments))
    if arguments.json:
        arguments.json.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def measure(arguments: argparse.Namespace) -> Iterator[dict]:
    """One row for each kernel and size."""
    if arguments.torch:
        yield from _torch_rows(arguments.seconds)
    for name in arguments.sets.split(","):
        for dtype in arguments.dtypes.split(","):
            for d_in, d_out in SHAPES:
                row = {"kernel": f"linear {dtype} {d_in}x{d_out}", "set": name}
                yield _say(row | _linear(name, dtype, d_in, d_out, arguments))
        for width in WIDTHS:
            for scored in (False, True):
                row = {"kernel": f"attention of width {width}" + (", scored" if scored else ""), "set": name}
                yield _say(row | _attention(name, width, scored, arguments.seconds))


def _linear(name: str, dtype: str, d_in: int, d_out: int, arguments: argparse.Namespace) -> dict[str, float]:
    generator = np.random.default_rng(0)
    weight = generator.standard_normal((d_out, d_in)).astype(np.float32)
    layer = kernels.Linear(name, weight, np.zeros(d_out, np.float32), dtype)
    rates = {}
    for n in map(int, arguments.rows.split(",")):
        x = generator.standard_normal((n, d_in)).astype(np.float32)
        seconds = _seconds(lambda repeats, x=x: sum(layer.seconds(x, arguments.finish, repeats)), arguments.seconds)
        rates[f"rows {n}"] = 2 * n * d_in * d_out / seconds / 1e9
    return rates


def _attention(name: str, width: int, scored: bool, budget: float) -> dict[str, float]:
    heads, rates = 384 // width, {}
    for n in LENGTHS:
        qkv = np.random.default_rng(0).standard_normal((n, 3 * 384)).astype(np.float32)
        call = lambda repeats, qkv=qkv: kernels.attend_seconds(name, qkv, heads, scored, repeats)  # noqa: E731
        rates[f"tokens {n}"] = 4 * n * n * 384 / _seconds(call, budget) / 1e9
    return rates


def _torch_rows(budget: float) -> Iterator[dict]:
    import torch

    torch.set_num_threads(1)
    for d_in, d_out, counts in ((1024, 1024, (1024,)), *((*shape, ROWS) for shape in SHAPES)):
        weight, rates = torch.randn(d_out, d_in), {}
        for n in counts:
            x = torch.randn(n, d_in)

            def call(repeats: int, x: torch.Tensor = x, weight: torch.Tensor = weight) -> float:
                start = time.thread_time()
                for _ in range(repeats):
                    torch.nn.functional.linear(x, weight)
                return time.thread_time() - start

            rates[f"rows {n}"] = 2 * n * d_in * d_out / _seconds(call, budget) / 1e9
        yield _say({"kernel": f"linear f32 {d_in}x{d_out}", "set": "torch"} | rates)


def _seconds(call: Callable[[int], float], budget: float) -> float:
    """Of one repetition: the best of 15 measurements of about `budget` seconds of this thread's own time."""
    once = max(call(1), 1e-7)
    repeats = max(1, round(budget / max(call(max(1, round(1e-3 / once))) / max(1, round(1e-3 / once)), 1e-7)))
    return min(call(repeats) / repeats for _ in range(15))


def _say(row: dict) -> dict:
    figures = "  ".join(f"{name} {value:7.1f}" for name, value in row.items() if isinstance(value, float))
    sys.stdout.write(f"{row['set']:10} {row['kernel']:28} {figures}  GOP/s\n")
    sys.stdout.flush()
    return row


if __name__ == "__main__":
    main()
