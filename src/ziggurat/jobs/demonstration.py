"""`demo`: the main job on the built-in data, from nothing to a table and a figure."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from ziggurat.data.stdlib_docs import STDLIB_DOCS
from ziggurat.files import whole_file
from ziggurat.jobs.benching import bench
from ziggurat.jobs.drawing import draw
from ziggurat.jobs.opening import ModelOptions, rows_to_measure
from ziggurat.jobs.training import TrainOptions, train
from ziggurat.report.tables import RESULT_COLUMNS, markdown

_POINTS = ("exact", "balanced", "fast")


def demonstrate(out: Path, device: str = "auto") -> dict[str, Any]:
    """Trains on the built-in data into `out`/model (unless it is there), writes `out`/table.md and `out`/figure.png."""
    start = time.perf_counter()
    model = out / "model"
    if not model.exists():
        train(STDLIB_DOCS, model, "demo", options=TrainOptions(device=device))
    options = ModelOptions(device=device)
    rows = bench(str(model), STDLIB_DOCS, (32,), _POINTS, options=options, timed_texts=256, out=out / "rows.jsonl")
    with whole_file(out / "table.md") as path:
        path.write_text(markdown(rows, RESULT_COLUMNS), "utf-8")
    classifier = options.open(str(model))
    test = rows_to_measure(classifier, STDLIB_DOCS)
    figure, _ = draw(classifier, test, out / "figure")
    return {
        "model": str(model),
        "table": str(out / "table.md"),
        "figure": str(figure),
        "n_test": len(test),
        "n_classes": len(test.label_names),
        "rows": rows,
        "seconds": time.perf_counter() - start,
    }
