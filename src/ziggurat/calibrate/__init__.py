"""Calibrates operating points: searches settings, certifies their losses and monitors them. No torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ziggurat.lazy import lazily

if TYPE_CHECKING:
    from ziggurat.calibrate.bounds import fixed_sequence, p_value, p_values
    from ziggurat.calibrate.calibrate import calibrate_model
    from ziggurat.calibrate.candidates import StoredRun, families
    from ziggurat.calibrate.certify import Evidence
    from ziggurat.calibrate.choose import TARGETS, Ladder, choose_points, fit_temperatures, select_ladders
    from ziggurat.calibrate.grouping import groups_of, per_draw
    from ziggurat.calibrate.monitor import DriftTest, State, Watch
    from ziggurat.calibrate.page.data import deciles
    from ziggurat.calibrate.paths import Setting, frontier, net_loss, path_of, sequences, setting_of
    from ziggurat.calibrate.points import Promise, rule_of
    from ziggurat.calibrate.result import Calibration
    from ziggurat.calibrate.risks import RISKS, Risk, difference_risk, risk_by_name, risks_of
    from ziggurat.calibrate.rows import calibration_rows, run_all_rungs
    from ziggurat.calibrate.times import PredictedTime, ProfiledCost, SmallCost, costs_of
    from ziggurat.calibrate.watching import Monitor, write_state

_HOMES = {
    "Calibration": "ziggurat.calibrate.result",
    "DriftTest": "ziggurat.calibrate.monitor",
    "Evidence": "ziggurat.calibrate.certify",
    "Ladder": "ziggurat.calibrate.choose",
    "Monitor": "ziggurat.calibrate.watching",
    "PredictedTime": "ziggurat.calibrate.times",
    "ProfiledCost": "ziggurat.calibrate.times",
    "Promise": "ziggurat.calibrate.points",
    "RISKS": "ziggurat.calibrate.risks",
    "Risk": "ziggurat.calibrate.risks",
    "Setting": "ziggurat.calibrate.paths",
    "SmallCost": "ziggurat.calibrate.times",
    "State": "ziggurat.calibrate.monitor",
    "StoredRun": "ziggurat.calibrate.candidates",
    "TARGETS": "ziggurat.calibrate.choose",
    "Watch": "ziggurat.calibrate.monitor",
    "calibrate_model": "ziggurat.calibrate.calibrate",
    "calibration_rows": "ziggurat.calibrate.rows",
    "choose_points": "ziggurat.calibrate.choose",
    "costs_of": "ziggurat.calibrate.times",
    "deciles": "ziggurat.calibrate.page.data",
    "difference_risk": "ziggurat.calibrate.risks",
    "families": "ziggurat.calibrate.candidates",
    "fit_temperatures": "ziggurat.calibrate.choose",
    "fixed_sequence": "ziggurat.calibrate.bounds",
    "frontier": "ziggurat.calibrate.paths",
    "groups_of": "ziggurat.calibrate.grouping",
    "net_loss": "ziggurat.calibrate.paths",
    "p_value": "ziggurat.calibrate.bounds",
    "p_values": "ziggurat.calibrate.bounds",
    "path_of": "ziggurat.calibrate.paths",
    "per_draw": "ziggurat.calibrate.grouping",
    "risk_by_name": "ziggurat.calibrate.risks",
    "risks_of": "ziggurat.calibrate.risks",
    "rule_of": "ziggurat.calibrate.points",
    "run_all_rungs": "ziggurat.calibrate.rows",
    "select_ladders": "ziggurat.calibrate.choose",
    "sequences": "ziggurat.calibrate.paths",
    "setting_of": "ziggurat.calibrate.paths",
    "write_state": "ziggurat.calibrate.watching",
}
__all__ = [
    "Calibration",
    "DriftTest",
    "Evidence",
    "Ladder",
    "Monitor",
    "PredictedTime",
    "ProfiledCost",
    "Promise",
    "RISKS",
    "Risk",
    "Setting",
    "SmallCost",
    "State",
    "StoredRun",
    "TARGETS",
    "Watch",
    "calibrate_model",
    "calibration_rows",
    "choose_points",
    "costs_of",
    "deciles",
    "difference_risk",
    "families",
    "fit_temperatures",
    "fixed_sequence",
    "frontier",
    "groups_of",
    "net_loss",
    "p_value",
    "p_values",
    "path_of",
    "per_draw",
    "risk_by_name",
    "risks_of",
    "rule_of",
    "run_all_rungs",
    "select_ladders",
    "sequences",
    "setting_of",
    "write_state",
]

__getattr__ = lazily(__name__, _HOMES)
