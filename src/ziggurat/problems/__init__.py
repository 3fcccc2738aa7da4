"""What a model answers: one record for each problem says what its outputs stand for and how answers are judged."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ziggurat.lazy import lazily

if TYPE_CHECKING:
    from ziggurat.problems.classes import CLASSES, Classes
    from ziggurat.problems.metrics import MEASURES, accuracy_interval, f1, grades, mcc
    from ziggurat.problems.problem import Problem
    from ziggurat.problems.registry import problem_named
    from ziggurat.problems.spans import PLACE, SCORE

_HOMES = {
    "CLASSES": "ziggurat.problems.classes",
    "Classes": "ziggurat.problems.classes",
    "MEASURES": "ziggurat.problems.metrics",
    "PLACE": "ziggurat.problems.spans",
    "Problem": "ziggurat.problems.problem",
    "SCORE": "ziggurat.problems.spans",
    "accuracy_interval": "ziggurat.problems.metrics",
    "f1": "ziggurat.problems.metrics",
    "grades": "ziggurat.problems.metrics",
    "mcc": "ziggurat.problems.metrics",
    "problem_named": "ziggurat.problems.registry",
}
__all__ = [
    "CLASSES",
    "Classes",
    "MEASURES",
    "PLACE",
    "Problem",
    "SCORE",
    "accuracy_interval",
    "f1",
    "grades",
    "mcc",
    "problem_named",
]

__getattr__ = lazily(__name__, _HOMES)
