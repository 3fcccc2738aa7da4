"""Ziggurat: text classifiers that spend on each input only the compute it needs."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ziggurat.calibrate.calibrate import calibrate_classifier
    from ziggurat.calibrate.points import Promise
    from ziggurat.engine.classifier import AdaptiveClassifier
    from ziggurat.errors import UserError
    from ziggurat.train.cascade import build_cascade
    from ziggurat.train.train import adapt_classifier, train_classifier
    from ziggurat.types import Answer, OperatingPoint, Rung, Trace

__version__ = "0.1.0"
__all__ = [
    "AdaptiveClassifier",
    "Answer",
    "OperatingPoint",
    "Promise",
    "Rung",
    "Trace",
    "UserError",
    "adapt_classifier",
    "build_cascade",
    "calibrate_classifier",
    "train_classifier",
]

_HOMES = {
    "AdaptiveClassifier": "ziggurat.engine.classifier",
    "Answer": "ziggurat.types",
    "OperatingPoint": "ziggurat.types",
    "Promise": "ziggurat.calibrate.points",
    "Rung": "ziggurat.types",
    "Trace": "ziggurat.types",
    "UserError": "ziggurat.errors",
    "adapt_classifier": "ziggurat.train.train",
    "build_cascade": "ziggurat.train.cascade",
    "calibrate_classifier": "ziggurat.calibrate.calibrate",
    "train_classifier": "ziggurat.train.train",
}


def __getattr__(name: str) -> Any:
    """Public names are looked up when they are used, so that `import ziggurat` costs nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module 'ziggurat' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
