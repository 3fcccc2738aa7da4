"""Pruning and exits where answers are not classes: similarity scores (stsb) and spans (xquad_en).

    python -m reproduction.tasks .../stsb .../xquad_en [--dtype int8]

Trains a plain model first, then from it one that prunes and has exits (Magic Pyramid's stages). Reported on test rows:
the plain model, pruning alone (LTP: no exit is asked), and the operating points that select rows chose. Finished models
and rows are kept. `make tasks` calls it.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from scripts.shared import RESULTS, RUNS, Row, command, record, stored_rows
from ziggurat.encoder import Manifest, read_manifest, write_point
from ziggurat.errors import UserError
from ziggurat.measure import ModelOptions
from ziggurat.measure.evaluate import evaluate
from ziggurat.recipe import Recipe, load_recipe
from ziggurat.training import TrainOptions, train_model
from ziggurat.types import OperatingPoint

# Epochs, rows per step and learning rate of the plain model, then of the stages that follow it.
PLAIN: Mapping[str, Mapping[str, Any]] = {
    "stsb": {"epochs": 5.0, "learning_rate": 1e-4},
    "xquad_en": {"epochs": 8.0, "batch_size": 16, "learning_rate": 2e-4},
}
LATER_STAGES: Mapping[str, Mapping[str, Any]] = {
    "soft": {"epochs": 2.0, "learning_rate": 5e-5, "regularisation": 0.3},
    "hard": {"epochs": 2.0, "learning_rate": 5e-5},
    "heads": {"epochs": 2.0},
}
METRICS = ("pearson", "spearman", "exact_match", "f1")


def recipes(data: str) -> tuple[Recipe, Recipe]:
    """The plain model's recipe, and that of the model which starts from it."""
    plain, pyramid = load_recipe("full"), load_recipe("magic-pyramid-small")
    plain = replace(plain, stages=tuple(replace(stage, **PLAIN[data]) for stage in plain.stages))
    stages = [replace(stage, **LATER_STAGES[stage.kind]) for stage in pyramid.stages if stage.kind in LATER_STAGES]
    heads = "linear" if data == "xquad_en" else pyramid.head_kind
    return plain, replace(pyramid, stages=tuple(stages), head_kind=heads)


def _file(data: Path, split: str) -> Path:
    for path in (data / f"{split}.jsonl", data / f"{split}.json"):
        if path.exists():
            return path
    raise UserError(f"{data}: no {split}.jsonl or {split}.json; name a folder that has one")


def trained(data: Path, runs: Path) -> tuple[Path, Path]:
    """Folders of both models, trained unless they exist."""
    train = _file(data, "train")
    plain, pyramid = (runs / data.name / name for name in ("full-0", "magic-pyramid-0"))
    for out, recipe, start in zip((plain, pyramid), recipes(data.name), (None, str(plain)), strict=True):
        if not out.exists():
            train_model(str(train), out, recipe, start, TrainOptions())
    return plain, pyramid


def measured(data: Path, plain: Path, pyramid: Path, dtype: str) -> Iterator[Row]:
    """One row for each setting, on the test rows."""
    test = str(_file(data, "test"))
    manifest = read_manifest(pyramid)
    with tempfile.TemporaryDirectory() as folder:
        pruning = Path(folder) / "pruning.json"
        write_point(_pruning_alone(manifest), pruning)
        settings = [("full", plain, "full"), ("ltp", pyramid, str(pruning))]
        settings += [(f"magic-pyramid {point.name}", pyramid, point.name) for point in manifest.operating_points]
        for system, model, point in settings:
            result = evaluate(str(model), test, point, options=ModelOptions(dtype=dtype)).to_dict()
            yield {
                "what": system, "data": data.name, "split": "test", "n": result["n"], "dtype": dtype,
                **{name: result[name] for name in METRICS if name in result},
                "flops_gain": result["flops_ratio"], "time_gain": result["time_ratio"],
                "time_gain_low": result["time_ratio_low"], "time_gain_high": result["time_ratio_high"],
                "mean_layers": result["mean_layers"],
            }  # fmt: skip


def _pruning_alone(manifest: Manifest) -> OperatingPoint:
    [first, *_] = manifest.operating_points
    return OperatingPoint("pruning", first.score, (None,) * len(first.thresholds), manifest.fingerprint)


@command("tasks")
def main(arguments: list[str] | None = None) -> None:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "data", nargs="+", type=Path, help="folders called stsb and xquad_en, with train and test files"
    )
    parser.add_argument("--runs", type=Path, default=RUNS / "reproduction")
    parser.add_argument("--rows", type=Path, default=RESULTS / "tasks.jsonl", help="file of result rows to append to")
    parser.add_argument("--dtype", default="float32")
    options = parser.parse_args(arguments)
    for data in options.data:
        if data.name not in PLAIN:
            raise UserError(f"{data}: no recipe for this name; known: {', '.join(PLAIN)}")
        finished = {(row["data"], row["dtype"]) for row in stored_rows(options.rows)}
        if (data.name, options.dtype) not in finished:
            record(options.rows, measured(data, *trained(data, options.runs), options.dtype))


if __name__ == "__main__":
    main()
