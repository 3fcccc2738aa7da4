"""Trains and measures every method that the papers compare on one data set, from nothing. `make reproduce` calls it.

Each method starts from the same fine-tuned model, takes its epochs after MP Table 2, is set to the cheapest setting
that stays within one point of that model on rows that trained nothing, and is reported on the test rows. What is
finished here stays. Rows that came with the checkout are of models that are elsewhere; the table shows newer ones.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from reproduction.models import FULL, METHODS, PHRASES, ROOT, ROWS, Place, recipe_of, train_all, trained
from ziggurat.calibrate.choose import Ladder, choose_points, select_ladders
from ziggurat.data.dataset import Dataset, Role
from ziggurat.data.groups import stand_ins
from ziggurat.data.sources import DEFAULT_COLUMNS
from ziggurat.engine import rules
from ziggurat.engine.classifier import AdaptiveClassifier
from ziggurat.errors import UserError
from ziggurat.measure.clock import interleave, paired_ratio
from ziggurat.measure.rows import append_row, provenance, read_rows_file
from ziggurat.measure.subject import data_and_split, lengths_summary, rows_to_measure, sample
from ziggurat.problems.metrics import accuracy_interval
from ziggurat.recipe import Recipe
from ziggurat.train.fit import read_roles

DROP = 0.01  # accuracy on `choosing_rows` that a method may lose
BATCH, TIMED = 32, 256


def choosing_rows(recipe: Recipe, place: Place) -> Dataset:
    """The rows on which settings are chosen: all that trained nothing.

    The recipe's select rows, which have chosen checkpoints too, and those that it keeps for `ziggurat calibrate`, which
    nothing here needs: on the small sets a point is four rows of the former. Where rows are phrases cut from sentences,
    and what is reported is sentences, the longest row of each group that shares text: the sentence.
    """
    whole = replace(recipe, select=recipe.select + recipe.certify, certify=0.0)
    rows = read_roles(place.train, whole, DEFAULT_COLUMNS)[Role.SELECT]
    if place.name not in PHRASES:
        return rows
    return rows.take(np.unique(stand_ins(rows.texts, rows.pairs, rows.hashes)))


class Full:
    """A place's full model, and what it says, which is worked out once for all methods.

    It is this run's own: one that another session trained with the same seed may differ in its last digits.
    """

    def __init__(self, place: Place) -> None:
        self.model = trained(FULL, place)
        self._place = place
        self._ladders: dict[str, Ladder] = {}

    def ladder(self, select: Dataset) -> Ladder:
        """What it says to the rows that choose."""
        if select.digest not in self._ladders:
            [self._ladders[select.digest]] = select_ladders(self.model, select, (1.0,))
        return self._ladders[select.digest]

    @cached_property
    def accuracy(self) -> float:
        """On the test rows."""
        rows = rows_to_measure(self.model, self._place.test)
        encoded = self.model.tokenizer.encode(rows.texts, rows.pairs)
        return float((self.model.run(encoded, rules.never(1), BATCH).predictions == rows.classes).mean())


def chosen_rule(method: AdaptiveClassifier, full: Full, recipe: Recipe, place: Place) -> rules.ExitRule | None:
    """The cheapest setting within DROP of the full model on `choosing_rows`; None if that is the full model itself."""
    select = choosing_rows(recipe, place)
    factors = (1.0,) if method.token_rule is None else None
    own = select_ladders(method, select, factors)
    first = replace(full.ladder(select), pruning=0.0)
    usable = [ladder for ladder in own if ladder.pruning > 0]
    [point] = choose_points(
        [first, *usable],
        select.labels,
        method.manifest.fingerprint,
        select.digest,
        recipe.exit_score,
        {"one point": DROP},
    )
    return None if point.pruning == 0 else method.rule_of(point)


def measure(what: str, method: AdaptiveClassifier, full: Full, rule: rules.ExitRule, place: Place) -> dict[str, Any]:
    """Accuracy, FLOPs and time on the test rows, as a result row."""
    rows = rows_to_measure(method, place.test)
    encoded = method.tokenizer.encode(rows.texts, rows.pairs)
    outcomes = method.run(encoded, rule, BATCH)
    right = int((outcomes.predictions == rows.classes).sum())
    low, high = accuracy_interval(right, len(rows))
    spent = method.spent(encoded, outcomes.kept, rule)[np.arange(len(rows)), outcomes.rungs]
    timed = encoded.take(sample(len(rows), TIMED))
    timings = interleave(
        {"method": lambda: method.run(timed, rule, BATCH), FULL: lambda: full.model.run(timed, rules.never(1), BATCH)}
    )
    data, split = data_and_split(place.test)
    gain = paired_ratio(timings[FULL], timings["method"])
    n = len(timed.tokens)
    model = "MiniLM-L6-H384" if place.encoder is None else Path(place.encoder).name
    return {
        "what": what, "data": data, "split": split, "model": model, "seed": place.seed,
        "device": method.backend.device, "threads": method.backend.threads, "batch": BATCH,
        "dtype": method.backend.dtype, "padding": "packed", "timed": "model", "n_texts": n, **lengths_summary(timed),
        "texts_per_second_p50": n / timings["method"].p50, "texts_per_second_p95": n / timings["method"].p95,
        "time_gain": gain.median, "time_gain_low": gain.low, "time_gain_high": gain.high,
        "flops_gain": float(full.model.whole(encoded).sum() / spent.sum()),
        "gflops_mean": float(spent.mean() / 1e9), "n_accuracy": len(rows), "accuracy": right / len(rows),
        "accuracy_low": low, "accuracy_high": high, "full_accuracy": full.accuracy,
    }  # fmt: skip


def missing_rows(place: Place, methods: list[str]) -> list[str]:
    """The methods of this data set and seed that have no row since their model was made here."""
    done = read_rows_file(place.rows) if place.rows.exists() else []
    have = {
        row["what"]: datetime.fromisoformat(row["date"]).timestamp()
        for row in done
        if (row["data"], row["seed"]) == (place.name, place.seed)
    }

    def measured(method: str) -> bool:
        model = place.model(method)
        return model.exists() and have.get(method, 0) >= int(model.stat().st_mtime)

    return [method for method in methods if not measured(method)]


def reproduce(places: list[Place], methods: list[str], jobs: int = 1) -> None:
    """Rows of all methods for these data sets and seeds: all is trained first, then measured. What is there stays."""
    missing = {place: found for place in places if (found := missing_rows(place, methods))}
    for place in missing:
        place.refuse_incomplete()
    train_all([(method, place) for place, found in missing.items() for method in found], jobs)
    for place, found in missing.items():
        full, origin = Full(place), provenance()
        for method in found:
            model, recipe = trained(method, place), recipe_of(method, place)
            rule = rules.never(1) if method == FULL else chosen_rule(model, full, recipe, place)
            runs = full.model if rule is None else model
            row = measure(method, runs, full, rules.never(1) if rule is None else rule, place)
            score = recipe.exit_score or model.problem.scores[0]
            append_row(place.rows, row | {"fell_back": rule is None, "exit_score": score}, origin)


def main(arguments: list[str] | None = None) -> None:
    """Parses the command line; a user's mistake is one line on stderr and exit code 2."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", nargs="+", type=Path, help="folders with train.jsonl and test or validation.jsonl")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "reproduction")
    parser.add_argument("--rows", type=Path, default=ROWS, help="file of result rows to append to")
    parser.add_argument("--model", help="encoder to start from (default: the packaged MiniLM)")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--jobs", type=int, default=1, help="models that are trained at a time, sharing the cores")
    options = parser.parse_args(arguments)
    try:
        if options.jobs < 1:
            raise UserError(f"--jobs {options.jobs}: must be at least 1")
        places = [
            Place(data, options.runs, seed, options.model, options.rows)
            for data in options.data
            for seed in options.seeds
        ]
        reproduce(places, options.methods, options.jobs)
    except UserError as error:
        sys.stderr.write(f"reproduce: {error}\n")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.stderr.write("reproduce: stopped; the same command goes on from the last checkpoints\n")
        sys.exit(130)


if __name__ == "__main__":
    main()
