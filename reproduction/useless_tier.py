"""Puts a first tier that knows nothing before a model, calibrates both, and shows by the clock what that costs.

    python -m reproduction.useless_tier MODEL DATA_FOLDER [--dtype int8] [--rounds 7] [--texts 2000]

The tier is a static one, trained on the folder's train rows with their labels drawn by lot. A row for each operating
point: whether the planner asks the tier, and the time of the cascade's point beside the model's own, interleaved; and a
last row for a tier that is asked all the same and sends everything on: what leaving it out saves.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ziggurat.calibrate.calibrate import calibrate_classifier
from ziggurat.data.dataset import load
from ziggurat.encoder.cascade import write_cascade
from ziggurat.encoder.folder import read_manifest
from ziggurat.engine.classifier import AdaptiveClassifier
from ziggurat.errors import UserError
from ziggurat.measure.clock import Timing, interleave, paired_ratio
from ziggurat.measure.rows import append_record, provenance
from ziggurat.measure.subject import ModelOptions, data_and_split, rows_to_measure
from ziggurat.policies.rules import ExitRule
from ziggurat.recipe import load_recipe
from ziggurat.train.fit import TrainOptions
from ziggurat.train.train import train_classifier


def main() -> None:
    """Builds the cascade in a folder that goes away, then appends rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path, help="folder with train.jsonl and test or validation.jsonl")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--texts", type=int, default=2000, help="of the test rows, that are timed")
    parser.add_argument("--out", type=Path, default=Path("results/useless_tier.jsonl"))
    options = parser.parse_args()
    origin = provenance()
    with tempfile.TemporaryDirectory() as place:
        for row in rows_of(options, Path(place)):
            sys.stdout.write(json.dumps(row) + "\n")
            append_record(options.out, origin | row)


def rows_of(options: argparse.Namespace, place: Path) -> Iterator[dict[str, Any]]:
    """One row for each point, and one for the tier that is asked all the same."""
    how = ModelOptions(dtype=options.dtype)
    alone, cascade = place / "alone", place / "cascade"
    shutil.copytree(options.model, alone)
    write_cascade([_useless(alone, options.data / "train.jsonl", place), alone], cascade)
    results = [
        calibrate_classifier(str(one), str(options.data / "train.jsonl"), options=how) for one in (alone, cascade)
    ]
    opened = [how.open(str(one)) for one in (alone, cascade)]
    test = next(file for name in ("test", "validation") if (file := options.data / f"{name}.jsonl").exists())
    texts = rows_to_measure(opened[1], str(test)).take(np.arange(options.texts)).texts
    data, split = data_and_split(str(test))
    shared = {
        "what": "useless first tier", "data": data, "split": split, "model": options.model.name, "texts": len(texts),
        "dtype": options.dtype, "engine": opened[0].backend.engine, "threads": opened[0].backend.threads,
        "batch": how.batch_size,
    }  # fmt: skip
    for own, entry in zip(*(result["points"] for result in results), strict=True):
        points = [model.point(entry["name"]) for model in opened]
        yield shared | {
            "point": entry["name"], "tier_asked": points[1].thresholds[0] is not None,
            "note_alone": own["note"], "note": entry["note"],
            "thresholds_alone": points[0].thresholds, "thresholds": points[1].thresholds,
            "scores": [point.score for point in points], "batch_sizes": points[1].batch_sizes,
            "gains_certifying": [point.certificate.gain for point in points],
            **_raced(texts, opened, [entry["name"]] * 2, options.rounds),
        }  # fmt: skip
    last = len(opened[0].rungs) - 1
    rules = [ExitRule("entropy", np.array([*first, *[np.nan] * last])) for first in ([], [-1.0])]
    yield shared | {"point": "full, tier asked", "tier_asked": True, **_raced(texts, opened, rules, options.rounds)}


def _useless(model: Path, train: Path, place: Path) -> Path:
    """A static tier for which the labels say nothing; its rows have the roles that they had for the model."""
    rows, shares = load(str(train)), read_manifest(model).training["recipe"]
    labels = np.random.default_rng(0).permutation(np.array(rows.labels, dtype=object)).tolist()
    lots = place / "lots.jsonl"
    lines = (json.dumps({"text": text, "label": label}) for text, label in zip(rows.texts, labels, strict=True))
    lots.write_text("\n".join(lines))
    shared = {"select": shares["select"], "certify": shares["certify"], "grouped": shares.get("grouped", False)}
    recipe = replace(load_recipe("static"), **shared)
    train_classifier(str(lots), place / "useless", recipe, str(model), TrainOptions(progress=False))
    return place / "useless"


def _raced(
    texts: list[str], models: list[AdaptiveClassifier], rules: Sequence[ExitRule | str], rounds: int
) -> dict[str, Any]:
    """Milliseconds per text from strings, of the model alone and of the cascade, and their ratio within rounds.

    A point by its name runs at the batch sizes that were measured to be its best.
    """
    calls = {
        name: lambda model=model, rule=rule: model.predict(texts, rule)
        for name, model, rule in zip(("alone", "cascade"), models, rules, strict=True)
    }
    timings: dict[str, Timing] = interleave(calls, rounds)
    ratio = paired_ratio(timings["cascade"], timings["alone"])
    return {
        **{f"ms_{name}": 1e3 * one.p50 / len(texts) for name, one in timings.items()},
        "time_ratio": ratio.median, "time_ratio_low": ratio.low, "time_ratio_high": ratio.high,
    }  # fmt: skip


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.stderr.write(f"useless_tier: {error}\n")
        sys.exit(2)
