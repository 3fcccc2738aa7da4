"""How long `calibrate` takes beside running the model: 200,000 rows, 12 rungs, 3 exit scores, 3 targets.

    python -m benchmarks.calibration [--rows 200000] [--rungs 12]

Rows are invented (a model that knows more with depth). Prints one JSON object: seconds, peak memory, speed-ups.
"""

from __future__ import annotations

import argparse
import json
import sys
import time

import numpy as np

from ziggurat.calibrate import RISKS, TARGETS, Evidence, StoredRun, families, path_of, sequences, setting_of
from ziggurat.calibrate.candidates import Candidate
from ziggurat.calibrate.certify import certify
from ziggurat.calibrate.rows import MOST_ORDERING
from ziggurat.measure import peak_memory_mib

CLASSES = 4


def evidence(rows: int, rungs: int, seed: int) -> Evidence:
    """Stored outputs of an invented model, and their losses of accuracy."""
    draws = np.random.default_rng(seed)
    labels = draws.integers(0, CLASSES, rows)
    skill = (np.linspace(0.2, 2.0, rungs)[None] * draws.gamma(4, 0.25, (rows, 1))).astype(np.float32)
    logits = draws.standard_normal((rows, rungs, CLASSES), dtype=np.float32).cumsum(axis=1) / np.sqrt(rungs)
    logits[np.arange(rows), :, labels] += skill
    predictions, risk = logits.argmax(axis=2), RISKS["accuracy"]
    losses = np.stack([risk.of(predictions[:, rung], predictions[:, -1], labels) for rung in range(rungs)], axis=1)
    return Evidence({1.0: StoredRun(logits, np.full((rows, rungs + 1), 50))}, {1.0: losses}, risk)


def main(arguments: list[str] | None = None) -> None:
    """Times search and tests."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--rungs", type=int, default=12)
    options = parser.parse_args(arguments)
    n_order = min(MOST_ORDERING, options.rows // 3)
    search_rows, certify_rows = (evidence(n, options.rungs, n) for n in (n_order, options.rows - n_order))
    depth = np.arange(1, options.rungs + 1)

    def seconds(candidate: Candidate) -> float:
        heads = np.cumsum(candidate.active[:-1])
        return float((depth + np.append(0.1 * heads, heads[-1] * 0.1))[candidate.rungs].mean())

    start = time.perf_counter()
    made = families(search_rows.runs[1.0], search_rows.losses[1.0], 1 - depth / options.rungs)
    paths = [
        path_of((setting_of(candidate, search_rows.losses[1.0], seconds) for candidate in family), options.rungs)
        for family in made
    ]
    searched = time.perf_counter()
    speed = {}
    tested = sequences(paths, TARGETS.values(), 0.95, options.rows - n_order)
    for name, target in TARGETS.items():
        result = certify(tested[target], certify_rows, target, 0.95)
        speed[name] = None if result.fastest is None else options.rungs / result.fastest.seconds
    row = {
        "rows": options.rows, "rungs": options.rungs, "settings": sum(map(len, paths)),
        "search_seconds": searched - start, "test_seconds": time.perf_counter() - searched,
        "peak_mib": peak_memory_mib(), "speed": speed,
    }  # fmt: skip
    sys.stdout.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
