"""Finds the record of a problem by its type, and the type that rows ask for by their labels."""

from __future__ import annotations

from collections.abc import Sequence

from ziggurat.problems.classes import Classes
from ziggurat.problems.labels import Labels
from ziggurat.problems.number import Number
from ziggurat.problems.problem import Problem
from ziggurat.problems.spans import Spans
from ziggurat.recipe import SpanConfig
from ziggurat.types import Label, ProblemType


def problem_named(
    name: str,
    names: Sequence[Label] = (),
    label_range: Sequence[float] | None = None,
    windows: SpanConfig | None = None,
    offsets: tuple[float, ...] | None = None,
) -> Problem:
    """The record of a `ProblemType`; the last three arguments matter to the problems that have such a field alone."""
    found, names = ProblemType(name), tuple(names)
    if found is ProblemType.REGRESSION:
        return Number(names, None if label_range is None else (float(label_range[0]), float(label_range[1])))
    if found is ProblemType.QUESTION_ANSWERING:
        return Spans(names, windows or SpanConfig(), offsets)
    return {ProblemType.SINGLE_LABEL: Classes, ProblemType.MULTI_LABEL: Labels}[found](names)
