"""How good answers are, by problem, beside those of full depth. The figures that people know, not the losses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from ziggurat.policies.outputs import Output
from ziggurat.report.metrics import accuracy, accuracy_interval, f1_macro, f1_micro, pearson, spearman
from ziggurat.types import Problem

Figures = dict[str, float]


def figures(output: Output, adaptive: np.ndarray, full: np.ndarray, truth: np.ndarray) -> Figures:
    """Of predictions (n, …) of the adaptive model, and with "full_" before their names of the full one (n, …).

    "agreement" is 1 - the mean difference between the two.
    """
    found = METRICS[output.problem]
    whole = {f"full_{name}": value for name, value in found(full, truth).items()}
    return {**found(adaptive, truth), **whole, "agreement": 1 - float(output.differs(adaptive, full).mean())}


def _of_classes(predictions: np.ndarray, truth: np.ndarray) -> Figures:
    right = predictions == truth
    low, high = accuracy_interval(int(right.sum()), len(truth))
    return {"accuracy": float(right.mean()), "accuracy_low": low, "accuracy_high": high}


def _of_sets(predictions: np.ndarray, truth: np.ndarray) -> Figures:
    """F1 over all labels together, and the mean of each label's; a label that is neither said nor true counts as 0."""
    true = truth > 0
    return {
        "f1_micro": float(f1_micro(predictions, true)),
        "f1_macro": float(f1_macro(predictions, true)),
        "subset_accuracy": float(accuracy(predictions, true)),
        "hamming_loss": float((predictions != true).mean()),
    }


def _of_numbers(predictions: np.ndarray, truth: np.ndarray) -> Figures:
    # Of numbers that are all the same there is no correlation; 0 says that nothing is told apart, and is valid JSON.
    return {
        "pearson": float(np.nan_to_num(pearson(predictions, truth))),
        "spearman": float(np.nan_to_num(spearman(predictions, truth))),
        "mean_squared_error": float(((predictions - truth) ** 2).mean()),
        "mean_absolute_error": float(np.abs(predictions - truth).mean()),
    }


METRICS: Mapping[Problem, Callable[[np.ndarray, np.ndarray], Figures]] = MappingProxyType(
    {Problem.SINGLE_LABEL: _of_classes, Problem.MULTI_LABEL: _of_sets, Problem.REGRESSION: _of_numbers}
)
