"""Trains and measures all methods that the papers compare, from nothing. `make reproduce` calls it.

    python -m reproduction.reproduce DATA_FOLDER [DATA_FOLDER ...] [--methods full ltp ...] [--seeds 0 1] [--jobs 2]

Each method starts from the same fine-tuned model and trains for the epochs of MP Table 2. Its setting is the cheapest
that stays within one point of that model on rows that trained nothing; test rows are reported. Finished models and rows
are kept. Rows that came with the checkout belong to models of another machine: they do not count as finished.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from datetime import datetime
from functools import cached_property
from pathlib import Path

import numpy as np

from reproduction.models import FULL, METHODS, PHRASES, ROWS, Experiment, recipe_of, train_all, trained
from scripts.shared import RUNS, Row, command, stored_rows
from ziggurat.calibrate import Ladder, choose_points, select_ladders
from ziggurat.data import DEFAULT_COLUMNS, Dataset, Role, stand_ins
from ziggurat.engine import OpenedModel
from ziggurat.errors import UserError
from ziggurat.measure import (
    append_row,
    data_and_split,
    interleave,
    lengths_summary,
    paired_ratio,
    provenance,
    rows_to_measure,
    sample,
)
from ziggurat.policies import ExitRule
from ziggurat.problems import accuracy_interval
from ziggurat.recipe import Recipe
from ziggurat.training import read_roles

DROP = 0.01  # accuracy on `choosing_rows` that a method may lose
BATCH, TIMED = 32, 256


def choosing_rows(recipe: Recipe, experiment: Experiment) -> Dataset:
    """The rows on which settings are chosen: all that trained nothing.

    The recipe's select rows, which have chosen checkpoints too, and the rows that it keeps for `ziggurat calibrate`,
    which is not used here: on the small sets a point is four of the select rows. Where train rows are phrases cut from
    sentences and sentences are reported, only the longest row of each group with shared text: the sentence.
    """
    all_select = replace(recipe, select=recipe.select + recipe.certify, certify=0.0)
    rows = read_roles(experiment.train, all_select, DEFAULT_COLUMNS)[Role.SELECT]
    if experiment.name not in PHRASES:
        return rows
    return rows.take(np.unique(stand_ins(rows.texts, rows.pairs, rows.hashes)))


class Full:
    """An experiment's full model and its outputs, computed once for all methods.

    It is the model of this run's folder: another training with the same seed may differ in its last digits.
    """

    def __init__(self, experiment: Experiment) -> None:
        self.model = trained(FULL, experiment)
        self._experiment = experiment
        self._ladders: dict[str, Ladder] = {}

    def ladder(self, select: Dataset) -> Ladder:
        """Its outputs for the rows on which settings are chosen."""
        if select.digest not in self._ladders:
            [self._ladders[select.digest]] = select_ladders(self.model, select, (1.0,))
        return self._ladders[select.digest]

    @cached_property
    def accuracy(self) -> float:
        """Accuracy on the test rows."""
        rows = rows_to_measure(self.model, self._experiment.test)
        encoded = self.model.tokenizer.encode(rows.texts, rows.pairs)
        return float((self.model.run(encoded, ExitRule.full_depth(1), BATCH).predictions == rows.classes).mean())


def chosen_rule(method: OpenedModel, full: Full, recipe: Recipe, experiment: Experiment) -> ExitRule | None:
    """The cheapest setting within DROP of the full model on `choosing_rows`; None if that is the full model itself."""
    select = choosing_rows(recipe, experiment)
    factors = (1.0,) if method.token_rule is None else None
    ladders = select_ladders(method, select, factors)
    first = replace(full.ladder(select), pruning=0.0)
    usable = [ladder for ladder in ladders if ladder.pruning > 0]
    [point] = choose_points(
        [first, *usable],
        select.labels,
        method.manifest.fingerprint,
        select.digest,
        recipe.exit_score,
        {"one point": DROP},
    )
    return None if point.pruning == 0 else method.rule_of(point)


def measure(system: str, method: OpenedModel, full: Full, rule: ExitRule, experiment: Experiment) -> Row:
    """Accuracy, FLOPs and time on the test rows, as a result row."""
    rows = rows_to_measure(method, experiment.test)
    encoded = method.tokenizer.encode(rows.texts, rows.pairs)
    outcomes = method.run(encoded, rule, BATCH)
    right = int((outcomes.predictions == rows.classes).sum())
    low, high = accuracy_interval(right, len(rows))
    flops = method.flops(encoded, outcomes.token_counts, rule)[np.arange(len(rows)), outcomes.rungs]
    timed = encoded.take(sample(len(rows), TIMED))
    timings = interleave(
        {
            "method": lambda: method.run(timed, rule, BATCH),
            FULL: lambda: full.model.run(timed, ExitRule.full_depth(1), BATCH),
        }
    )
    data, split = data_and_split(experiment.test)
    gain = paired_ratio(timings[FULL], timings["method"])
    n = len(timed.tokens)
    model = "MiniLM-L6-H384" if experiment.encoder is None else Path(experiment.encoder).name
    return {
        "what": system, "data": data, "split": split, "model": model, "seed": experiment.seed,
        "device": method.backend.device, "threads": method.backend.threads, "batch": BATCH,
        "dtype": method.backend.dtype, "padding": "packed", "timed": "model", "n_texts": n, **lengths_summary(timed),
        "texts_per_second_p50": n / timings["method"].p50, "texts_per_second_p95": n / timings["method"].p95,
        "time_gain": gain.median, "time_gain_low": gain.low, "time_gain_high": gain.high,
        "flops_gain": float(full.model.full_flops(encoded).sum() / flops.sum()),
        "gflops_mean": float(flops.mean() / 1e9), "n_accuracy": len(rows), "accuracy": right / len(rows),
        "accuracy_low": low, "accuracy_high": high, "full_accuracy": full.accuracy,
    }  # fmt: skip


def missing_rows(experiment: Experiment, methods: list[str]) -> list[str]:
    """The methods of this data set and seed that have no row since their model was made here."""
    last = {
        row["what"]: datetime.fromisoformat(row["date"]).timestamp()
        for row in stored_rows(experiment.rows)
        if (row["data"], row["seed"]) == (experiment.name, experiment.seed)
    }

    def measured(method: str) -> bool:
        model = experiment.model(method)
        return model.exists() and last.get(method, 0) >= int(model.stat().st_mtime)

    return [method for method in methods if not measured(method)]


def reproduce(experiments: list[Experiment], methods: list[str], jobs: int = 1) -> None:
    """Appends rows of all methods for these experiments: trains all models first, then measures; skips what exists."""
    missing = {experiment: names for experiment in experiments if (names := missing_rows(experiment, methods))}
    for experiment in missing:
        experiment.check_complete()
    train_all([(method, experiment) for experiment, names in missing.items() for method in names], jobs)
    for experiment, names in missing.items():
        full, origin = Full(experiment), provenance()
        for method in names:
            model, recipe = trained(method, experiment), recipe_of(method, experiment)
            rule = ExitRule.full_depth(1) if method == FULL else chosen_rule(model, full, recipe, experiment)
            subject = full.model if rule is None else model
            row = measure(method, subject, full, ExitRule.full_depth(1) if rule is None else rule, experiment)
            score = recipe.exit_score or model.problem.scores[0]
            append_row(experiment.rows, row | {"fell_back": rule is None, "exit_score": score}, origin)


@command("reproduce")
def main(arguments: list[str] | None = None) -> None:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+", type=Path, help="folders with train.jsonl and test or validation.jsonl")
    parser.add_argument("--runs", type=Path, default=RUNS / "reproduction")
    parser.add_argument("--rows", type=Path, default=ROWS, help="file of result rows to append to")
    parser.add_argument("--model", help="encoder to start from (default: the packaged MiniLM)")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--jobs", type=int, default=1, help="models that train at the same time and share the cores")
    options = parser.parse_args(arguments)
    if options.jobs < 1:
        raise UserError(f"--jobs {options.jobs}: must be at least 1")
    experiments = [
        Experiment(data, options.runs, seed, options.model, options.rows)
        for data in options.data
        for seed in options.seeds
    ]
    try:
        reproduce(experiments, options.methods, options.jobs)
    except KeyboardInterrupt:
        sys.stderr.write("reproduce: stopped; the same command goes on from the last checkpoints\n")
        sys.exit(130)


if __name__ == "__main__":
    main()
