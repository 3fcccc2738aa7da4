"""Ziggurat: text classifiers that spend on each input only the compute it needs."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ziggurat.engine.classifier import AdaptiveClassifier
    from ziggurat.errors import UserError
    from ziggurat.jobs.calibration.certify import calibrate_classifier
    from ziggurat.jobs.calibration.promises import Promise
    from ziggurat.jobs.training.cascade import build_cascade
    from ziggurat.jobs.training.train import adapt_classifier, train_classifier
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
    "Promise": "ziggurat.jobs.calibration.promises",
    "Rung": "ziggurat.types",
    "Trace": "ziggurat.types",
    "UserError": "ziggurat.errors",
    "adapt_classifier": "ziggurat.jobs.training.train",
    "build_cascade": "ziggurat.jobs.training.cascade",
    "calibrate_classifier": "ziggurat.jobs.calibration.certify",
    "train_classifier": "ziggurat.jobs.training.train",
}


def __getattr__(name: str) -> Any:
    """Public names are looked up when they are used, so that `import ziggurat` costs nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module 'ziggurat' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
