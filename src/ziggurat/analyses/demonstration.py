"""A demonstration on the built-in data: from nothing to a trained model, a table and a figure."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ziggurat.analyses.drawing import draw
from ziggurat.bench.bench import bench
from ziggurat.bench.result import BenchRow
from ziggurat.data.builtin import STDLIB_DOCS
from ziggurat.files import whole_file
from ziggurat.measure.subject import ModelOptions
from ziggurat.report.tables import RESULT_COLUMNS, markdown
from ziggurat.system import Progress, json_values, utf8
from ziggurat.training.fit import TrainOptions
from ziggurat.training.train import train_model


@dataclass(frozen=True)
class Demonstration:
    """What a demonstration wrote and measured."""

    model: Path  # folder
    table: Path  # Markdown
    figure: Path  # PNG
    n_test: int  # texts that accuracy is of
    rows: tuple[BenchRow, ...]
    seconds: float  # that all of it took

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return dict(json_values(self)) | {"rows": [row.to_dict() for row in self.rows]}


def demonstrate(out: Path, device: str = "auto", progress: Progress = None) -> Demonstration:
    """Trains on the built-in data into `out`/model (unless it is there), writes `out`/table.md and `out`/figure.png."""
    start = time.perf_counter()
    model, table = out / "model", out / "table.md"
    if not model.exists():
        train_model(STDLIB_DOCS, model, "demo", options=TrainOptions(device=device))
    sizes: dict[str, Any] = {"options": ModelOptions(device=device), "timed_texts": 128, "progress": progress}
    rows = bench(str(model), STDLIB_DOCS, (32,), out=out / "rows.jsonl", **sizes).rows
    with whole_file(table) as path:
        path.write_bytes(utf8(markdown([row.to_dict() for row in rows], RESULT_COLUMNS)))
    figure, _ = draw(str(model), STDLIB_DOCS, out / "figure", **sizes)
    return Demonstration(model, table, figure, rows[0].n_accuracy, rows, time.perf_counter() - start)
