"""Certifies a model on a data folder's train rows and reports on its test rows, beside what an oracle would choose.

    python -m benchmarks.certified_points MODEL DATA_FOLDER [--out results/certified.jsonl] [--html FILE]

The oracle sees the test rows: it takes the fastest setting that keeps the target there, by predicted time; of all that
`calibrate` tries, or of those with one threshold for all exits. A row for each target: what was promised, what the test
rows say, and which share of the oracle's speed-up the promise leaves.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ziggurat.calibrate.calibrate import calibrate_classifier
from ziggurat.calibrate.points import Promise, searched
from ziggurat.calibrate.risks import Risk, risk_by_name
from ziggurat.calibrate.rows import Seen, seen
from ziggurat.calibrate.times import PredictedTime, costs_of
from ziggurat.errors import UserError
from ziggurat.measure.rows import append_record, provenance
from ziggurat.measure.subject import ModelOptions, data_and_split, rows_to_measure


def main() -> None:
    """Calibrates, then appends rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("data", type=Path, help="folder with train.jsonl and test or validation.jsonl")
    parser.add_argument("--criterion")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--html", type=Path)
    parser.add_argument("--out", type=Path, default=Path("results/certified.jsonl"))
    options = parser.parse_args()
    test = next(file for name in ("test", "validation") if (file := options.data / f"{name}.jsonl").exists())
    origin = provenance()
    for row in rows_of(options, str(test)):
        line = json.dumps(origin | row)
        sys.stdout.write(line[line.index('"what"') :] + "\n")
        append_record(options.out, origin | row)


def rows_of(options: argparse.Namespace, test: str) -> Iterator[dict[str, Any]]:
    """One row for each target."""
    promise, how = Promise(criterion=options.criterion), ModelOptions(dtype=options.dtype)
    result = calibrate_classifier(
        options.model, str(options.data / "train.jsonl"), promise, options=how, html=options.html
    )
    classifier = how.open(options.model)
    output, risk = classifier.problem, risk_by_name(promise.criterion, classifier.problem)
    rows = seen(classifier, rows_to_measure(classifier, test), risk, None, how.batch_size, False)
    costs = costs_of(classifier, rows.encoded, how.batch_size)
    time = PredictedTime(classifier, costs, rows.encoded, rows.runs, how.batch_size)
    full, every = time.of_full_depth(len(classifier.rungs)), searched(classifier, rows, time, promise)
    data, split = data_and_split(test)
    for entry in result["points"]:
        target, point = entry["target"], classifier.point(entry["name"])
        rule = classifier.rule_of(point)
        outcomes = classifier.run(rows.encoded, rule, how.batch_size)
        predictions = output.predictions(outcomes.logits)
        lost = _lost(rows, predictions, risk)
        fine = [one for path in every for one in path if one.loss <= target]
        oracle = min((one.seconds for one in fine), default=full)
        one_threshold = min((one.seconds for one in fine if _is_shared(one.thresholds)), default=full)
        strength = point.pruning if point.pruning in rows.runs else 1.0  # of a model that does not prune there is one
        own = min(full, time.of(outcomes.rungs, rule.asked, strength))
        yield {
            "what": "certified point", "data": data, "split": split, "model": Path(options.model).name,
            "point": entry["name"], "criterion": risk.name, "target": target, "confidence": promise.confidence,
            "rows_certify": result["rows"]["certify"], "rows_order": result["rows"]["order"],
            "rows_test": len(rows.rows), "settings_certified": entry["certified"],
            "loss_certifying": point.certificate.estimate, "loss_test": lost,
            "accuracy_test": 1 - float(output.loss(predictions, rows.rows.truth).mean()),
            "gain_measured": point.certificate.gain, "gain_low": point.certificate.gain_low,
            "gain_high": point.certificate.gain_high, "gain_predicted_test": full / own,
            "gain_oracle_test": full / oracle, "share_of_oracle": oracle / own,
            "gain_oracle_threshold_test": full / one_threshold, "share_of_oracle_threshold": one_threshold / own,
            "threads": classifier.backend.threads, "batch": how.batch_size, "dtype": options.dtype,
            "engine": classifier.backend.engine, "note": entry["note"],
        }  # fmt: skip


def _is_shared(thresholds: np.ndarray) -> bool:
    """Whether all asked exits have the same threshold: the dial of the papers."""
    return len(np.unique(thresholds[~np.isnan(thresholds)])) <= 1


def _lost(rows: Seen, predictions: Any, risk: Risk) -> float:
    full = rows.runs.get(0.0, next(iter(rows.runs.values()))).predictions()[:, -1]
    return float(risk.of(predictions, full, rows.rows.truth).mean())


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.stderr.write(f"certified_points: {error}\n")
        sys.exit(2)
