"""Sentences on a calibration's promises, for pages and terminals."""

from __future__ import annotations

from collections.abc import Mapping

from ziggurat.calibrate.result import Calibration, TargetResult
from ziggurat.problems.registry import problem_named

# By criterion; the blanks are the amount and the reference.
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
_SHARES: Mapping[str, str] = {  # replacements where losses are not 0 or 1
    "agreement": "answers by at most {} otherwise than {}, on average",
    "harm": "loses at most {} on texts that lose anything, against {}, on average over all",
}


def axis(criterion: str) -> str:
    """Label of an axis of losses."""
    return _AXES.get(criterion, f"{criterion} (points)")


def amount(criterion: str, loss: float) -> str:
    """A loss with its unit: 0.01 → 1 point, or 1 %."""
    value = f"{100 * loss:g}"
    return f"{value} %" if criterion not in _POINTS else f"{value} point" + ("" if value == "1" else "s")


def unit(criterion: str) -> str:
    """Unit of a loss times 100."""
    return "points" if criterion in _POINTS else "%"


def bound(result: Calibration, target: float) -> str:
    """The bound of a point: "loses at most 1 point of accuracy against full depth"."""
    promise = _PROMISES.get(result.criterion, "has a loss of at most {} against {}")
    if not problem_named(result.problem, (), (0, 1)).loss.binary:
        promise = _SHARES.get(result.criterion, promise)
    return promise.format(amount(result.criterion, target), against(result))


def against(result: Calibration) -> str:
    """The reference of losses."""
    return "full depth" if result.reference is None else f"{result.reference} at full depth"


def headline(result: Calibration) -> str:
    """The fastest promise in one sentence."""
    best = fastest(result)
    if best is None:
        return f"{result.model}: nothing faster than full depth is promised"
    gain = gain_of(best)
    return f"{best.name}: {gain:.1f}x as fast, {bound(result, best.target)}, with {confidence(result)} confidence"


def fastest(result: Calibration) -> TargetResult | None:
    """The entry with the largest measured gain, None if none is faster than full depth."""
    faster = [entry for entry in result.points if entry.is_faster]
    return max(faster, key=gain_of, default=None)


def gain_of(entry: TargetResult) -> float:
    """Measured speed of the point relative to full depth."""
    return 1.0 if entry.certificate is None else entry.certificate.gain


def confidence(result: Calibration) -> str:
    """The confidence as a percentage."""
    return f"{100 * result.confidence:g} %"


def promise(result: Calibration, entry: TargetResult) -> str:
    """The promise of a point."""
    if entry.point is None:
        return "no promise"
    if not entry.is_faster and result.reference is None:
        return "is full depth, which loses nothing"
    return f"with {confidence(result)} confidence {bound(result, entry.target)} on texts like these"


def speed(entry: TargetResult) -> str:
    """Measured speed against full depth, with the smallest and largest of the rounds."""
    proof = entry.certificate
    if proof is None or not entry.is_faster:
        return "–" if entry.point is None else "1x"
    return f"{proof.gain:.1f}x ({proof.gain_low:.1f}–{proof.gain_high:.1f})"
