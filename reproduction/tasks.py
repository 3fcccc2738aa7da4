"""Pruning and exits where answers are no classes: similarity scores (stsb) and spans (xquad_en). `make tasks` calls it.

A plain model first; from it one that prunes and has exits (Magic Pyramid's stages). Reported on test rows: the plain
model, pruning alone (LTP: no exit is asked), and the operating points that select rows chose. What is finished stays.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ziggurat.encoder.folder import Manifest, read_manifest, write_point
from ziggurat.errors import UserError
from ziggurat.measure.evaluate import evaluate
from ziggurat.measure.rows import append_record, provenance, read_rows_file
from ziggurat.measure.subject import ModelOptions
from ziggurat.recipe import Recipe, load_recipe
from ziggurat.train.fit import TrainOptions
from ziggurat.train.train import train_classifier
from ziggurat.types import OperatingPoint

ROOT = Path(__file__).resolve().parent.parent
# Epochs, rows per step and learning rate of the plain model; then of the stages behind it.
PLAIN: Mapping[str, Mapping[str, Any]] = {
    "stsb": {"epochs": 5.0, "learning_rate": 1e-4},
    "xquad_en": {"epochs": 8.0, "batch_size": 16, "learning_rate": 2e-4},
}
BEHIND: Mapping[str, Mapping[str, Any]] = {
    "soft": {"epochs": 2.0, "learning_rate": 5e-5, "regularisation": 0.3},
    "hard": {"epochs": 2.0, "learning_rate": 5e-5},
    "heads": {"epochs": 2.0},
}
MEASURES = ("pearson", "spearman", "exact_match", "f1")


def recipes(data: str) -> tuple[Recipe, Recipe]:
    """Of the plain model, and of the one that starts from it."""
    plain, small = load_recipe("full"), load_recipe("magic-pyramid-small")
    plain = replace(plain, stages=tuple(replace(stage, **PLAIN[data]) for stage in plain.stages))
    stages = tuple(replace(stage, **BEHIND[stage.kind]) for stage in small.stages if stage.kind in BEHIND)
    heads = "linear" if data == "xquad_en" else small.head_kind
    return plain, replace(small, stages=stages, head_kind=heads)


def _file(data: Path, split: str) -> Path:
    for path in (data / f"{split}.jsonl", data / f"{split}.json"):
        if path.exists():
            return path
    raise UserError(f"{data}: no {split}.jsonl or {split}.json; name a folder that has one")


def trained(data: Path, runs: Path) -> tuple[Path, Path]:
    """Folders of both models, trained unless they are there."""
    train = _file(data, "train")
    plain, pyramid = (runs / data.name / name for name in ("full-0", "magic-pyramid-0"))
    for out, recipe, start in zip((plain, pyramid), recipes(data.name), (None, str(plain)), strict=True):
        if not out.exists():
            train_classifier(str(train), out, recipe, start, TrainOptions())
    return plain, pyramid


def measured(data: Path, plain: Path, pyramid: Path, dtype: str) -> Iterator[dict[str, Any]]:
    """One row for each setting, on the test rows."""
    test = str(_file(data, "test"))
    manifest = read_manifest(pyramid)
    with tempfile.TemporaryDirectory() as folder:
        alone = Path(folder) / "pruning.json"
        write_point(_pruning_alone(manifest), alone)
        settings = [("full", plain, "full"), ("ltp", pyramid, str(alone))]
        settings += [(f"magic-pyramid {point.name}", pyramid, point.name) for point in manifest.operating_points]
        for what, model, point in settings:
            found = evaluate(str(model), test, point, options=ModelOptions(dtype=dtype))
            yield {
                "what": what, "data": data.name, "split": "test", "n": found["n"], "dtype": dtype,
                **{name: found[name] for name in MEASURES if name in found},
                "flops_gain": found["flops_ratio"], "time_gain": found["time_ratio"],
                "time_gain_low": found["time_ratio_low"], "time_gain_high": found["time_ratio_high"],
                "mean_layers": found["mean_layers"],
            }  # fmt: skip


def _pruning_alone(manifest: Manifest) -> OperatingPoint:
    [first, *_] = manifest.operating_points
    return OperatingPoint("pruning", first.score, (None,) * len(first.thresholds), manifest.fingerprint)


def main() -> None:
    """Parses the command line; a user's mistake is one line on stderr and exit code 2."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "data", nargs="+", type=Path, help="folders called stsb and xquad_en, with train and test files"
    )
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "reproduction")
    parser.add_argument("--rows", type=Path, default=ROOT / "results" / "tasks.jsonl")
    parser.add_argument("--dtype", default="float32")
    options = parser.parse_args()
    try:
        for data in options.data:
            if data.name not in PLAIN:
                raise UserError(f"{data}: no recipe for this name; known: {', '.join(PLAIN)}")
            done = read_rows_file(options.rows) if options.rows.exists() else []
            if any((row["data"], row["dtype"]) == (data.name, options.dtype) for row in done):
                continue
            origin = provenance()
            for row in measured(data, *trained(data, options.runs), options.dtype):
                append_record(options.rows, origin | row)
    except UserError as error:
        sys.stderr.write(f"tasks: {error}\n")
        sys.exit(2)


if __name__ == "__main__":
    main()
