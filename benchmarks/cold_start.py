"""Time to the first answer of a new process, and the memory that calls take: races of `engine.py`.

python -m benchmarks.cold_start MODEL DTYPE THREADS   # a JSON object of what a call of 32 x 128 tokens takes
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ziggurat.measure import interleave

Row = dict[str, Any]  # nothing of other scripts is imported: processes of this file alone are measured
BATCH, TOKENS = 32, 128
ANSWER = (
    "import sys; from ziggurat import AdaptiveModel; model, dtype, threads, text = sys.argv[1:]; "
    "AdaptiveModel.from_pretrained(model, 'cpu', dtype, int(threads), 'native').answer([text], 'full')"
)


def cold_starts(model: str, text: str, threads: int, rounds: int) -> Iterator[Row]:
    """Wall clock of a process that starts, imports, loads and answers one text; files have been read before."""
    calls = {dtype: partial(_run, "-c", ANSWER, model, dtype, threads, text) for dtype in ("float32", "int8")}
    for dtype, timing in interleave(calls, rounds).items():
        seconds = [timing.p50, min(timing.runs), max(timing.runs)]
        yield {"race": "cold start", "what": "first answer", "dtype": dtype, "rounds": rounds, "seconds": seconds}


def memories(model: str, threads: int, rounds: int) -> Iterator[Row]:
    """Memory of calls beside the weights, in MiB: medians of new processes."""
    for dtype in ("float32", "bfloat16", "int8"):
        measured = [json.loads(_run("-P", __file__, model, dtype, threads)) for _ in range(rounds)]
        medians = {key: float(np.median([process[key] for process in measured])) for key in measured[0]}
        yield {"race": "memory", "what": "full depth", "dtype": dtype, "rounds": rounds} | medians


def _run(*arguments: object) -> str:
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def memory_of(model: str, dtype: str, threads: int) -> dict[str, float]:
    """MiB of this process, Linux only, in three calls of 32 texts of 128 tokens (less where the model reads less).

    `growth`: the highest resident memory during the calls minus that after loading, without pages of mapped files:
    those are weights. `growth_with_files`: with these pages. `workspace`: what the engine keeps for its next call.
    `loaded`: resident memory before the calls.
    """
    from ziggurat.data.tokenizer import Encoded, pack_rows
    from ziggurat.engine import OpenedModel, run_batches
    from ziggurat.policies import ExitRule

    classifier = OpenedModel.from_pretrained(model, "cpu", dtype, threads, "native")
    length = min(TOKENS, classifier.manifest.max_length)
    ids = np.random.default_rng(0).integers(0, classifier.spec.vocabulary, (BATCH, length))
    texts = [np.stack([row, np.zeros_like(row)], axis=1) for row in ids]
    batch = pack_rows(Encoded(texts, np.zeros(BATCH, dtype=bool)), np.arange(BATCH))
    backend: Any = classifier.backend
    rule = ExitRule.full_depth(len(classifier.rungs))
    Path("/proc/self/clear_refs").write_text("5")  # forget the highest so far: loading may have taken more
    before = resident()
    for _ in range(3):
        run_batches(backend, [batch], rule, BATCH)
    after = resident()
    return {
        "tokens": float(BATCH * length),
        "growth": after["VmHWM"] - after["RssFile"] - before["RssAnon"],
        "growth_with_files": after["VmHWM"] - before["VmRSS"],
        "workspace": backend._core.workspace_bytes / 2**20,
        "loaded": before["VmRSS"],
    }


def resident() -> dict[str, float]:
    """Resident memory by kind, MiB."""
    lines = (line.split() for line in Path("/proc/self/status").read_text("utf-8").splitlines())
    return {
        name.rstrip(":"): int(value[0]) / 1024 for name, *value in lines if name.startswith(("VmHWM", "VmRSS", "Rss"))
    }


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit("usage: python -m benchmarks.cold_start MODEL DTYPE THREADS")
    sys.stdout.write(json.dumps(memory_of(sys.argv[1], sys.argv[2], int(sys.argv[3]))) + "\n")
