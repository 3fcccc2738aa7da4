"""Measures a machine's profile, and its prediction errors on shapes that it does not contain."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ziggurat.data.dataset import load
from ziggurat.data.packing import by_length
from ziggurat.data.sources import DEFAULT_COLUMNS, Columns
from ziggurat.data.tokenizer import Encoded
from ziggurat.engine.backend import Outcomes
from ziggurat.engine.opened import FULL, OpenedModel
from ziggurat.errors import UserError
from ziggurat.measure.clock import Clock, Timing, interleave
from ziggurat.measure.predicted_time import Conditions, Profile, predicted_seconds
from ziggurat.measure.profile import Effort, keep_profile, profile_beside, profile_file
from ziggurat.measure.runs import random_tokens
from ziggurat.measure.subject import (
    ModelOptions,
    check_has_layers,
    check_one_encoder,
    check_one_sequence,
    check_pairs,
    sample,
)
from ziggurat.policies.rules import ExitRule
from ziggurat.system import json_values

# Batches off the grid: number of texts, and mean tokens. Lengths are 0.5 to 1.5 times the mean.
HELD_OUT = ((1, 21), (1, 54), (3, 37), (8, 54), (11, 90), (32, 20), (32, 54))
_TEXTS = 96  # least number per shape, because calls of a few milliseconds vary by a tenth
_BATCHES = 8  # least number per shape


@dataclass(frozen=True)
class PredictionError:
    """Predicted and measured time of answering texts in batches."""

    texts: str  # description of the texts; key "what"
    point: str  # name of the rule
    batch: int  # texts
    n_texts: int
    predicted: float  # seconds
    measured: float  # seconds, median
    measured_low: float  # fastest round
    measured_high: float  # slowest round

    @property
    def error(self) -> float:
        """Relative error: 0.1 = the prediction is 10 % too large."""
        return self.predicted / self.measured - 1

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        values = dataclasses.asdict(self)
        return {"what": values.pop("texts"), **values, "error": self.error}


def prediction_error(
    profile: Profile,
    classifier: OpenedModel,
    encoded: Encoded,
    rules: Mapping[str, ExitRule],
    batch_size: int,
    texts: str = "data",
    rounds: int = 5,
    progress: Callable[[str], None] | None = None,
    clock: Clock = time.perf_counter,
) -> list[PredictionError]:
    """Predicted and measured time of these texts, sorted by length, for each rule by name."""
    case = Case(texts, encoded, batch_size)
    timings = interleave(case.calls(classifier, rules), rounds, progress=progress, clock=clock)
    return case.errors(profile, classifier, rules, timings)


@dataclass(frozen=True, eq=False)
class Case:
    """Texts, and the size of their batches."""

    texts: str  # their description
    encoded: Encoded
    batch_size: int

    def calls(self, classifier: OpenedModel, rules: Mapping[str, ExitRule]) -> dict[str, Callable[[], Outcomes]]:
        """Calls that answer the texts, one for each rule, by display name."""
        return {
            self._name(name): partial(classifier.run, self.encoded, rule, self.batch_size)
            for name, rule in rules.items()
        }

    def errors(
        self,
        profile: Profile,
        classifier: OpenedModel,
        rules: Mapping[str, ExitRule],
        timings: Mapping[str, Timing],
    ) -> list[PredictionError]:
        """The prediction error of each rule, from the timings of the calls."""
        found = []
        for name, rule in rules.items():
            timing, outcomes = timings[self._name(name)], classifier.run(self.encoded, rule, self.batch_size)
            predicted = _predicted(profile, outcomes, rule, self.encoded.lengths, self.batch_size)
            size = self.batch_size, len(self.encoded.tokens)
            least, most = min(timing.runs), max(timing.runs)
            found.append(PredictionError(self.texts, name, *size, predicted, timing.p50, least, most))
        return found

    def _name(self, rule: str) -> str:
        return f"{self.texts}, {rule}, batch {self.batch_size}, {len(self.encoded.tokens)} texts"


def _predicted(profile: Profile, outcomes: Outcomes, rule: ExitRule, lengths: np.ndarray, batch_size: int) -> float:
    layers = range(1, profile.conditions.layers + 1)
    pruned = [rule.tokens is not None and rule.tokens.prunes(layer) for layer in layers]
    batches = batch_numbers(lengths, batch_size)
    return predicted_seconds(profile, outcomes.token_counts, outcomes.rungs, rule.active, batches, pruned)


def batch_numbers(lengths: np.ndarray, batch_size: int) -> np.ndarray:
    """Index of each text's batch in `OpenedModel.run`: lengths (n) → (n) int64."""
    numbers = np.empty(len(lengths), dtype=np.int64)
    for number, rows in enumerate(by_length(lengths, batch_size)):
        numbers[rows] = number
    return numbers


def held_out(classifier: OpenedModel) -> list[Case]:
    """Random texts in shapes that profiles do not contain."""
    found = []
    for n_texts, mean in HELD_OUT:
        rng = np.random.default_rng([n_texts, mean])
        lengths = rng.integers(mean // 2, mean * 3 // 2 + 1, n_texts * max(_BATCHES, _TEXTS // n_texts))
        lengths = np.clip(lengths, 1, classifier.manifest.max_length)
        tokens = random_tokens(rng, lengths, classifier.spec.vocabulary)
        encoded = Encoded(tokens, np.zeros(len(tokens), bool))
        found.append(Case(f"random texts of about {mean} tokens", encoded, n_texts))
    return found


@dataclass(frozen=True)
class ShapeCost:
    """Seconds of the parts of a call at one shape of the grid."""

    tokens: int  # of the batch
    length: int  # of each text, tokens
    layer: float  # seconds of a layer before the last
    last: float  # seconds of the last layer and the last rung's head
    head: float  # seconds of an exit head
    call: float  # seconds of the call itself


@dataclass(frozen=True)
class GainError(PredictionError):
    """A prediction error with the error of the predicted speed-up over full depth.

    The speed of a shared machine varies, which changes all times alike, but not the speed-up.
    """

    gain_error: float = 0.0  # relative: 0.1 = the predicted speed-up is 10 % too large


@dataclass(frozen=True)
class ProfileCheck:
    """A measured profile, and its prediction errors."""

    model: str
    profile: Path  # its file
    key: str  # short name of its conditions
    date: str
    conditions: Conditions
    layer: tuple[ShapeCost, ...]
    errors: tuple[GainError, ...]

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return dict(json_values(self)) | {"errors": [error.to_dict() for error in self.errors]}


def check_profile(
    model: str,
    source: str | None = None,
    batch_sizes: Sequence[int] = (1, 32),
    points: Sequence[str] | None = None,
    columns: Columns = DEFAULT_COLUMNS,
    options: ModelOptions = ModelOptions(),
    texts: int = 512,
    rounds: int = 5,
    progress: Callable[[str], None] | None = None,
    effort: Effort = Effort(),
) -> ProfileCheck:
    """Measures and stores the profile; errors are on held-out shapes and on at most `texts` texts of the source.

    The predicted calls are timed in the same `rounds` as the profile, so `effort.rounds` is not used. Errors are at
    full depth and at each operating point; `points` None = all of the model's. Labels are not needed. UserError for a
    batch size below 1, a small model alone, a cascade, or a model that reads windows.
    """
    if not batch_sizes or min(batch_sizes) < 1:
        raise UserError(f"batch sizes {list(batch_sizes)}: each must be at least 1")
    check_has_layers(model, "profile")
    check_one_encoder(model, "profile")
    check_one_sequence(model, "profile")
    classifier = options.open(model)
    if points is None:
        points = [point.name for point in classifier.manifest.operating_points]
    rules = {point: classifier.rule_of(point) for point in (FULL, *points)}
    cases = held_out(classifier)
    if source is not None:
        encoded = _encoded(classifier, source, columns, texts)
        cases += [Case(source, encoded, size) for size in batch_sizes]
    calls = [case.calls(classifier, rules) for case in cases]
    profile, timings = profile_beside(classifier, calls, progress, dataclasses.replace(effort, rounds=rounds))
    keep_profile(profile, classifier)
    errors = [error for case in cases for error in case.errors(profile, classifier, rules, timings)]
    return ProfileCheck(
        model=model,
        profile=profile_file(classifier),
        key=profile.key,
        date=profile.date,
        conditions=profile.conditions,
        layer=tuple(shape_costs(profile)),
        errors=tuple(with_gain_errors(errors)),
    )


def with_gain_errors(errors: Sequence[PredictionError]) -> list[GainError]:
    """Adds to each error that of the speed-up over full depth on the same texts in the same batches."""
    full = {(error.texts, error.batch): 1 + error.error for error in errors if error.point == FULL}
    return [
        GainError(**vars(error), gain_error=full[error.texts, error.batch] / (1 + error.error) - 1) for error in errors
    ]


def shape_costs(profile: Profile) -> list[ShapeCost]:
    """Seconds of the parts at a few shapes of the grid, for display."""
    longest = profile.lengths[-1]
    found = []
    for n in (8, 24, 48, 96, 192, 384, 1536):
        for length in dict.fromkeys((min(8, longest), min(32, longest), longest)):
            if length <= n <= profile.tokens[-1]:
                shape = np.array(n), np.array(n * length)
                parts = {name: float(profile.seconds(name, *shape)) for name in ("layer", "last", "head", "call")}
                found.append(ShapeCost(n, length, **parts))
    return found


def _encoded(classifier: OpenedModel, source: str, columns: Columns, texts: int) -> Encoded:
    rows = load(source, dataclasses.replace(columns, label=None))
    check_pairs(classifier, rows)
    encoded = classifier.tokenizer.encode(rows.texts, rows.pairs)
    return encoded.take(sample(len(encoded.tokens), texts))
