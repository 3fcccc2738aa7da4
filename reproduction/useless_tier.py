"""What a first tier that knows nothing costs: calibrated in front of a model, timed beside the model alone.

    python -m reproduction.useless_tier MODEL DATA_FOLDER [--dtype int8] [--rounds 7] [--texts 2000]

The tier is a static one, trained on the folder's train rows with permuted labels. A row for each operating point:
whether calibration asks the tier, and the time of the cascade's point beside the model's own, interleaved. A last row
is for a rule that asks the tier and sends all inputs on: what leaving the tier out saves.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from scripts.shared import RESULTS, Row, command, record, reported_file
from ziggurat.calibrate import calibrate_model
from ziggurat.data import load
from ziggurat.encoder import read_manifest, write_cascade
from ziggurat.engine import OpenedModel
from ziggurat.measure import ModelOptions, data_and_split, interleave, paired_ratio, rows_to_measure
from ziggurat.policies import ExitRule
from ziggurat.recipe import load_recipe
from ziggurat.training import TrainOptions, train_model


@command("useless_tier")
def main(arguments: list[str] | None = None) -> None:
    """Builds the cascade in a temporary folder, then appends rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path, help="folder with train.jsonl and test or validation.jsonl")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--texts", type=int, default=2000, help="test rows that are timed")
    parser.add_argument("--out", type=Path, default=RESULTS / "useless_tier.jsonl", help="file of rows to append to")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        record(options.out, measured(options, Path(scratch)))


def measured(options: argparse.Namespace, scratch: Path) -> Iterator[Row]:
    """One row for each point, and one for a rule that asks the tier for nothing."""
    model_options = ModelOptions(dtype=options.dtype)
    test, train = reported_file(options.data), options.data / "train.jsonl"
    alone, cascade = scratch / "alone", scratch / "cascade"
    shutil.copytree(options.model, alone)
    write_cascade([_useless(alone, train, scratch), alone], cascade)
    folders = [str(alone), str(cascade)]
    results = [calibrate_model(folder, str(train), options=model_options).to_dict() for folder in folders]
    models = [model_options.open(folder) for folder in folders]
    rows = rows_to_measure(models[1], str(test))
    texts = rows.take(np.arange(min(options.texts, len(rows)))).texts
    data, split = data_and_split(str(test))
    fields = {
        "what": "useless first tier", "data": data, "split": split, "model": options.model.name, "texts": len(texts),
        "dtype": options.dtype, "engine": models[0].backend.engine, "threads": models[0].backend.threads,
        "batch": model_options.batch_size,
    }  # fmt: skip
    for entry_alone, entry in zip(*(result["points"] for result in results), strict=True):
        points = [model.point(entry["name"]) for model in models]
        certificates = [point.certificate for point in points if point.certificate is not None]
        yield fields | {
            "point": entry["name"], "tier_asked": points[1].thresholds[0] is not None,
            "note_alone": entry_alone["note"], "note": entry["note"],
            "thresholds_alone": points[0].thresholds, "thresholds": points[1].thresholds,
            "scores": [point.score for point in points], "batch_sizes": points[1].batch_sizes,
            "gains_certifying": [certificate.gain for certificate in certificates],
            **_timed(texts, models, [entry["name"]] * 2, options.rounds),
        }  # fmt: skip
    last = len(models[0].rungs) - 1
    rules = [ExitRule("entropy", np.array([*first, *[np.nan] * last])) for first in ([], [-1.0])]
    yield fields | {"point": "full, tier asked", "tier_asked": True, **_timed(texts, models, rules, options.rounds)}


def _useless(model: Path, train: Path, scratch: Path) -> Path:
    """A static tier trained with permuted labels; rows keep the roles that they had for the model."""
    rows, shares = load(str(train)), read_manifest(model).training["recipe"]
    labels = np.random.default_rng(0).permutation(np.array(rows.labels, dtype=object)).tolist()
    permuted = scratch / "permuted.jsonl"
    lines = (json.dumps({"text": text, "label": label}) for text, label in zip(rows.texts, labels, strict=True))
    permuted.write_text("\n".join(lines))
    roles = {"select": shares["select"], "certify": shares["certify"], "grouped": shares.get("grouped", False)}
    recipe = replace(load_recipe("static"), **roles)
    train_model(str(permuted), scratch / "useless", recipe, str(model), TrainOptions(progress=False))
    return scratch / "useless"


def _timed(texts: list[str], models: Sequence[OpenedModel], rules: Sequence[ExitRule | str], rounds: int) -> Row:
    """Milliseconds per text from strings, of the model alone and of the cascade, and their ratio within rounds.

    A point given by its name runs at the batch sizes that calibration measured as its best.
    """
    calls = {
        name: partial(model.answer, texts, rule)
        for name, model, rule in zip(("alone", "cascade"), models, rules, strict=True)
    }
    timings = interleave(calls, rounds)
    ratio = paired_ratio(timings["cascade"], timings["alone"])
    return {
        **{f"ms_{name}": 1e3 * timing.p50 / len(texts) for name, timing in timings.items()},
        "time_ratio": ratio.median, "time_ratio_low": ratio.low, "time_ratio_high": ratio.high,
    }  # fmt: skip


if __name__ == "__main__":
    main()
