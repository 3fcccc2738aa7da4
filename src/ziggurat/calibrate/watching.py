"""A certified operating point in production: every answer's cost and, of a few, agreement with full depth are watched.

The promise is about loss, and production has no labels; so what is watched is how often answers differ from full
depth's, against the bound that the certifying rows gave for that.
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

SHARE = 0.02  # of the inputs that are run at full depth too
_MOST_DIFFERING = 0.99  # a bound of 1 would leave nothing to watch
_ROUNDING = 1e-6  # numbers that are no farther apart are the same, computed in another batch
DEAREST = 3.0  # cost of one answer, as a share of full depth's: heads that are asked in vain come on top


def watch_of(point: OperatingPoint, share: float = SHARE) -> Watch:
    """What is to be watched of a certified point; UserError for one that is not certified."""
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


def watched_costs(spent: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """What a monitor is told of answers that cost `spent` FLOPs where full depth costs `whole`: (n) shares."""
    return np.minimum(spent / np.maximum(whole, 1), DEAREST)


class Monitor:
    """A model at one certified operating point in production: it answers, and watches whether the promise still holds.

    >>> monitor = ziggurat.Monitor(model, "fast")
    >>> monitor.answer(texts).labels
    array(['sun', 'rain'], dtype='<U4')
    >>> monitor.alarms
    []
    """

    def __init__(
        self, classifier: OpenedModel, operating_point: str, share: float = SHARE, state: State | None = None
    ) -> None:
        """A share of the inputs is answered at full depth, too. Goes on from `state` if it is given.

        UserError for a point that is not certified, or a state of another.
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
        """UserError: two copies would each see a part of the evidence."""
        raise UserError(
            "a monitor cannot be copied or pickled, since its evidence would be split; pickle the model, and make one "
            "with the state of `drift`"
        )

    def answer(self, texts: Sequence[Text], batch_size: int = 32) -> Answers:
        """As the model's `answer`; a few of the texts are also run at full depth."""
        model, rule = self._classifier, self._classifier.rule_of(self._point)
        encoded = model.encode(texts)
        answers = model.answers(encoded, model.run(encoded, rule, batch_size), rule)
        differing = self._differing(encoded, answers, np.flatnonzero(self.drift.due(len(texts))), batch_size)
        self.drift.add(watched_costs(answers.flops, model.whole(encoded)), differing)
        return answers

    def _differing(self, encoded: Encoded, answers: Answers, checked: np.ndarray, batch_size: int) -> np.ndarray:
        """How far the answers of these inputs, (k) indices, are from full depth's: (k).

        A point that is full depth is not asked, for other batches may round otherwise.
        """
        if self._is_full or not len(checked):
            return np.zeros(len(checked))
        model, some = self._classifier, encoded.take(checked)
        rule = model.rule_of(FULL)
        full = model.answers(some, model.run(some, rule, batch_size), rule)
        pairs = zip(answers.labels[checked].tolist(), full.labels.tolist(), strict=True)
        apart = np.array([self._classifier.problem.apart(*pair) for pair in pairs], dtype=np.float64)
        return np.where(apart > _ROUNDING, apart, 0.0)

    @property
    def alarms(self) -> list[str]:
        """What is wrong, in words."""
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
        """Adds what came since to the state in a file, which other runs may have added to meanwhile; goes on from that.

        UserError where the file has the state of another monitor by now.
        """
        self.drift = DriftTest(write_state(self.drift.state, path, anew=False))


def read_state(path: Path) -> State | None:
    """A monitor's state from its file, None if there is none yet; UserError if it is broken."""
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
    """Writes what `read_state` reads, and returns it: what the file has by now and what this state's monitor saw since
    it was read or written, so that runs at the same time all count, and an alarm stays.

    `anew`: the first state of a monitor that did not go on from one replaces what is there. UserError where the file is
    broken by now, or another operating point's.
    """
    path = path.resolve()
    with refusals_explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked_file(path.with_name(f".{path.name}.lock")):
            try:
                whole = state.added_to(read_state(path), str(path), anew)
            except ValueError:
                raise UserError(f"{path}: has the state of another operating point by now; name another") from None
            values = whole.to_dict()
            with whole_file(path) as made:
                made.write_text(json.dumps(values | {"digest": _digest(values)}) + "\n", "utf-8")
            state.is_at(str(path))
    return whole


def _digest(values: dict[str, Any]) -> str:
    """By which a changed file is noticed."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]
