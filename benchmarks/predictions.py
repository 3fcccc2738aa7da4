"""How well a machine's profile predicts times: `ziggurat profile` on held-out shapes and a data set, as result rows.

python -m benchmarks.predictions MODEL FILE [--dtype int8] [--out results/predictions.jsonl]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ziggurat.errors import UserError
from ziggurat.measure.check import check_profile
from ziggurat.measure.rows import append_record, provenance
from ziggurat.measure.subject import ModelOptions, data_and_split


def main() -> None:
    """Measures, then appends a row for each shape and operating point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("data", help="texts")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--out", type=Path, default=Path("results/predictions.jsonl"))
    options = parser.parse_args()
    origin = provenance()
    result = check_profile(options.model, options.data, options=ModelOptions(dtype=options.dtype)).to_dict()
    conditions = {name: result["conditions"][name] for name in ("engine", "instructions", "dtype", "threads")}
    for error in result["errors"]:
        texts = "/".join(data_and_split(options.data)) if error["what"] == options.data else error["what"]
        row = {**error, "what": "predicted time", "texts": texts, "model": Path(options.model).name, **conditions}
        append_record(options.out, origin | row)
        sys.stdout.write(f"{texts:<36}{error['point']:<10}{error['batch']:>3}{error['error']:>+8.1%}\n")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.stderr.write(f"predictions: {error}\n")
        sys.exit(2)
