"""Whether post-norm encoders of other families are as fast as a BERT of the same size: random weights, full depth.

    python -m benchmarks.families [--dtype int8] [--out results/families.jsonl]

A row has a family's FLOPs per second over BERT's of the same round, for batches of 32 texts of 64 tokens and one text.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from transformers.utils import logging

from benchmarks.shapes import engine_call, random_model, random_text
from scripts.shared import RESULTS, Row, command, record
from ziggurat.measure import ModelOptions, interleave, paired_ratio

FAMILIES = ("Bert", "Roberta", "XLMRoberta", "Camembert", "DistilBert", "Electra", "Ernie")
LAYERS, LENGTH = 6, 64


@command("families")
def main(arguments: list[str] | None = None) -> None:
    """Appends a row for each family and batch size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", default="int8")
    parser.add_argument("--threads", type=int, help="default: all cores")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path, default=RESULTS / "families.jsonl", help="file of rows to append to")
    options = parser.parse_args(arguments)
    logging.disable_progress_bar()
    record(options.out, measured(options))


def measured(options: argparse.Namespace) -> Iterator[Row]:
    """One row for each family and batch size."""
    draws = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as scratch:
        folders = {name: random_model(Path(scratch) / name / "model", LAYERS, name) for name in FAMILIES}
        opened = {
            name: ModelOptions("cpu", options.dtype, options.threads, backend="native").open(str(folder))
            for name, folder in folders.items()
        }
        for batch in (32, 1):
            texts = [random_text(draws, LENGTH) for _ in range(batch)]
            flops = {
                name: float(model.tiers[-1].full_flops(np.full(batch, LENGTH)).sum()) for name, model in opened.items()
            }
            calls = {name: partial(_repeated, engine_call(model, texts), 32 // batch) for name, model in opened.items()}
            timings = interleave(calls, options.rounds, warmup=3)
            for name, timing in timings.items():
                ratio = paired_ratio(timings[FAMILIES[0]], timing)
                share = [gain * flops[name] / flops[FAMILIES[0]] for gain in (ratio.median, ratio.low, ratio.high)]
                yield {
                    "what": name, "dtype": options.dtype, "layers": LAYERS, "length": LENGTH, "batch": batch,
                    "threads": opened[name].backend.threads, "rounds": options.rounds, "share_of_bert": share,
                    "texts_per_second_p50": 32 / timing.p50,
                }  # fmt: skip


def _repeated(call: Callable[[], object], times: int) -> None:
    for _ in range(times):
        call()


if __name__ == "__main__":
    main()
