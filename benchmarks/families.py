"""Whether post-norm encoders of other families are as fast as BERT's of the same size: random weights, full depth.

    python -m benchmarks.families [--dtype int8] [--out results/families.jsonl]

"Share" is the FLOPs a second of a family over BERT's of the same round. 32 texts of 64 tokens, and one text.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
from transformers.utils import logging

from benchmarks.shapes import ours, random_model, text_of
from ziggurat.measure.clock import interleave, paired_ratio
from ziggurat.measure.rows import append_record, provenance
from ziggurat.measure.subject import ModelOptions

FAMILIES = ("Bert", "Roberta", "XLMRoberta", "Camembert", "DistilBert", "Electra", "Ernie")
LAYERS, LENGTH = 6, 64


def main() -> None:
    """Appends a row for each family and batch size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dtype", default="int8")
    parser.add_argument("--threads", type=int, help="default: all cores")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path, default=Path("results/families.jsonl"))
    options = parser.parse_args()
    logging.disable_progress_bar()
    origin, draws = provenance(), np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as scratch:
        folders = {name: random_model(Path(scratch) / name / "model", LAYERS, name) for name in FAMILIES}
        opened = {
            name: ModelOptions("cpu", options.dtype, options.threads, backend="native").open(str(folder))
            for name, folder in folders.items()
        }
        for batch in (32, 1):
            texts = [text_of(draws, LENGTH) for _ in range(batch)]
            flops = {
                name: float(one.tiers[-1].full_flops(np.full(batch, LENGTH)).sum()) for name, one in opened.items()
            }
            calls = {name: partial(_repeated, ours(one, texts), 32 // batch) for name, one in opened.items()}
            timings = interleave(calls, options.rounds, warmup=3)
            for name, timing in timings.items():
                ratio = paired_ratio(timings[FAMILIES[0]], timing)
                share = [one * flops[name] / flops[FAMILIES[0]] for one in (ratio.median, ratio.low, ratio.high)]
                row = {
                    "what": name, "dtype": options.dtype, "layers": LAYERS, "length": LENGTH, "batch": batch,
                    "threads": opened[name].backend.threads, "rounds": options.rounds, "share_of_bert": share,
                    "texts_per_second_p50": 32 / timing.p50,
                }  # fmt: skip
                append_record(options.out, origin | row)
                sys.stdout.write(f"{name:<12}{batch:>3}  {share[0]:.3f} ({share[1]:.3f} to {share[2]:.3f})\n")


def _repeated(call: partial[object], times: int) -> None:
    for _ in range(times):
        call()


if __name__ == "__main__":
    main()
