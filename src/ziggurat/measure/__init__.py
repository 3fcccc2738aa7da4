"""Measures quality, cost and speed of models."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ziggurat.lazy import lazily

if TYPE_CHECKING:
    from ziggurat.measure.check import check_profile
    from ziggurat.measure.clock import Ratio, Timing, interleave, paired_ratio, peak_memory_mib
    from ziggurat.measure.predicted_time import Costs, Profile, predicted_seconds
    from ziggurat.measure.profile import Effort, conditions_of, profile_engine, stored_profile
    from ziggurat.measure.rows import SCHEMA, append_record, append_row, checked_row, provenance, read_rows_file
    from ziggurat.measure.runs import Shape, ways_of
    from ziggurat.measure.subject import ModelOptions, data_and_split, lengths_summary, rows_to_measure, sample

_HOMES = {
    "Costs": "ziggurat.measure.predicted_time",
    "Effort": "ziggurat.measure.profile",
    "ModelOptions": "ziggurat.measure.subject",
    "Profile": "ziggurat.measure.predicted_time",
    "Ratio": "ziggurat.measure.clock",
    "SCHEMA": "ziggurat.measure.rows",
    "Shape": "ziggurat.measure.runs",
    "Timing": "ziggurat.measure.clock",
    "append_record": "ziggurat.measure.rows",
    "append_row": "ziggurat.measure.rows",
    "check_profile": "ziggurat.measure.check",
    "checked_row": "ziggurat.measure.rows",
    "conditions_of": "ziggurat.measure.profile",
    "data_and_split": "ziggurat.measure.subject",
    "interleave": "ziggurat.measure.clock",
    "lengths_summary": "ziggurat.measure.subject",
    "paired_ratio": "ziggurat.measure.clock",
    "peak_memory_mib": "ziggurat.measure.clock",
    "predicted_seconds": "ziggurat.measure.predicted_time",
    "profile_engine": "ziggurat.measure.profile",
    "provenance": "ziggurat.measure.rows",
    "read_rows_file": "ziggurat.measure.rows",
    "rows_to_measure": "ziggurat.measure.subject",
    "sample": "ziggurat.measure.subject",
    "stored_profile": "ziggurat.measure.profile",
    "ways_of": "ziggurat.measure.runs",
}
__all__ = [
    "Costs",
    "Effort",
    "ModelOptions",
    "Profile",
    "Ratio",
    "SCHEMA",
    "Shape",
    "Timing",
    "append_record",
    "append_row",
    "check_profile",
    "checked_row",
    "conditions_of",
    "data_and_split",
    "interleave",
    "lengths_summary",
    "paired_ratio",
    "peak_memory_mib",
    "predicted_seconds",
    "profile_engine",
    "provenance",
    "read_rows_file",
    "rows_to_measure",
    "sample",
    "stored_profile",
    "ways_of",
]

__getattr__ = lazily(__name__, _HOMES)
