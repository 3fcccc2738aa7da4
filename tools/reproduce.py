"""Trains and measures every method that the papers compare on one data set, from nothing. `make reproduce` calls it.

Each method starts from the same fine-tuned model, takes its epochs after MP Table 2, is set to the cheapest setting
that stays within one point of that model on rows that trained nothing, and is reported on the test rows. What is
finished stays.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ziggurat.calibrate.choose import choose_points
from ziggurat.data.sources import DEFAULT_COLUMNS
from ziggurat.data.tasks import Dataset, Role
from ziggurat.engine import rules
from ziggurat.engine.classifier import AdaptiveClassifier
from ziggurat.errors import UserError
from ziggurat.jobs.choosing import select_ladders
from ziggurat.jobs.fitting import TrainOptions, read_roles
from ziggurat.jobs.opening import data_and_split, lengths_summary, rows_to_measure, sample
from ziggurat.jobs.training import train_classifier
from ziggurat.recipe import Recipe, load_recipe
from ziggurat.report.measure import accuracy_interval, interleave, paired_ratio
from ziggurat.report.rows import append_row, provenance, read_rows_file

ROOT = Path(__file__).resolve().parent.parent
ROWS = ROOT / "results" / "reproduction.jsonl"
FULL = "full"
METHODS = (
    FULL,
    "ltp",
    "manual-thresholds",
    "spatten",
    "lat",
    "top",
    "stop-words",
    "early-exit",
    "s3-entropy",
    "s3-count",
    "deebert",
    "pabee",
    "magic-pyramid",
    "magic-pyramid-shares",
)
LARGE = {"regular": 3, "guess": 1, "soft": 1, "hard": 3, "heads": 2, "lengthdrop": 2, "joint": 3}
SMALL = {"regular": 10, "guess": 5, "soft": 10, "hard": 5, "heads": 5, "lengthdrop": 5, "joint": 10}
# 54,000 rows of sst2: half an epoch of soft steps is twice those of ag_news, and thresholds go further with each.
LARGER = {"regular": 2, "guess": 1, "soft": 0.5, "hard": 1, "heads": 1, "lengthdrop": 1, "joint": 2}
EPOCHS = {
    "ag_news": LARGE,
    "yelp_polarity": LARGE | {"heads": 5},  # 4,484 rows: few for exit heads, whose epochs are cheap
    "sst2": LARGER,
    "mrpc": SMALL,
    "rte": SMALL,
}
SHORT = ("sst2", "mrpc", "rte")  # phrases and pairs, whose every word counts: no stop words are learned
DROP = 0.01  # accuracy on `choosing_rows` that a method may lose
BATCH, TIMED = 32, 256


@dataclass(frozen=True)
class Place:
    """One data set, the encoder that everything starts from, and where models and rows go."""

    data: Path
    runs: Path
    seed: int
    encoder: str | None = None  # None = the packaged MiniLM
    rows: Path = ROWS

    @property
    def name(self) -> str:
        """What rows and folders call the data set."""
        return self.data.resolve().name

    @property
    def train(self) -> str:
        """The file that models are trained, and settings chosen, on."""
        return str(self.data / "train.jsonl")

    @property
    def test(self) -> str:
        """The file that is reported."""
        files = [self.data / f"{name}.jsonl" for name in ("test", "validation")]
        found = [str(file) for file in files if file.exists()]
        if not found:
            raise UserError(f"{self.data}: no test.jsonl or validation.jsonl; name a folder that has one")
        return found[0]

    def refuse_incomplete(self) -> None:
        """UserError where rows are missing: before hours of training, not after them."""
        if not Path(self.train).exists():
            raise UserError(f"{self.data}: no train.jsonl; name a folder that has one")
        _ = self.test

    def model(self, method: str) -> Path:
        """The folder of a method's model."""
        return self.runs / self.name / f"{method}-{self.seed}"


def recipe_of(method: str, place: Place) -> Recipe:
    """The shipped recipe with the data set's epochs; without `regular` where a method starts from the full model."""
    epochs = EPOCHS.get(place.name, LARGE)
    recipe = load_recipe("magic-pyramid-small" if method == "magic-pyramid" and place.name in SHORT else method)
    stages = tuple(
        replace(stage, epochs=float(epochs[stage.kind]))
        for stage in recipe.stages
        if method == FULL or stage.kind != "regular"
    )
    return replace(recipe, stages=stages, max_length=128, seed=place.seed)


def trained(method: str, place: Place) -> AdaptiveClassifier:
    """The method's model, trained unless it is there."""
    out = place.model(method)
    if not out.exists():
        start = place.encoder if method in (FULL, "pabee") else str(place.model(FULL))
        sys.stderr.write(f"{place.name}: {method}, seed {place.seed}\n")
        train_classifier(place.train, out, recipe_of(method, place), start, TrainOptions())
    return AdaptiveClassifier.from_pretrained(out)


def choosing_rows(recipe: Recipe, place: Place) -> Dataset:
    """The rows on which settings are chosen: all that trained nothing.

    The recipe's select rows, which have chosen checkpoints too, and those that it keeps for `ziggurat calibrate`, which
    nothing here needs: on the small sets a point is four rows of the former.
    """
    whole = replace(recipe, select=recipe.select + recipe.certify, certify=0.0)
    return read_roles(place.train, whole, DEFAULT_COLUMNS)[Role.SELECT]


def chosen_rule(
    method: AdaptiveClassifier, full: AdaptiveClassifier, recipe: Recipe, place: Place
) -> rules.ExitRule | None:
    """The cheapest setting within DROP of the full model on `choosing_rows`; None if that is the full model itself."""
    select = choosing_rows(recipe, place)
    [whole] = select_ladders(full, select, (1.0,))
    factors = (1.0,) if method.token_rule is None else None
    own = select_ladders(method, select, factors)
    first = replace(whole, pruning=0.0)
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


def measure(
    what: str, method: AdaptiveClassifier, full: AdaptiveClassifier, rule: rules.ExitRule, place: Place
) -> dict[str, Any]:
    """Accuracy, FLOPs and time on the test rows, as a result row."""
    rows = rows_to_measure(method, place.test)
    encoded = method.tokenizer.encode(rows.texts, rows.pairs)
    outcomes = method.run(encoded, rule, BATCH)
    right = int((outcomes.predictions == rows.classes).sum())
    # Of this run's own full model: one that another session trained with the same seed may differ in its last digits.
    whole = full.run(encoded, rules.never(1), BATCH).predictions == rows.classes
    low, high = accuracy_interval(right, len(rows))
    spent = method.flops(outcomes.kept, rule)[np.arange(len(rows)), outcomes.rungs]
    timed = encoded.take(sample(len(rows), TIMED))
    timings = interleave(
        {"method": lambda: method.run(timed, rule, BATCH), FULL: lambda: full.run(timed, rules.never(1), BATCH)}
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
        "flops_gain": float(full.full_flops(encoded.lengths).sum() / spent.sum()),
        "gflops_mean": float(spent.mean() / 1e9), "n_accuracy": len(rows), "accuracy": right / len(rows),
        "accuracy_low": low, "accuracy_high": high, "full_accuracy": float(whole.mean()),
    }  # fmt: skip


def reproduce(place: Place, methods: list[str]) -> None:
    """Rows of all methods that have none yet for this data set and seed."""
    done = read_rows_file(place.rows) if place.rows.exists() else []
    have = {row["what"] for row in done if (row["data"], row["seed"]) == (place.name, place.seed)}
    missing = [method for method in methods if method not in have]
    if not missing:
        return
    place.refuse_incomplete()
    full, origin = trained(FULL, place), provenance()
    for method in missing:
        model, recipe = trained(method, place), recipe_of(method, place)
        rule = rules.never(1) if method == FULL else chosen_rule(model, full, recipe, place)
        runs = full if rule is None else model
        row = measure(method, runs, full, rules.never(1) if rule is None else rule, place)
        score = recipe.exit_score or model.output.scores[0]
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
    options = parser.parse_args(arguments)
    try:
        for data in options.data:
            for seed in options.seeds:
                reproduce(Place(data, options.runs, seed, options.model, options.rows), options.methods)
    except UserError as error:
        sys.stderr.write(f"reproduce: {error}\n")
        sys.exit(2)


if __name__ == "__main__":
    main()
