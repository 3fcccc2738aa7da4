"""`demo`: the main job on the built-in data, from nothing to a table and a figure."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ziggurat.analyses.drawing import draw
from ziggurat.bench.bench import bench
from ziggurat.data.builtin import STDLIB_DOCS
from ziggurat.files import whole_file
from ziggurat.measure.subject import ModelOptions
from ziggurat.report.tables import RESULT_COLUMNS, markdown
from ziggurat.system import utf8
from ziggurat.train.fit import TrainOptions
from ziggurat.train.train import train_classifier


def demonstrate(out: Path, device: str = "auto", progress: Callable[[str], None] | None = None) -> dict[str, Any]:
    """Trains on the built-in data into `out`/model (unless it is there), writes `out`/table.md and `out`/figure.png."""
    start = time.perf_counter()
    model = out / "model"
    if not model.exists():
        train_classifier(STDLIB_DOCS, model, "demo", options=TrainOptions(device=device))
    sizes: dict[str, Any] = {"options": ModelOptions(device=device), "timed_texts": 128, "progress": progress}
    rows = bench(str(model), STDLIB_DOCS, (32,), out=out / "rows.jsonl", **sizes)
    with whole_file(out / "table.md") as path:
        path.write_bytes(utf8(markdown(rows, RESULT_COLUMNS)))
    figure, _ = draw(str(model), STDLIB_DOCS, out / "figure", **sizes)
    return {
        "model": str(model),
        "table": str(out / "table.md"),
        "figure": str(figure),
        "n_test": rows[0]["n_accuracy"],
        "rows": rows,
        "seconds": time.perf_counter() - start,
    }
