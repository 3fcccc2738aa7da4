"""Pruning and exits where answers are no classes: similarity scores (stsb) and spans (xquad_en). `make tasks` calls it.

A plain model first; from it one that prunes and has exits (Magic Pyramid's stages), and for questions another whose
tokens leave by what layers 2 to 4 guess that later ones attend to (after ToP), the encoder left as it is. Reported on
test rows: the plain model, pruning alone (no exit is asked), and the operating points that select rows chose. What is
finished stays.
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
from ziggurat.jobs.evaluation import evaluate
from ziggurat.jobs.fitting import TrainOptions
from ziggurat.jobs.opening import ModelOptions
from ziggurat.jobs.training import train_classifier
from ziggurat.recipe import Recipe, StageConfig, load_recipe
from ziggurat.report.rows import append_record, provenance, read_rows_file
from ziggurat.types import OperatingPoint

ROOT = Path(__file__).resolve().parent.parent
# Epochs, rows per step and learning rate of the plain model; then of the stages behind it.
PLAIN: Mapping[str, Mapping[str, Any]] = {
    "stsb": {"epochs": 5.0, "learning_rate": 1e-4},
    "xquad_en": {"epochs": 8.0, "batch_size": 16, "learning_rate": 2e-4},
}
BEHIND: Mapping[str, Mapping[str, Any]] = {
    "soft": {"epochs": 2.0, "learning_rate": 5e-5},
    "hard": {"epochs": 2.0, "learning_rate": 5e-5},
    "heads": {"epochs": 2.0},
}
GUESSED: Mapping[str, Mapping[str, Any]] = {
    "guess": {"epochs": 12.0, "learning_rate": 1e-2, "batch_size": 16},
    "heads": {"epochs": 2.0},
}
SHARES = (None, 0.8, 0.6, 0.48, None, None)  # of the tokens that stay where they are guessed at; by select rows
FULL, PYRAMID, TOP = "full-0", "magic-pyramid-0", "top-0"  # folders
MEASURES = ("pearson", "spearman", "exact_match", "f1")


def recipes(data: str) -> dict[str, Recipe]:
    """By folder: of the plain model, and of those that start from it."""
    plain, small, top = load_recipe("full"), load_recipe("magic-pyramid-small"), load_recipe("top")
    plain = replace(plain, stages=tuple(replace(stage, **PLAIN[data]) for stage in plain.stages))
    heads = "linear" if data == "xquad_en" else small.head_kind
    small = replace(small, head_kind=heads, pruning=replace(small.pruning, vocabulary=None))
    found = {FULL: plain, PYRAMID: replace(small, stages=_behind(small, BEHIND))}
    if data == "xquad_en":
        pruning = replace(top.pruning, kind="share", per_layer=SHARES)
        stages = (*_behind(top, GUESSED), *_behind(small, GUESSED))
        found[TOP] = replace(small, stages=stages, pruning=pruning)
    return found


def _behind(recipe: Recipe, changes: Mapping[str, Mapping[str, Any]]) -> tuple[StageConfig, ...]:
    return tuple(replace(stage, **changes[stage.kind]) for stage in recipe.stages if stage.kind in changes)


def _file(data: Path, split: str) -> Path:
    for path in (data / f"{split}.jsonl", data / f"{split}.json"):
        if path.exists():
            return path
    raise UserError(f"{data}: no {split}.jsonl or {split}.json; name a folder that has one")


def trained(data: Path, runs: Path) -> dict[str, Path]:
    """Folders of all models, trained unless they are there."""
    train = _file(data, "train")
    folders = {name: runs / data.name / name for name in recipes(data.name)}
    for name, recipe in recipes(data.name).items():
        if not folders[name].exists():
            start = None if name == FULL else str(folders[FULL])
            train_classifier(str(train), folders[name], recipe, start, TrainOptions())
    return folders


def measured(data: Path, folders: Mapping[str, Path], dtype: str) -> Iterator[dict[str, Any]]:
    """One row for each setting, on the test rows."""
    test = str(_file(data, "test"))
    yield _row("full", data, evaluate(str(folders[FULL]), test, "full", options=ModelOptions(dtype=dtype)), dtype)
    for folder, alone in ((PYRAMID, "ltp"), (TOP, "top")):
        if folder not in folders:
            continue
        manifest, model = read_manifest(folders[folder]), str(folders[folder])
        with tempfile.TemporaryDirectory() as scratch:
            pruning = Path(scratch) / "pruning.json"
            write_point(_pruning_alone(manifest), pruning)
            with_exits = "magic-pyramid" if folder == PYRAMID else "magic-pyramid by top"
            settings = [(alone, str(pruning))]
            settings += [(f"{with_exits} {point.name}", point.name) for point in manifest.operating_points]
            for what, point in settings:
                yield _row(what, data, evaluate(model, test, point, options=ModelOptions(dtype=dtype)), dtype)


def _row(what: str, data: Path, found: Mapping[str, Any], dtype: str) -> dict[str, Any]:
    return {
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
            for row in measured(data, trained(data, options.runs), options.dtype):
                append_record(options.rows, origin | row)
    except UserError as error:
        sys.stderr.write(f"tasks: {error}\n")
        sys.exit(2)


if __name__ == "__main__":
    main()
