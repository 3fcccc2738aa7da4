"""What commands show: frozen records whose `to_dict()` is the JSON, each from a file of the command's name."""

from __future__ import annotations

import dataclasses
import inspect
import json
from importlib import import_module
from pathlib import Path

import pytest

from ziggurat.analyses.demonstration import Demonstration
from ziggurat.analyses.reporting import Part, Report
from ziggurat.bench import BenchResult
from ziggurat.bench.result import BenchRow, Comparison, ComparisonRow, Entered
from ziggurat.calibrate import Calibration
from ziggurat.cli.app import COMMANDS
from ziggurat.cli.report.app import ANALYSES
from ziggurat.encoder.sealing import Sealing
from ziggurat.explain import Explanation
from ziggurat.measure import Ratio
from ziggurat.measure.check import ProfileCheck
from ziggurat.measure.clock import Speed
from ziggurat.measure.evaluation import Evaluation
from ziggurat.measure.information import Information
from ziggurat.serve.predict import Prediction, Predictions
from ziggurat.system import json_values, legible_values
from ziggurat.training.cascade import Cascade
from ziggurat.training.result import Training

RESULTS = (BenchResult, BenchRow, Cascade, Comparison, ComparisonRow, Demonstration, Information, ProfileCheck, Report)
RESULTS += (Calibration, Evaluation, Explanation, Prediction, Predictions, Sealing, Training)


@pytest.mark.parametrize("result", RESULTS, ids=lambda result: result.__name__)
def test_a_result_is_a_frozen_record_with_a_dictionary(result):
    assert dataclasses.is_dataclass(result) and result.__dataclass_params__.frozen
    assert list(inspect.signature(result.to_dict).parameters) == ["self"]


@pytest.mark.parametrize("file", [*COMMANDS.values(), *(f"report.{name}" for name in ANALYSES)])
def test_every_command_has_a_file_with_its_function(file):
    function = getattr(import_module(f"ziggurat.cli.{file}"), file.rpartition(".")[2])
    assert function.__doc__ and "as_json" in inspect.signature(function).parameters


def test_json_values_are_plain_whatever_the_record_holds():
    report = Report("kind", "title", [{"a": 1}], ("note",), (Path("a/b.md"),), (Part("p", "Part", [{"b": (2, 3)}]),))
    parts = [{"name": "p", "heading": "Part", "rows": [{"b": [2, 3]}]}]
    values = report.to_dict()
    assert values["files"] == ["a/b.md"] and values["notes"] == ["note"] and values["parts"] == parts
    assert json.loads(json.dumps(values)) == values == json_values(report)
    assert "parts" not in dataclasses.replace(report, parts=()).to_dict()


def test_a_record_is_made_legible_field_by_field():
    shown = legible_values(Sealing("a\x1b[31mb", ("c\n",), ()))
    assert shown == Sealing("a [31mb", ("c ",), ())


def test_rows_have_the_keys_of_their_parts_and_a_warning():
    speed = Speed(8, 5, 10.0, 9.0, 100.0, 0.8, 0.7, 0.9)
    quality = {"n_accuracy": 8, "accuracy": 0.5, "accuracy_low": 0.2, "accuracy_high": 0.8, "flops_gain": 2.0}
    about = dict(data="d", split="test", model="m", device="cpu", threads=1, batch=8, dtype="int8")
    origin = {"date": "2026-01-01", "commit": "c"}
    tokens = {"tokens_mean": 9.0, "tokens_p99": 12.0}
    parts = dict(speed=speed, tokens=tokens, quality=quality, origin=origin)
    row = BenchRow(system="fast", **about, padding="packed", timed="model", **parts)
    values = row.to_dict()
    assert values["what"] == "fast" and values.keys() >= {*about, *quality, *origin, *tokens, "time_gain"}
    assert row.n_accuracy == 8 and values["warning"] == "2.00x fewer FLOPs but only 0.80x the speed"
    ours = Entered("native", False, "sorted", 1, None, (1.5, 2.5), {"peer": Ratio(2.0, 1.0, 3.0)})
    more = ComparisonRow(row, ours).to_dict()
    assert more["over"] == {"peer": [2.0, 1.0, 3.0]} and more["latency_ms_p95"] == 2.5 and "calibration" not in more
    theirs = dataclasses.replace(ours, peer=True, over=None, latencies=None, calibration="9 rows").to_dict()
    assert theirs.keys() == {"engine", "peer", "order", "streams", "calibration"}
