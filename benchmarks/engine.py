"""The engine's own speed bars: what idle policies cost, what saved FLOPs save, cold starts, memory, AVX2, the roof.

    python -m benchmarks.engine MODEL DATA [--races never_acting savings …] [--out results/engine.jsonl]

MODEL is a folder with exits; of one that prunes, operating points are measured with and without its pruning. A race's
rows are appended when it ends. Beside other engines: `ziggurat compare`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from ziggurat.engine.protocols import Backend

from benchmarks.cold_start import cold_starts, memories
from benchmarks.dtypes import answers_by_dtype
from benchmarks.first_pass import fresh_engines
from benchmarks.roofline import roofline
from benchmarks.time_vs_flops import acting_rules, flops_gains
from ziggurat.bench.peers.peer import TransformersPeer
from ziggurat.data.packing import by_length, in_order
from ziggurat.data.tokenizer import Encoded, pack_rows
from ziggurat.encoder.hub import local_folder
from ziggurat.engine.backend import Outcomes
from ziggurat.engine.backends.native import load_backend
from ziggurat.engine.opened import FULL, OpenedModel
from ziggurat.engine.replay import run_batches
from ziggurat.engine.tiers import DTYPES
from ziggurat.errors import UserError
from ziggurat.measure.clock import Ratio, interleave, paired_ratio
from ziggurat.measure.rows import append_record, provenance
from ziggurat.measure.subject import ModelOptions, data_and_split, lengths_summary, rows_to_measure, sample
from ziggurat.native import core
from ziggurat.policies.exits import exit_score
from ziggurat.policies.prune import TokenRule, above
from ziggurat.policies.rules import ExitRule
from ziggurat.system import n_cores

IDLE_BATCHES, BATCHES, SORTED_BATCH = (1, 8, 32), (8, 32), 32
NOTHING = 1e-30  # a threshold on received attention that every token is above


@dataclass(frozen=True)
class Setting:
    """What is measured, and how often."""

    model: str
    source: str
    threads: int
    texts: int
    rounds: int
    dtypes: tuple[str, ...] = DTYPES["native"]

    def opened(self, dtype: str) -> OpenedModel:
        """The model in the compiled engine."""
        return ModelOptions("cpu", dtype, self.threads, backend="native").open(self.model)

    @cached_property
    def encoded(self) -> Encoded:
        """The texts that are timed, spread over the data."""
        classifier = self.opened("float32")
        rows = rows_to_measure(classifier, self.source)
        rows = rows.take(sample(len(rows), self.texts))
        return classifier.tokenizer.encode(rows.texts, rows.pairs)


def main(arguments: list[str] | None = None) -> None:
    """Appends a row for each system of each race."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("--races", nargs="+", default=list(RACES), choices=list(RACES))
    parser.add_argument("--threads", type=int, default=n_cores())
    parser.add_argument("--texts", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path("results/engine.jsonl"))
    options = parser.parse_args(arguments)
    setting = Setting(options.model, options.data, options.threads, options.texts, options.rounds)
    if len(setting.opened("float32").tiers) > 1:
        parser.error("MODEL must be one model and not a cascade; give the folder of its last tier")
    origin = provenance()
    data, split = data_and_split(setting.source)
    about = {"model": Path(setting.model).name, "data": data, "split": split, "threads": setting.threads}
    about |= lengths_summary(setting.encoded)
    for name in options.races:
        for row in list(RACES[name](setting)):
            append_record(options.out, origin | about | row)
            sys.stdout.write(f"{ {key: value for key, value in row.items() if key != 'rounds'} }\n")


def answers(backend: Backend, encoded: Encoded, rule: ExitRule, batch: int) -> Outcomes:
    """All texts as they come, in batches; packing is on the clock."""
    batches = (pack_rows(encoded, rows) for rows in in_order(np.arange(len(encoded)), batch))
    return run_batches(backend, batches, rule, len(encoded))


# --- what policies cost that never act -----------------------------------------------------------------------------


def idle_rules(classifier: OpenedModel) -> dict[str, ExitRule]:
    """Full depth, and rules under which nothing ever leaves."""
    n_layers, n_rungs = classifier.backend.n_layers, len(classifier.rungs)
    full, everywhere = classifier.rule_of(FULL), np.full(n_layers, NOTHING)
    before_last = np.where(np.arange(n_layers) == n_layers - 1, np.nan, everywhere)
    score = classifier.problem.scores[0]
    found = {
        FULL: full,
        "pruning": replace(full, tokens=TokenRule(above, everywhere)),
        "pruning before the last layer": replace(full, tokens=TokenRule(above, before_last)),
    }
    if n_rungs > 1:
        found["exits"] = ExitRule.uniform(score, -exit_score(score).everybody, n_rungs)
    return found


def never_acting(setting: Setting) -> Iterator[dict[str, Any]]:
    """Time over full depth's of rules that score every token and drop none, or ask every exit and let nobody go."""
    for dtype in setting.dtypes:
        classifier = setting.opened(dtype)
        idle = idle_rules(classifier)
        expected = answers(classifier.backend, setting.encoded, idle[FULL], 32)
        for name, rule in idle.items():
            outcomes = answers(classifier.backend, setting.encoded, rule, 32)
            if not np.array_equal(outcomes.kept, expected.kept):
                raise SystemExit(f"{name}: something left, so this measures no idle policy")
        for batch in IDLE_BATCHES:
            calls = {
                name: partial(answers, classifier.backend, setting.encoded, rule, batch) for name, rule in idle.items()
            }
            timings = interleave(calls, setting.rounds)
            for name in idle:
                yield {
                    "race": "never acting", "what": name, "dtype": dtype, "batch": batch, "rounds": setting.rounds,
                    "over_full": listed(paired_ratio(timings[name], timings[FULL])),
                }  # fmt: skip


# --- time saved by FLOPs saved -------------------------------------------------------------------------------------


def savings(setting: Setting) -> Iterator[dict[str, Any]]:
    """Speed-up, FLOPs ratio and the one over the other of each rule, batch and dtype."""
    for dtype in setting.dtypes:
        classifier = setting.opened(dtype)
        acting = acting_rules(classifier)
        all_rules = {FULL: classifier.rule_of(FULL)} | {name: rule for name, (_, rule) in acting.items()}
        for batch in BATCHES:
            calls = {
                name: partial(answers, classifier.backend, setting.encoded, rule, batch)
                for name, rule in all_rules.items()
            }
            timings = interleave(calls, setting.rounds)
            for name, (acts, rule) in acting.items():
                gain = paired_ratio(timings[FULL], timings[name])
                outcomes = answers(classifier.backend, setting.encoded, rule, batch)
                counted, computed = flops_gains(classifier, setting.encoded.lengths, outcomes, rule)
                yield {
                    "race": "savings", "what": name, "acts": acts, "dtype": dtype, "batch": batch,
                    "rounds": setting.rounds, "time_gain": listed(gain), "flops_gain": counted,
                    "computed_gain": computed, "efficiency": [one / counted for one in listed(gain)],
                    "efficiency_computed": [one / computed for one in listed(gain)],
                }  # fmt: skip


# --- AVX2, and what is measured elsewhere --------------------------------------------------------------------------


def without_avx512(setting: Setting) -> Iterator[dict[str, Any]]:
    """Full depth held to AVX2 and not, beside transformers, which takes what it finds: sorted, batch 32."""
    import torch

    torch.set_num_threads(setting.threads)
    encoded, folder = setting.encoded, local_folder(setting.model)
    batches = list(by_length(encoded.lengths, SORTED_BATCH))
    peer = TransformersPeer(folder)
    calls: dict[tuple[str, str], Callable[[], object]] = {
        (peer.name, "float32"): partial(peer.run, peer.prepare(encoded, batches))
    }
    rule = setting.opened("float32").rule_of(FULL)
    for instructions in dict.fromkeys(
        name for name in ("avx2", core().instructions()[0]) if name in core().instructions()
    ):
        for dtype in setting.dtypes:
            backend = load_backend(folder, dtype, setting.threads, instructions)
            packed = [pack_rows(encoded, rows) for rows in batches]
            calls[instructions, dtype] = partial(run_batches, backend, packed, rule, len(encoded))
    named = {" ".join(key): call for key, call in calls.items()}
    timings = interleave(named, setting.rounds)
    for (what, dtype), name in zip(calls, named, strict=True):
        yield {
            "race": "avx2", "what": what, "dtype": dtype, "batch": SORTED_BATCH, "rounds": setting.rounds,
            "texts_per_second_p50": len(encoded) / timings[name].p50,
            "over_torch": listed(paired_ratio(timings[f"{peer.name} float32"], timings[name])),
        }  # fmt: skip


def listed(ratio: Ratio) -> list[float]:
    """Median, least and most of the rounds."""
    return [ratio.median, ratio.low, ratio.high]


def _cold(setting: Setting) -> Iterator[dict[str, Any]]:
    text = str(rows_to_measure(setting.opened("float32"), setting.source).texts[0])
    return cold_starts(setting.model, text, setting.threads, setting.rounds)


RACES: dict[str, Callable[[Setting], Iterator[dict[str, Any]]]] = {
    "never_acting": never_acting,
    "savings": savings,
    "answers": lambda setting: answers_by_dtype(setting.model, setting.source, setting.threads, setting.dtypes),
    "cold_start": _cold,
    "memory": lambda setting: memories(setting.model, setting.threads, 3),
    "fresh": lambda setting: fresh_engines(setting.model, setting.source, setting.threads, setting.encoded, 3),
    "avx2": without_avx512,
    "roofline": lambda setting: roofline(setting.threads, setting.rounds),
}


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.stderr.write(f"engine: {error}\n")
        sys.exit(2)
