"""Monitors a certified operating point in production: the cost of all answers, and agreement with full depth of a few.

The promise is about loss, but production has no labels. So the monitor tests how often answers differ from full depth's
against the bound that the certifying rows gave.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from ziggurat.calibrate.monitor import DriftTest, State, Watch
from ziggurat.data.tokenizer import Encoded
from ziggurat.engine.opened import FULL, OpenedModel, Text
from ziggurat.errors import UserError
from ziggurat.files import refusals_explained, whole_file
from ziggurat.locks import locked_file
from ziggurat.problems.answers import Answers
from ziggurat.types import OperatingPoint

SHARE = 0.02  # of the inputs that also run at full depth
_MOST_DIFFERING = 0.99  # a bound of 1 could never be exceeded
_ROUNDING = 1e-6  # numbers within this distance are equal, since batches round differently
DEAREST = 3.0  # cap of one answer's cost, relative to full depth's; exit heads can make it exceed 1


def watch_of(point: OperatingPoint, share: float = SHARE) -> Watch:
    """The limits to monitor for a certified point; UserError for a point that is not certified."""
    proof = point.certificate
    if proof is None or point.confidence is None:
        raise UserError(
            f"operating point {point.name!r} promises nothing that could be watched; `ziggurat calibrate` it"
        )
    if not 0 < share <= 1:
        raise UserError(f"share {share:g} of inputs that are checked: must be above 0 and at most 1")
    delta = 1 - point.confidence
    cost = proof.flops if proof.cost is None else proof.cost
    return Watch(0, 1, min(proof.differs, _MOST_DIFFERING), cost, largest_cost=DEAREST, delta=delta, share=share)


def watched_costs(flops: np.ndarray, full_flops: np.ndarray) -> np.ndarray:
    """Costs for a monitor: FLOPs of answers relative to full depth's, capped at `DEAREST`, (n)."""
    return np.minimum(flops / np.maximum(full_flops, 1), DEAREST)


class Monitor:
    """Answers with a model at one certified operating point, and tests whether its promise still holds.

    >>> monitor = ziggurat.Monitor(model, "fast")
    >>> monitor.answer(texts).labels
    array(['sun', 'rain'], dtype='<U4')
    >>> monitor.alarms
    []
    """

    def __init__(
        self, classifier: OpenedModel, operating_point: str, share: float = SHARE, state: State | None = None
    ) -> None:
        """Checks `share` of the inputs at full depth. Continues from `state` if it is given.

        UserError for a point that is not certified, or a state of another point.
        """
        if operating_point == FULL:
            raise UserError(f"operating point {FULL!r} promises nothing that could be watched; name another")
        self._classifier, self._point = classifier, operating_point
        rule = classifier.rule_of(operating_point)
        self._is_full = not any(rule.active[:-1]) and rule.tokens is None
        watch = watch_of(classifier.point(operating_point), share)
        if state is not None and state.watch != watch:
            now, then = asdict(watch), asdict(state.watch)
            other = next(f"{key} {then[key]:g}, now {now[key]:g}" for key in now if now[key] != then[key])
            raise UserError(
                f"the state is not of operating point {operating_point!r} as it is now ({other}); begin a new one"
            )
        self.drift = DriftTest(watch if state is None else state)

    def __reduce__(self) -> NoReturn:
        """UserError: two copies would split the evidence."""
        raise UserError(
            "a monitor cannot be copied or pickled, since its evidence would be split; pickle the model, and make one "
            "with the state of `drift`"
        )

    def answer(self, texts: Sequence[Text], batch_size: int = 32) -> Answers:
        """As the model's `answer`; a few of the texts also run at full depth."""
        model, rule = self._classifier, self._classifier.rule_of(self._point)
        encoded = model.encode(texts)
        answers = model.answers(encoded, model.run(encoded, rule, batch_size), rule)
        differing = self._differing(encoded, answers, np.flatnonzero(self.drift.due(len(texts))), batch_size)
        self.drift.add(watched_costs(answers.flops, model.full_flops(encoded)), differing)
        return answers

    def _differing(self, encoded: Encoded, answers: Answers, checked: np.ndarray, batch_size: int) -> np.ndarray:
        """Distance of answers from full depth's, (k), for the checked inputs, (k) indices.

        It is 0 for a point that is full depth: running it again could only add rounding differences.
        """
        if self._is_full or not len(checked):
            return np.zeros(len(checked))
        model, inputs = self._classifier, encoded.take(checked)
        rule = model.rule_of(FULL)
        full = model.answers(inputs, model.run(inputs, rule, batch_size), rule)
        pairs = zip(answers.labels[checked].tolist(), full.labels.tolist(), strict=True)
        apart = np.array([self._classifier.problem.apart(*pair) for pair in pairs], dtype=np.float64)
        return np.where(apart > _ROUNDING, apart, 0.0)

    @property
    def alarms(self) -> list[str]:
        """A sentence for each alarm."""
        state = self.drift.state
        found = []
        if state.promise_lost:
            found.append(
                f"{self._point}: answers differ from full depth's more often than {100 * state.watch.target:.2f} % "
                f"({state.risk.total:g} of {state.risk.n:,} checked): the promise is no longer supported; calibrate "
                "on rows like the new ones, or run at full depth"
            )
        if state.cost_drifted:
            found.append(
                f"{self._point}: answers cost {state.cost.total / state.cost.n:.2g} of full depth on average, expected "
                f"{state.watch.expected_cost:.2g}: other inputs, or an attack; `calibrate --max-layers` caps the cost"
            )
        return found

    def keep(self, path: Path) -> None:
        """Merges new observations into the state in a file, and continues from the merged state.

        Other runs may have written to the file meanwhile. UserError if it now has the state of another monitor.
        """
        self.drift = DriftTest(write_state(self.drift.state, path, anew=False))


def read_state(path: Path) -> State | None:
    """A monitor's state from its file; None if there is no file. UserError if it is broken."""
    advice = "remove it to begin a new one, or name another"
    if path.exists() and not path.is_file():
        raise UserError(f"{path}: not the state of a monitor; {advice}")
    try:
        values = json.loads(path.read_text("utf-8"))
        if "digest" in values and values.pop("digest") != _digest(values):
            raise UserError("it is not as it was written")
        return State.from_dict(values)
    except FileNotFoundError:
        return None
    except UserError as error:
        raise UserError(f"{path}: not the state of a monitor ({error}); {advice}") from None
    except OSError as error:
        raise UserError(f"{path}: not the state of a monitor ({error.strerror}); {advice}") from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise UserError(f"{path}: not the state of a monitor; {advice}") from None


def write_state(state: State, path: Path, anew: bool = True) -> State:
    """Merges a monitor's new observations into its file, and returns the merged state.

    New are the observations since the state was read or written. So concurrent runs all count, and an alarm stays.
    `anew`: the first state of a monitor that began without one replaces the file. UserError if the file is broken, or
    belongs to another operating point.
    """
    path = path.resolve()
    with refusals_explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked_file(path.with_name(f".{path.name}.lock")):
            try:
                merged = state.added_to(read_state(path), str(path), anew)
            except ValueError:
                raise UserError(f"{path}: has the state of another operating point by now; name another") from None
            values = merged.to_dict()
            with whole_file(path) as made:
                made.write_text(json.dumps(values | {"digest": _digest(values)}) + "\n", "utf-8")
            state.is_at(str(path))
    return merged


def _digest(values: dict[str, Any]) -> str:
    """Checksum that reveals a changed file."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]
