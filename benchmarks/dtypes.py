"""What a narrower type costs in answers: accuracy, and how often an input gets the same answer at the same rung."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ziggurat.engine.opened import FULL
from ziggurat.measure.subject import ModelOptions, rows_to_measure

EXACT = "float32"


def answers_by_dtype(model: str, source: str, threads: int, dtypes: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """A row for each type and operating point, over all rows of the source, beside the same point in float32."""
    opened = {dtype: ModelOptions("cpu", dtype, threads, backend="native").open(model) for dtype in (EXACT, *dtypes)}
    exact = opened[EXACT]
    rows = rows_to_measure(exact, source)
    encoded = exact.tokenizer.encode(rows.texts, rows.pairs)
    for point in (FULL, *(point.name for point in exact.manifest.operating_points)):
        expected = exact.run(encoded, exact.rule_of(point))
        for dtype in (name for name in dtypes if name != EXACT):
            found = opened[dtype].run(encoded, opened[dtype].rule_of(point))
            right, before = ((outcomes.predictions == rows.classes).mean() for outcomes in (found, expected))
            same = found.predictions == expected.predictions
            yield {
                "race": "answers", "what": point, "dtype": dtype, "n": len(rows), "accuracy": float(right),
                "points_lost": 100 * float(before - right), "same_answer": 100 * float(same.mean()),
                "same_decision": 100 * float((same & (found.rungs == expected.rungs)).mean()),
            }  # fmt: skip
