"""What certified points promise and keep: calibrated on a data folder's train rows, reported on its test rows.

    python -m reproduction.certified_points MODEL DATA_FOLDER [--dtype int8] [--html FILE]

An oracle stands beside them, which sees the test rows: it takes the fastest setting that keeps the target there, by
predicted time; among all settings that `calibrate` tries, and among those with one threshold for all exits. A row for
each target: the promise, the loss on test rows, and the share of the oracle's speed-up that the certified point keeps.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from scripts.shared import RESULTS, Row, command, record, reported_file
from ziggurat.calibrate import PredictedTime, Promise, Risk, calibrate_model, costs_of, risk_by_name, run_all_rungs
from ziggurat.calibrate.points import searched
from ziggurat.calibrate.rows import RungRuns
from ziggurat.measure import ModelOptions, data_and_split, rows_to_measure


@command("certified_points")
def main(arguments: list[str] | None = None) -> None:
    """Calibrates, then appends rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("data", type=Path, help="folder with train.jsonl and test or validation.jsonl")
    parser.add_argument("--criterion", help="what may be lost (default: as `ziggurat calibrate`)")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--html", type=Path, help="write the calibration's page there")
    parser.add_argument("--out", type=Path, default=RESULTS / "certified.jsonl", help="file of rows to append to")
    options = parser.parse_args(arguments)
    record(options.out, measured(options, str(reported_file(options.data))))


def measured(options: argparse.Namespace, test: str) -> Iterator[Row]:
    """One row for each target."""
    promise, model_options = Promise(criterion=options.criterion), ModelOptions(dtype=options.dtype)
    train = str(options.data / "train.jsonl")
    result = calibrate_model(options.model, train, promise, options=model_options, html=options.html).to_dict()
    classifier, batch_size = model_options.open(options.model), model_options.batch_size
    problem, risk = classifier.problem, risk_by_name(promise.criterion, classifier.problem)
    rows = run_all_rungs(classifier, rows_to_measure(classifier, test), risk, None, batch_size, False)
    costs = costs_of(classifier, rows.encoded, batch_size)
    time = PredictedTime(classifier, costs, rows.encoded, rows.runs, batch_size)
    full_seconds = time.of_full_depth(len(classifier.rungs))
    settings = [setting for path in searched(classifier, rows, time, promise) for setting in path]
    data, split = data_and_split(test)
    for entry in result["points"]:
        target, point = entry["target"], classifier.point(entry["name"])
        certificate, rule = point.certificate, classifier.rule_of(point)
        assert certificate is not None  # `calibrate_model` has just written it
        outcomes = classifier.run(rows.encoded, rule, batch_size)
        predictions = problem.predictions(outcomes.readings)
        keeping = [setting for setting in settings if setting.loss <= target]
        oracle = min((setting.seconds for setting in keeping), default=full_seconds)
        dials = (setting.seconds for setting in keeping if _has_one_threshold(setting.thresholds))
        one_threshold = min(dials, default=full_seconds)
        strength = point.pruning if point.pruning in rows.runs else 1.0  # without pruning there is only one
        seconds = min(full_seconds, time.of(outcomes.rungs, rule.active, strength))
        yield {
            "what": "certified point", "data": data, "split": split, "model": Path(options.model).name,
            "point": entry["name"], "criterion": risk.name, "target": target, "confidence": promise.confidence,
            "rows_certify": result["rows"]["certify"], "rows_order": result["rows"]["order"],
            "rows_test": len(rows.rows), "settings_certified": entry["certified"],
            "loss_certifying": certificate.estimate, "loss_test": _mean_loss(rows, predictions, risk),
            "accuracy_test": 1 - float(problem.loss(predictions, rows.rows.truth).mean()),
            "gain_measured": certificate.gain, "gain_low": certificate.gain_low,
            "gain_high": certificate.gain_high, "gain_predicted_test": full_seconds / seconds,
            "gain_oracle_test": full_seconds / oracle, "share_of_oracle": oracle / seconds,
            "gain_oracle_threshold_test": full_seconds / one_threshold,
            "share_of_oracle_threshold": one_threshold / seconds,
            "threads": classifier.backend.threads, "batch": batch_size, "dtype": options.dtype,
            "engine": classifier.backend.engine, "note": entry["note"],
        }  # fmt: skip


def _has_one_threshold(thresholds: np.ndarray) -> bool:
    """Whether all asked exits have the same threshold: the dial of the papers."""
    return len(np.unique(thresholds[~np.isnan(thresholds)])) <= 1


def _mean_loss(rows: RungRuns, predictions: Any, risk: Risk) -> float:
    full = rows.runs.get(0.0, next(iter(rows.runs.values()))).predictions()[:, -1]
    return float(risk.of(predictions, full, rows.rows.truth).mean())


if __name__ == "__main__":
    main()
