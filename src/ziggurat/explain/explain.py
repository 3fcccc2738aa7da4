"""Explains how a model answered one text: its tokens, its rungs and its cost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from ziggurat.data.packing import pack
from ziggurat.data.tokenizer import Encoded
from ziggurat.engine.backend import Outcomes
from ziggurat.engine.backends.recording import PruningStep, RecordingBackend
from ziggurat.engine.opened import FULL, OpenedModel, Text
from ziggurat.engine.tiers import TierSlice
from ziggurat.errors import UserError
from ziggurat.explain.page import page
from ziggurat.explain.record import (
    Answered,
    Explanation,
    RungDecision,
    WindowShown,
    decision_of,
    pruning_of,
    tokens_of,
)
from ziggurat.files import whole_file
from ziggurat.measure.subject import ModelOptions, exit_rule
from ziggurat.measure.targets import check_result_path
from ziggurat.policies.exits import exit_score
from ziggurat.policies.rules import ExitRule
from ziggurat.system import utf8


def explain(
    model: str,
    text: Text,
    operating_point: str = "balanced",
    threshold: float | None = None,
    score: str | None = None,
    options: ModelOptions = ModelOptions(),
    html: Path | None = None,
) -> Explanation:
    """The layer at which each token of an input was dropped, and the decision of each rung.

    `text` is a text, a pair of texts, or a question and its text. The answer is that of `predict` for this input alone.
    With `html` the explanation is also written as a page. UserError for a pair if the model reads single texts, or the
    reverse; for an unknown operating point; and for a page that would replace a file of the model.
    """
    if html is not None:
        check_result_path(html, model)
    opened = options.open(model)
    rule = exit_rule(opened, operating_point, threshold, score)
    name = operating_point if threshold is None else f"{rule.score} {threshold:g}"
    result = replace(explanation(opened, text, rule), model=model, operating_point=name)
    if html is None:
        return result
    with whole_file(html) as path:
        path.write_bytes(utf8(page(result)))
    return replace(result, html=html)


def explanation(classifier: OpenedModel, text: Text, rule: ExitRule) -> Explanation:
    """As `explain`, for an open model.

    If an input has several sequences, the one with the answer is shown; a rung's score is of all of them. An infinite
    threshold is the string "inf" or "-inf", because JSON has no infinity; None = no threshold.
    """
    _check_kind(classifier, text)
    sides, problem = [text] if isinstance(text, str) else list(text), classifier.problem
    encoded, full_rule = classifier.encode([text]), classifier.rule_of(FULL)
    outcomes, full = classifier.run(encoded, rule), classifier.run(encoded, full_rule)
    (answer,), (full_answer,) = (
        classifier.answers(encoded, outcomes, rule),
        classifier.answers(encoded, full, full_rule),
    )
    sequence = problem.sequence_shown(outcomes.readings[0])
    place = _place_of(classifier, int(outcomes.rungs[0]))
    steps = _steps(classifier, place, encoded, sequence, int(outcomes.rungs[0]), rule)
    shown, full_flops = problem.shown_fields(encoded, sequence, sides), int(classifier.full_flops(encoded)[0])
    return Explanation(
        text=shown["text"] if isinstance(shown["text"], str) else tuple(shown["text"]),
        windows=WindowShown(**shown["windows"]) if "windows" in shown else None,
        answer=_fields(classifier, encoded, outcomes),
        layers=answer.trace.layers,
        of_layers=int(classifier.depths[-1]),
        truncated=answer.trace.truncated,
        flops=answer.trace.flops,
        full_flops=full_flops,
        flops_ratio=full_flops / answer.trace.flops,
        score=rule.score,
        larger_is_surer=exit_score(rule.score).larger_is_surer,
        full=_fields(classifier, encoded, full),
        agrees=problem.same(full_answer.label, answer.label),
        rungs=tuple(_rungs(classifier, encoded, rule, outcomes)),
        pruning=pruning_of(place.tier.manifest, rule, steps),
        tokens=tokens_of(problem.pieces(place.tier.tokenizer, encoded, sequence, sides), steps),
    )


def _check_kind(classifier: OpenedModel, text: Text) -> None:
    if classifier.manifest.pairs and isinstance(text, str):
        raise UserError(f"text: the model reads {classifier.problem.pair}; give a second text")
    if not classifier.manifest.pairs and not isinstance(text, str):
        raise UserError("text: the model reads single texts; give one, in quotation marks on a command line")


def _fields(classifier: OpenedModel, encoded: Encoded, outcomes: Outcomes) -> Answered:
    """The answer of one input's outcomes, as fields."""
    shares = classifier.problem.probabilities(outcomes.readings)
    prediction = classifier.predictions(encoded, outcomes)[0]
    return classifier.problem.fields(prediction, None if shares is None else shares[0])


def _place_of(classifier: OpenedModel, rung: int) -> TierSlice:
    """The tier of this rung; later tiers did not read the text."""
    return next(place for place in classifier.ladder.slices if rung < place.rungs.stop)


def _steps(
    classifier: OpenedModel, place: TierSlice, encoded: Encoded, sequence: int, rung: int, rule: ExitRule
) -> list[PruningStep]:
    """The pruning step of each layer that ran, for one sequence, in the tier that answered at this rung."""
    tier, tokens = place.tier, place.pruning(rule.tokens)
    ids = classifier.ladder.inputs_of(tier, encoded).tokens[sequence]
    backend = RecordingBackend(tier.backend)
    live = backend.embed(pack([np.ascontiguousarray(ids[:, :2])]), tokens)
    for layer in range(1, tier.backend.rung_layers[rung - place.rungs.start] + 1):
        live = backend.layer(layer, live, tokens)
    return backend.steps


def _rungs(classifier: OpenedModel, encoded: Encoded, rule: ExitRule, outcomes: Outcomes) -> Iterator[RungDecision]:
    """The answer and the decision of each evaluated rung, up to the one that answered."""
    problem, last = classifier.problem, int(outcomes.rungs[0])
    readings = classifier.every_rung(encoded, tokens=rule.tokens).readings
    readings[:, last] = outcomes.readings  # exactly; the run of all rungs may round differently
    predictions, shares = problem.predictions(readings, encoded), problem.probabilities(readings)
    active = np.flatnonzero(rule.active[: last + 1]).tolist()
    for count, rung in enumerate(active, start=1):
        answer = problem.fields(predictions[0, rung], None if shares is None else shares[0, rung])
        yield decision_of(classifier, rule, rung, readings[:, active[:count]], answer)
