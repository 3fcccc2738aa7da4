"""In processes of their own: how soon an answer comes, and how much memory calls take. `engine.py` writes the rows.

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

from ziggurat.measure.clock import interleave

BATCH, TOKENS = 32, 128
ANSWER = (
    "import sys; from ziggurat import AdaptiveModel; model, dtype, threads, text = sys.argv[1:]; "
    "AdaptiveModel.from_pretrained(model, 'cpu', dtype, int(threads), 'native').answer([text], 'full')"
)


def cold_starts(model: str, text: str, threads: int, rounds: int) -> Iterator[dict[str, Any]]:
    """Wall clock of Python starting, importing, loading and answering one text; files have been read before."""
    calls = {dtype: partial(_run, "-c", ANSWER, model, dtype, threads, text) for dtype in ("float32", "int8")}
    for dtype, timing in interleave(calls, rounds).items():
        seconds = [timing.p50, min(timing.runs), max(timing.runs)]
        yield {"race": "cold start", "what": "first answer", "dtype": dtype, "rounds": rounds, "seconds": seconds}


def memories(model: str, threads: int, rounds: int) -> Iterator[dict[str, Any]]:
    """What calls take beside the weights, in MiB: medians of fresh processes."""
    for dtype in ("float32", "bfloat16", "int8"):
        found = [json.loads(_run("-P", __file__, model, dtype, threads)) for _ in range(rounds)]
        medians = {key: float(np.median([one[key] for one in found])) for key in found[0]}
        yield {"race": "memory", "what": "full depth", "dtype": dtype, "rounds": rounds} | medians


def _run(*arguments: object) -> str:
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def memory_of(model: str, dtype: str, threads: int) -> dict[str, float]:
    """MiB of this process, Linux only, in three calls of 32 texts of 128 tokens (less where the model reads less).

    `growth`: the highest resident memory during the calls, minus what was there after loading, without pages of files:
    embeddings are read where their file is mapped, and are weights. `growth_with_files`: with these pages.
    `workspace`: what the engine itself keeps for its next call. `loaded`: resident before the calls.
    """
    from ziggurat.data.tokenizer import Encoded, pack_rows
    from ziggurat.engine.opened import OpenedModel
    from ziggurat.engine.replay import run_batches
    from ziggurat.policies.rules import ExitRule

    classifier = OpenedModel.from_pretrained(model, "cpu", dtype, threads, "native")
    length = min(TOKENS, classifier.manifest.max_length)
    ids = np.random.default_rng(0).integers(0, classifier.spec.vocabulary, (BATCH, length))
    texts = [np.stack([row, np.zeros_like(row)], axis=1) for row in ids]
    batch = pack_rows(Encoded(texts, np.zeros(BATCH, dtype=bool)), np.arange(BATCH))
    rule = ExitRule.full_depth(len(classifier.rungs))
    Path("/proc/self/clear_refs").write_text("5")  # the highest so far is forgotten: loading may have taken more
    before = resident()
    for _ in range(3):
        run_batches(classifier.backend, [batch], rule, BATCH)
    after = resident()
    return {
        "tokens": float(BATCH * length),
        "growth": after["VmHWM"] - after["RssFile"] - before["RssAnon"],
        "growth_with_files": after["VmHWM"] - before["VmRSS"],
        "workspace": classifier.backend._core.workspace_bytes / 2**20,
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
