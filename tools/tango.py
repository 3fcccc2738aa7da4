"""TangoBERT's Tables 2 and 3 in our terms: what cascades save at 99 % and 98 % of the last tier's accuracy.

Starts from the models of `tools/reproduce.py` (the full one, those with exits), puts small models in front of them,
sets each ladder on select rows, and reports test rows. What is finished stays. `make tango` calls it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from reproduce import FULL, Place, recipe_of

from ziggurat.calibrate.choose import choose_points
from ziggurat.calibrate.temperature import fit_temperatures
from ziggurat.data.sources import DEFAULT_COLUMNS
from ziggurat.data.tasks import Dataset, Role
from ziggurat.data.tokenize import Encoded
from ziggurat.encoder.cascade import write_cascade
from ziggurat.engine import rules
from ziggurat.engine.classifier import AdaptiveClassifier
from ziggurat.engine.rules import ExitRule
from ziggurat.engine.runner import Outcomes
from ziggurat.errors import UserError
from ziggurat.jobs.choosing import select_ladders
from ziggurat.jobs.fitting import TrainOptions, read_roles
from ziggurat.jobs.opening import data_and_split, lengths_summary, rows_to_measure, sample
from ziggurat.jobs.training import train_classifier
from ziggurat.report.measure import accuracy_interval, interleave, paired_ratio
from ziggurat.report.rows import append_row, provenance, read_rows_file

ROWS = Path(__file__).resolve().parent.parent / "results" / "cascades.jsonl"
SHARES = (0.99, 0.98)  # of the last tier's accuracy, as in the paper
LAST = ("magic-pyramid", "early-exit", FULL)
TIMED = {1: 64, 32: 256}  # texts, by batch size


@dataclass(frozen=True)
class Rows:
    """What settings are chosen and reported on."""

    select: Dataset
    test: Dataset
    encoded: Encoded  # the test rows


@dataclass(frozen=True)
class Subject:
    """A model and the rule that it is run with."""

    what: str
    model: AdaptiveClassifier
    rule: ExitRule


def students(place: Place, kinds: list[str]) -> dict[str, Path]:
    """Small models with the full model for a teacher, trained unless they are there."""
    found = {}
    for kind in kinds:
        found[kind] = place.model(kind)
        if not found[kind].exists():
            sys.stderr.write(f"{place.name}: {kind}, seed {place.seed}\n")
            train_classifier(place.train, found[kind], kind, None, TrainOptions(), str(place.model(FULL)))
    return found


def cascade(place: Place, firsts: list[Path], last: str) -> Path:
    """These small models in front of a model."""
    name = "+".join([*(first.name.removesuffix(f"-{place.seed}") for first in firsts), last])
    out = place.model(name)
    if not out.exists():
        write_cascade([*firsts, place.model(last)], out)
    return out


def chosen(model: AdaptiveClassifier, select: Dataset, full_right: float) -> dict[float, ExitRule]:
    """For each of SHARES the cheapest rule that keeps it of the full model's accuracy on the select rows."""
    ladders = select_ladders(model, select)
    temperatures = fit_temperatures(ladders[-1].every, select.classes) if len(model.rungs) > 1 else None
    points = choose_points(
        ladders,
        select.labels,
        model.manifest.fingerprint,
        select.digest,
        "entropy",
        {str(share): (1 - share) * full_right for share in SHARES},
        temperatures,
        full_right,
    )
    return {share: model.rule_of(point) for share, point in zip(SHARES, points, strict=True)}


def measured(subject: Subject, full: AdaptiveClassifier, rows: Rows) -> Iterator[dict[str, Any]]:
    """A row for each batch size: accuracy and FLOPs on the test rows, which do not depend on it, and time."""
    model, rule, n = subject.model, subject.rule, len(rows.test)
    outcomes = model.run(rows.encoded, rule)
    right = int((outcomes.predictions == rows.test.classes).sum())
    low, high = accuracy_interval(right, n)
    spent = model.flops(outcomes.kept, rule)[np.arange(n), outcomes.rungs]
    fixed = {
        "what": subject.what, "accuracy": right / n, "accuracy_low": low, "accuracy_high": high, "n_accuracy": n,
        "flops_gain": float(full.full_flops(rows.encoded.lengths).sum() / max(1, spent.sum())),
        "escalated": escalated(model, outcomes),
    }  # fmt: skip
    for batch, count in TIMED.items():
        timed = rows.encoded.take(sample(n, count))
        calls = {
            "it": partial(model.run, timed, rule, batch),
            FULL: partial(full.run, timed, rules.never(len(full.rungs)), batch),
        }
        timings = interleave(calls)
        gain = paired_ratio(timings[FULL], timings["it"])
        yield fixed | {
            "batch": batch, "n_texts": len(timed), **lengths_summary(timed),
            "texts_per_second_p50": len(timed) / timings["it"].p50,
            "texts_per_second_p95": len(timed) / timings["it"].p95,
            "full_texts_per_second_p50": len(timed) / timings[FULL].p50,
            "time_gain": gain.median, "time_gain_low": gain.low, "time_gain_high": gain.high,
        }  # fmt: skip


def escalated(model: AdaptiveClassifier, outcomes: Outcomes) -> float:
    """Share of inputs that the first tiers did not answer; of a model alone 1."""
    first = sum(tier.n_rungs for tier in model.tiers[:-1])
    return float((outcomes.rungs >= first).mean())


def routers(
    small: AdaptiveClassifier,
    full: AdaptiveClassifier,
    rows: Rows,
    right: tuple[np.ndarray, np.ndarray],
    base: dict[str, Any],
) -> Iterator[dict[str, Any]]:
    """What a random and an oracle router would save: tier 1 on all, tier 2 on what they escalate (Tango's accounting).

    From the tiers' own times. They are set on the test rows, and so flattered: they are bounds, and no methods. `right`
    (n) each: which test rows the tiers answer right.
    """
    (first, last), share, batch = right, base["share"], base["batch"]
    timed = rows.encoded.take(sample(len(rows.test), TIMED[batch]))
    timings = interleave(
        {
            "small": lambda: small.run(timed, rules.never(1), batch),
            FULL: lambda: full.run(timed, rules.never(len(full.rungs)), batch),
        }
    )
    ratio = 1 / paired_ratio(timings[FULL], timings["small"]).median  # of tier 1's time to tier 2's
    missing, n = max(0.0, share * last.mean() - first.mean()), len(rows.test)
    speed = len(timed) / timings[FULL].p50
    whole, cheap = (model.full_flops(rows.encoded.lengths).sum() for model in (full, small))
    for what, rate in (("random", missing / max(1e-12, last.mean() - first.mean())), ("oracle", missing)):
        accuracy = float(first.mean()) + missing
        low, high = accuracy_interval(round(accuracy * n), n)
        gain = float(1 / (ratio + rate))
        yield base | {
            "what": what, "accuracy": accuracy, "accuracy_low": min(low, accuracy),
            "accuracy_high": max(high, accuracy), "n_accuracy": n, "escalated": float(rate), "n_texts": len(timed),
            **lengths_summary(timed), "time_gain": gain, "texts_per_second_p50": speed * gain,
            "texts_per_second_p95": speed * gain, "full_texts_per_second_p50": speed,
            "flops_gain": float(whole / (cheap + rate * whole)), "computed": True,
        }  # fmt: skip


def right_of(model: AdaptiveClassifier, rows: Rows) -> np.ndarray:
    """Which test rows a model alone answers right at full depth, (n) bool."""
    found: np.ndarray = model.run(rows.encoded, rules.never(len(model.rungs))).predictions == rows.test.classes
    return found


def rows_of(place: Place, small: list[str]) -> Iterator[dict[str, Any]]:
    """All rows of a data set, as they are measured."""
    full = AdaptiveClassifier.from_pretrained(place.model(FULL))
    roles = read_roles(place.train, recipe_of(FULL, place), DEFAULT_COLUMNS)
    test = rows_to_measure(full, place.test)
    rows = Rows(roles[Role.SELECT], test, full.tokenizer.encode(test.texts, test.pairs))
    [whole] = select_ladders(full, rows.select, (1.0,))
    full_select = float((whole.every[:, -1].argmax(axis=1) == rows.select.classes).mean())
    full_test = right_of(full, rows)
    data, split = data_and_split(place.test)
    base = {
        "data": data, "split": split, "seed": place.seed, "model": "MiniLM-L6-H384", "timed": "model",
        "padding": "packed", "device": full.backend.device, "threads": full.backend.threads,
        "dtype": full.backend.dtype, "full_accuracy": float(full_test.mean()),
    }  # fmt: skip
    smalls = students(place, small)
    alone = {kind: AdaptiveClassifier.from_pretrained(folder) for kind, folder in smalls.items()}
    for kind, model in alone.items():
        for row in measured(Subject(f"{kind} alone", model, rules.never(1)), full, rows):
            yield base | row | {"share": None}
    ladders = {last: place.model(last) for last in LAST if last != FULL and place.model(last).exists()}
    for last in (last for last in LAST if place.model(last).exists()):
        ladders[f"{'+'.join(small)} > {last}"] = cascade(place, list(smalls.values()), last)
    for what, folder in ladders.items():
        model = AdaptiveClassifier.from_pretrained(folder)
        for share, rule in chosen(model, rows.select, full_select).items():
            for row in measured(Subject(what, model, rule), full, rows):
                yield base | row | {"share": share}
    firsts = right_of(alone[small[-1]], rows)
    for share in SHARES:
        for batch in TIMED:
            yield from routers(
                alone[small[-1]], full, rows, (firsts, full_test), base | {"share": share, "batch": batch}
            )


def main(arguments: list[str] | None = None) -> None:
    """Parses the command line; a user's mistake is one line on stderr and exit code 2."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", nargs="+", type=Path, help="folders with train.jsonl and test or validation.jsonl")
    parser.add_argument("--runs", type=Path, default=ROWS.parent.parent / "runs" / "reproduction")
    parser.add_argument("--rows", type=Path, default=ROWS, help="file of result rows to append to")
    parser.add_argument("--small", nargs="+", default=["static"], help="recipes of the first tiers, cheap to dear")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    options = parser.parse_args(arguments)
    try:
        for data in options.data:
            for seed in options.seeds:
                place, origin = Place(data, options.runs, seed), provenance()
                done = read_rows_file(options.rows) if options.rows.exists() else []
                if any((row["data"], row["seed"], row["small"]) == (place.name, seed, options.small) for row in done):
                    continue
                place.refuse_incomplete()
                for row in list(rows_of(place, options.small)):
                    append_row(options.rows, row | {"small": options.small}, origin)
    except UserError as error:
        sys.stderr.write(f"tango: {error}\n")
        sys.exit(2)


if __name__ == "__main__":
    main()
