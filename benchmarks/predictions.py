"""How well a machine's profile predicts times: `ziggurat profile` on held-out shapes and a data set.

python -m benchmarks.predictions MODEL FILE [--dtype int8] [--out results/predictions.jsonl]
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from scripts.shared import RESULTS, Row, command, record
from ziggurat.measure import ModelOptions, check_profile, data_and_split


@command("predictions")
def main(arguments: list[str] | None = None) -> None:
    """Measures, then appends a row for each shape and operating point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("data", help="a file of texts")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--out", type=Path, default=RESULTS / "predictions.jsonl", help="file of rows to append to")
    options = parser.parse_args(arguments)
    record(options.out, measured(options))


def measured(options: argparse.Namespace) -> Iterator[Row]:
    """One row for each shape or file, operating point and batch size."""
    result = check_profile(options.model, options.data, options=ModelOptions(dtype=options.dtype)).to_dict()
    conditions = {name: result["conditions"][name] for name in ("engine", "instructions", "dtype", "threads")}
    for error in result["errors"]:
        texts = "/".join(data_and_split(options.data)) if error["what"] == options.data else error["what"]
        yield {**error, "what": "predicted time", "texts": texts, "model": Path(options.model).name, **conditions}


if __name__ == "__main__":
    main()
