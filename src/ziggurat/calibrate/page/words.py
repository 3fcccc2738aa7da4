"""What a calibration promises, in words: the same on a page and in a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ziggurat.problems.registry import problem_named
from ziggurat.types import ProblemType

# By criterion: {} is how much, and against what.
_PROMISES: Mapping[str, str] = {
    "accuracy": "loses at most {} of accuracy against {}",
    "agreement": "answers at most {} of texts otherwise than {}",
    "harm": "gets at most {} of texts wrong that are right with {}",
    "hamming": "gets at most {} of all labels wrong beyond those of {}",
    "subset-accuracy": "gets at most {} of texts not wholly right beyond those of {}",
    "f1": "loses at most {} of F1 against {}",
    "exact-match": "loses at most {} of exact matches against {}",
    "absolute-error": "errs by at most {} of the labels' range more than {}",
    "squared-error": "has a squared error of at most {} of the squared range of labels above that of {}",
}
_AXES: Mapping[str, str] = {
    "accuracy": "accuracy lost (points)",
    "agreement": "answers that differ (%)",
    "harm": "answers made wrong (%)",
    "hamming": "labels made wrong (%)",
    "subset-accuracy": "texts no longer wholly right (%)",
    "f1": "F1 lost (points)",
    "exact-match": "exact matches lost (points)",
    "absolute-error": "error gained (% of the labels' range)",
    "squared-error": "squared error gained (% of the squared range)",
}
_POINTS = ("accuracy", "f1", "exact-match")
_SHARES: Mapping[str, str] = {  # the same two where an answer is more than right or wrong
    "agreement": "answers by at most {} otherwise than {}, on average",
    "harm": "loses at most {} on texts that lose anything, against {}, on average over all",
}


def axis(criterion: str) -> str:
    """What stands beside an axis of losses."""
    return _AXES.get(criterion, f"{criterion} (points)")


def amount(criterion: str, loss: float) -> str:
    """A loss with its unit: 0.01 → 1 point, or 1 %."""
    value = f"{100 * loss:g}"
    return f"{value} %" if criterion not in _POINTS else f"{value} point" + ("" if value == "1" else "s")


def unit(criterion: str) -> str:
    """Of a loss times 100."""
    return "points" if criterion in _POINTS else "%"


def bound(result: Mapping[str, Any], target: float) -> str:
    """What a point of this target may lose: "loses at most 1 point of accuracy against full depth"."""
    promise = _PROMISES.get(result["criterion"], "has a loss of at most {} against {}")
    if not problem_named(result.get("problem", ProblemType.SINGLE_LABEL), (), (0, 1)).loss.binary:
        promise = _SHARES.get(result["criterion"], promise)
    return promise.format(amount(result["criterion"], target), against(result))


def against(result: Mapping[str, Any]) -> str:
    """What losses are counted from."""
    return "full depth" if result["reference"] is None else f"{result['reference']} at full depth"


def is_faster(entry: Mapping[str, Any]) -> bool:
    """Whether an entry of `result["points"]` does anything else than full depth."""
    point = entry["point"]
    return point is not None and (point["pruning"] > 0 or any(limit is not None for limit in point["thresholds"]))


def headline(result: Mapping[str, Any]) -> str:
    """The fastest promise in one sentence."""
    best = fastest(result)
    if best is None:
        return f"{result['model']}: nothing faster than full depth is promised"
    gain = best["point"]["certificate"]["gain"]
    return f"{best['name']}: {gain:.1f}x as fast, {bound(result, best['target'])}, with {confidence(result)} confidence"


def fastest(result: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The entry with the largest measured gain, None if none is faster than full depth."""
    faster = [entry for entry in result["points"] if is_faster(entry)]
    return max(faster, key=lambda entry: float(entry["point"]["certificate"]["gain"]), default=None)


def confidence(result: Mapping[str, Any]) -> str:
    """As a percentage."""
    return f"{100 * result['confidence']:g} %"


def promise(result: Mapping[str, Any], entry: Mapping[str, Any]) -> str:
    """What can be relied on at a point."""
    if entry["point"] is None:
        return "no promise"
    if not is_faster(entry) and result["reference"] is None:
        return "is full depth, which loses nothing"
    return f"with {confidence(result)} confidence {bound(result, entry['target'])} on texts like these"


def speed(entry: Mapping[str, Any]) -> str:
    """Measured speed against full depth, with the least and most of its rounds."""
    if not is_faster(entry):
        return "–" if entry["point"] is None else "1x"
    certificate = entry["point"]["certificate"]
    return f"{certificate['gain']:.1f}x ({certificate['gain_low']:.1f}–{certificate['gain_high']:.1f})"
