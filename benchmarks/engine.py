"""The engine's own speed: what idle policies cost, what saved FLOPs save, first answers, memory, kernels.

    python -m benchmarks.engine MODEL DATA [--races never_acting savings ...] [--rounds 7]

MODEL is a folder with exits; if it prunes, operating points are measured with and without its pruning. Rows are
appended race by race. `make bench` calls it; `ziggurat compare` measures beside other engines.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.cold_start import cold_starts, memories
from benchmarks.first_pass import first_passes
from benchmarks.kernels import roofline
from benchmarks.setting import Setting, answers, median_and_range
from benchmarks.time_vs_flops import savings
from scripts.shared import RESULTS, Row, command, record
from ziggurat.bench import TransformersPeer
from ziggurat.data import by_length
from ziggurat.data.tokenizer import pack_rows
from ziggurat.encoder import local_folder
from ziggurat.engine import OpenedModel, run_batches
from ziggurat.engine.backends.native import load_backend
from ziggurat.engine.opened import FULL
from ziggurat.errors import UserError
from ziggurat.measure import data_and_split, interleave, lengths_summary, paired_ratio, rows_to_measure
from ziggurat.native import instructions
from ziggurat.policies import ExitRule, TokenRule, above, exit_score
from ziggurat.system import n_cores

IDLE_BATCHES, SORTED_BATCH = (1, 8, 32), 32
TINY = 1e-30  # a threshold on received attention that every token is above


@command("engine")
def main(arguments: list[str] | None = None) -> None:
    """Appends a row for each system of each race."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("data", help="a file of texts with labels, or a data set's name")
    parser.add_argument("--races", nargs="+", default=list(RACES), choices=list(RACES))
    parser.add_argument("--threads", type=int, default=n_cores())
    parser.add_argument("--texts", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=RESULTS / "engine.jsonl", help="file of rows to append to")
    options = parser.parse_args(arguments)
    setting = Setting(options.model, options.data, options.threads, options.texts, options.rounds)
    if len(setting.opened("float32").tiers) > 1:
        raise UserError(f"{options.model}: a cascade; name the folder of its last tier")
    data, split = data_and_split(setting.source)
    fields = {"model": Path(setting.model).name, "data": data, "split": split, "threads": setting.threads}
    fields |= lengths_summary(setting.encoded)
    for name in options.races:
        record(options.out, [fields | row for row in RACES[name](setting)])


# --- policies that never act ---------------------------------------------------------------------------------------


def idle_rules(classifier: OpenedModel) -> dict[str, ExitRule]:
    """Full depth, and rules under which no token is dropped and no input exits."""
    n_layers, n_rungs = classifier.backend.n_layers, len(classifier.rungs)
    full, all_layers = classifier.rule_of(FULL), np.full(n_layers, TINY)
    before_last = np.where(np.arange(n_layers) == n_layers - 1, np.nan, all_layers)
    score = classifier.problem.scores[0]
    idle = {
        FULL: full,
        "pruning": replace(full, tokens=TokenRule(above, all_layers)),
        "pruning before the last layer": replace(full, tokens=TokenRule(above, before_last)),
    }
    if n_rungs > 1:
        idle["exits"] = ExitRule.uniform(score, -exit_score(score).exit_all, n_rungs)
    return idle


def never_acting(setting: Setting) -> Iterator[Row]:
    """Time over full depth's of rules that score every token and drop none, or ask every exit while no input exits."""
    for dtype in setting.dtypes:
        classifier = setting.opened(dtype)
        idle = idle_rules(classifier)
        expected = answers(classifier.backend, setting.encoded, idle[FULL], 32)
        for name, rule in idle.items():
            outcomes = answers(classifier.backend, setting.encoded, rule, 32)
            if not np.array_equal(outcomes.token_counts, expected.token_counts):
                raise SystemExit(f"{name}: a token was dropped or an input exited, so this measures no idle policy")
        for batch in IDLE_BATCHES:
            calls = {
                name: partial(answers, classifier.backend, setting.encoded, rule, batch) for name, rule in idle.items()
            }
            timings = interleave(calls, setting.rounds)
            for name in idle:
                yield {
                    "race": "never acting", "what": name, "dtype": dtype, "batch": batch, "rounds": setting.rounds,
                    "over_full": median_and_range(paired_ratio(timings[name], timings[FULL])),
                }  # fmt: skip


# --- data types and instruction sets -------------------------------------------------------------------------------


def answers_by_dtype(setting: Setting) -> Iterator[Row]:
    """Accuracy and equal decisions of each type and operating point, over all rows, beside float32."""
    opened = {dtype: setting.opened(dtype) for dtype in ("float32", *setting.dtypes)}
    exact = opened.pop("float32")
    rows = rows_to_measure(exact, setting.source)
    encoded = exact.tokenizer.encode(rows.texts, rows.pairs)
    for point in (FULL, *(point.name for point in exact.manifest.operating_points)):
        expected = exact.run(encoded, exact.rule_of(point))
        expected_accuracy = (expected.predictions == rows.classes).mean()
        for dtype, classifier in opened.items():
            outcomes = classifier.run(encoded, classifier.rule_of(point))
            accuracy = (outcomes.predictions == rows.classes).mean()
            same = outcomes.predictions == expected.predictions
            yield {
                "race": "answers", "what": point, "dtype": dtype, "n": len(rows), "accuracy": float(accuracy),
                "points_lost": 100 * float(expected_accuracy - accuracy), "same_answer": 100 * float(same.mean()),
                "same_decision": 100 * float((same & (outcomes.rungs == expected.rungs)).mean()),
            }  # fmt: skip


def instruction_sets(setting: Setting) -> Iterator[Row]:
    """Full depth with AVX2 and with the best set, beside transformers, which takes what it finds: sorted, batch 32."""
    import torch

    torch.set_num_threads(setting.threads)
    encoded, folder = setting.encoded, local_folder(setting.model)
    batches = list(by_length(encoded.lengths, SORTED_BATCH))
    peer = TransformersPeer(folder)
    calls: dict[tuple[str, str], Callable[[], object]] = {
        (peer.name, "float32"): partial(peer.run, peer.prepare(encoded, batches))
    }
    rule = setting.opened("float32").rule_of(FULL)
    available = instructions()
    for name in dict.fromkeys(name for name in ("avx2", available[0]) if name in available):
        for dtype in setting.dtypes:
            backend = load_backend(folder, dtype, setting.threads, name)
            packed = [pack_rows(encoded, rows) for rows in batches]
            calls[name, dtype] = partial(run_batches, backend, packed, rule, len(encoded))
    timings = interleave({" ".join(key): call for key, call in calls.items()}, setting.rounds)
    peer_timing = timings[f"{peer.name} float32"]
    for system, dtype in calls:
        timing = timings[f"{system} {dtype}"]
        yield {
            "race": "avx2", "what": system, "dtype": dtype, "batch": SORTED_BATCH, "rounds": setting.rounds,
            "texts_per_second_p50": len(encoded) / timing.p50,
            "over_torch": median_and_range(paired_ratio(peer_timing, timing)),
        }  # fmt: skip


def _cold(setting: Setting) -> Iterator[Row]:
    text = str(rows_to_measure(setting.opened("float32"), setting.source).texts[0])
    return cold_starts(setting.model, text, setting.threads, setting.rounds)


RACES: Mapping[str, Callable[[Setting], Iterator[Row]]] = {
    "never_acting": never_acting,
    "savings": savings,
    "answers": answers_by_dtype,
    "cold_start": _cold,
    "memory": lambda setting: memories(setting.model, setting.threads, 3),
    "first_pass": lambda setting: first_passes(setting, 3),
    "avx2": instruction_sets,
    "roofline": lambda setting: roofline(setting.threads, setting.rounds),
}


if __name__ == "__main__":
    main()
