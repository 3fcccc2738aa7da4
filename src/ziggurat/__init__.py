"""Ziggurat: text models that spend on each input only the compute it needs.

>>> model = ziggurat.train(rows, recipe="early-exit", out="runs/news")
>>> model = ziggurat.load("runs/news", dtype="int8")
>>> model.predict(["Oil prices fall again"])

Names are imported when they are used: `import ziggurat` itself loads nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ziggurat.calibrate.points import Promise as Promise
    from ziggurat.calibrate.result import Calibration as Calibration
    from ziggurat.calibrate.watching import Monitor as Monitor
    from ziggurat.data.memory import as_rows as as_rows
    from ziggurat.data.sources import Columns as Columns
    from ziggurat.deprecated import AdaptiveClassifier as AdaptiveClassifier
    from ziggurat.deprecated import QuestionAnswerer as QuestionAnswerer
    from ziggurat.deprecated import adapt_classifier as adapt_classifier
    from ziggurat.deprecated import build_cascade as build_cascade
    from ziggurat.deprecated import calibrate_classifier as calibrate_classifier
    from ziggurat.deprecated import train_classifier as train_classifier
    from ziggurat.errors import UserError as UserError
    from ziggurat.explain.record import Explanation as Explanation
    from ziggurat.measure.evaluation import Evaluation as Evaluation
    from ziggurat.measure.subject import ModelOptions as ModelOptions
    from ziggurat.model import AdaptiveModel as AdaptiveModel
    from ziggurat.model import adapt as adapt
    from ziggurat.model import cascade as cascade
    from ziggurat.model import load as load
    from ziggurat.model import train as train
    from ziggurat.policies.rules import ExitRule as ExitRule
    from ziggurat.problems.answers import Answers as Answers
    from ziggurat.recipe import Recipe as Recipe
    from ziggurat.training.fit import TrainOptions as TrainOptions
    from ziggurat.types import Answer as Answer
    from ziggurat.types import Certificate as Certificate
    from ziggurat.types import OperatingPoint as OperatingPoint
    from ziggurat.types import ProblemType as ProblemType
    from ziggurat.types import Rung as Rung
    from ziggurat.types import SpanAnswer as SpanAnswer
    from ziggurat.types import Trace as Trace

__version__ = "0.2.0"

_HOMES = {
    "AdaptiveModel": "model",
    "Answer": "types",
    "Answers": "problems.answers",
    "Calibration": "calibrate.result",
    "Certificate": "types",
    "Columns": "data.sources",
    "Evaluation": "measure.evaluation",
    "ExitRule": "policies.rules",
    "Explanation": "explain.record",
    "ModelOptions": "measure.subject",
    "Monitor": "calibrate.watching",
    "OperatingPoint": "types",
    "ProblemType": "types",
    "Promise": "calibrate.points",
    "Recipe": "recipe",
    "Rung": "types",
    "SpanAnswer": "types",
    "Trace": "types",
    "TrainOptions": "training.fit",
    "UserError": "errors",
    "adapt": "model",
    "as_rows": "data.memory",
    "cascade": "model",
    "load": "model",
    "train": "model",
}
_OLD_NAMES = (  # of version 0.1, for one release
    "AdaptiveClassifier",
    "QuestionAnswerer",
    "adapt_classifier",
    "build_cascade",
    "calibrate_classifier",
    "train_classifier",
)
__all__ = [*sorted(_HOMES)]


def __getattr__(name: str) -> Any:
    """A public name, from where it is."""
    home = _HOMES.get(name, "deprecated" if name in _OLD_NAMES else None)
    if home is None:
        raise AttributeError(f"module 'ziggurat' has no attribute {name!r}")
    return getattr(import_module(f"ziggurat.{home}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
