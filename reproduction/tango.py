"""TangoBERT's Tables 2 and 3 in our terms: what cascades save at 99 % and 98 % of the last tier's accuracy.

Starts from the models of `reproduction/reproduce.py` (the full one, those with exits), puts small models in front of
them, sets each ladder on select rows, and reports test rows. What is finished stays. `make tango` calls it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from reproduction.models import FULL, Place, recipe_of
from reproduction.reproduce import choosing_rows
from reproduction.tango_rows import TIMED, Rows, Subject, measured, right_of, routers
from ziggurat.calibrate.choose import choose_points, fit_temperatures, select_ladders
from ziggurat.data.dataset import Dataset
from ziggurat.encoder.cascade import write_cascade
from ziggurat.engine.classifier import AdaptiveClassifier
from ziggurat.errors import UserError
from ziggurat.measure.rows import append_row, provenance, read_rows_file
from ziggurat.measure.subject import data_and_split, rows_to_measure
from ziggurat.policies.rules import ExitRule
from ziggurat.train.fit import TrainOptions
from ziggurat.train.train import train_classifier

ROWS = Path(__file__).resolve().parent.parent / "results" / "cascades.jsonl"
SHARES = (0.99, 0.98)  # of the last tier's accuracy, as in the paper
LAST = ("magic-pyramid", "magic-pyramid-shares", "magic-pyramid-joint", "early-exit", FULL)
STUDENTS = ("distil", "pkd", "theseus", "tinybert", "truncated")  # each alone, beside the cascades


def students(place: Place, kinds: Sequence[str]) -> dict[str, Path]:
    """Models that the full one teaches, small or of fewer layers, trained unless they are there."""
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


def read_rows(place: Place, full: AdaptiveClassifier) -> Rows:
    """The rows of a data set, in the full model's tokens."""
    test = rows_to_measure(full, place.test)
    return Rows(choosing_rows(recipe_of(FULL, place), place), test, full.tokenizer.encode(test.texts, test.pairs))


def common(place: Place, full: AdaptiveClassifier, full_test: np.ndarray) -> dict[str, Any]:
    """What all rows of a data set say; `full_test` (n) bool: which test rows the full model answers right."""
    data, split = data_and_split(place.test)
    return {
        "data": data, "split": split, "seed": place.seed, "model": "MiniLM-L6-H384", "timed": "model",
        "padding": "packed", "device": full.backend.device, "threads": full.backend.threads,
        "dtype": full.backend.dtype, "full_accuracy": float(full_test.mean()),
    }  # fmt: skip


def rows_of_students(place: Place, kinds: list[str]) -> Iterator[dict[str, Any]]:
    """A row for each distilled model alone and batch size, no tier in front of it or behind."""
    full = AdaptiveClassifier.from_pretrained(place.model(FULL))
    rows = read_rows(place, full)
    base = common(place, full, right_of(full, rows))
    for kind, folder in students(place, kinds).items():
        model = AdaptiveClassifier.from_pretrained(folder)
        for row in measured(Subject(f"{kind} alone", model, ExitRule.full_depth(len(model.rungs))), full, rows):
            yield base | row | {"share": None, "small": []}


def rows_of(place: Place, small: list[str]) -> Iterator[dict[str, Any]]:
    """All rows of a data set's cascades, as they are measured."""
    full = AdaptiveClassifier.from_pretrained(place.model(FULL))
    rows = read_rows(place, full)
    [whole] = select_ladders(full, rows.select, (1.0,))
    full_select = float((whole.every[:, -1].argmax(axis=1) == rows.select.classes).mean())
    full_test = right_of(full, rows)
    base = common(place, full, full_test) | {"small": small}
    smalls = students(place, small)
    alone = {kind: AdaptiveClassifier.from_pretrained(folder) for kind, folder in smalls.items()}
    for kind, model in alone.items():
        for row in measured(Subject(f"{kind} alone", model, ExitRule.full_depth(1)), full, rows):
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


def missing_rows(place: Place, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Rows that the file lacks since the models were made: of the cascades, which come together, and of each student.

    UserError where there is no model yet.
    """
    done = read_rows_file(options.rows) if options.rows.exists() else []
    made = [place.model(last).stat().st_mtime for last in LAST if place.model(last).exists()]
    if not made:
        raise UserError(f"{place.model(FULL)}: not there; `make reproduce` trains it")

    def after(row: dict[str, Any]) -> bool:
        return datetime.fromisoformat(row["date"]).timestamp() >= int(max(made))

    mine = [row for row in done if (row["data"], row["seed"]) == (place.name, place.seed) and after(row)]
    if not any(row["small"] == options.small for row in mine):
        yield from list(rows_of(place, options.small))
    have = {row["what"] for row in mine}
    yield from rows_of_students(place, [kind for kind in options.students if f"{kind} alone" not in have])


def main(arguments: list[str] | None = None) -> None:
    """Parses the command line; a user's mistake is one line on stderr and exit code 2."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", nargs="+", type=Path, help="folders with train.jsonl and test or validation.jsonl")
    parser.add_argument("--runs", type=Path, default=ROWS.parent.parent / "runs" / "reproduction")
    parser.add_argument("--rows", type=Path, default=ROWS, help="file of result rows to append to")
    parser.add_argument("--small", nargs="+", default=["static"], help="recipes of the first tiers, cheap to dear")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--students", nargs="*", default=list(STUDENTS), help="recipes of distilled models, each alone")
    options = parser.parse_args(arguments)
    try:
        for data in options.data:
            for seed in options.seeds:
                place, origin = Place(data, options.runs, seed), provenance()
                place.refuse_incomplete()
                for row in missing_rows(place, options):
                    append_row(options.rows, row, origin)
    except UserError as error:
        sys.stderr.write(f"tango: {error}\n")
        sys.exit(2)


if __name__ == "__main__":
    main()
