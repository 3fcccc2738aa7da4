"""Operating points of a model from select rows: what `train` and `adapt` end with."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import replace

from ziggurat.calibrate.choose import Ladder, choose_points, rights
from ziggurat.calibrate.temperature import fit_temperatures
from ziggurat.data.tasks import Dataset, Role
from ziggurat.data.tokenize import Encoded
from ziggurat.encoder.folder import PRUNED, REFERENCE, Manifest
from ziggurat.engine.classifier import AdaptiveClassifier
from ziggurat.policies.prune import TokenRule, above, scaled
from ziggurat.recipe import Recipe


def with_operating_points(classifier: AdaptiveClassifier, select: Dataset, recipe: Recipe, progress: bool) -> Manifest:
    """The manifest with the points that the select rows choose; UserError for rows of another role."""
    ladders = select_ladders(classifier, select, progress=progress)
    points = choose_points(
        ladders,
        select.labels,
        classifier.manifest.fingerprint,
        select.digest,
        recipe.exit_score,
        output=classifier.output,
        temperatures=fit_temperatures(ladders[-1].every, select.classes) if recipe.temperatures else None,
        reference=float(classifier.manifest.training.get(REFERENCE, 0.0)),
    )
    training = dict(classifier.manifest.training)
    if classifier.token_rule is not None and select.labels is not None:
        right = rights(ladders[-1].every, classifier.output, classifier.output.loss, select.labels)
        training[PRUNED] = float(right[:, -1].mean())
    return dataclasses.replace(classifier.manifest, operating_points=points, training=training)


def select_ladders(
    classifier: AdaptiveClassifier, select: Dataset, factors: Sequence[float] | None = None, progress: bool = False
) -> list[Ladder]:
    """What every rung says to the select rows at several strengths of pruning; UserError for rows of another role.

    By default the first strength is none and the last the one that the model was trained for.
    """
    select.require(Role.SELECT)
    encoded = classifier.tokenizer.encode(select.texts, select.pairs)
    factors = pruning_strengths(classifier.token_rule) if factors is None else factors
    return [_ladder(classifier, encoded, factor, progress) for factor in factors]


def pruning_strengths(tokens: TokenRule | None) -> tuple[float, ...]:
    """Factors on the model's pruning that are worth a run; the first is none, the last what it was trained for."""
    if tokens is None:
        return (1.0,)
    return (0.0, 0.5, 0.75, 1.25, 1.0) if tokens.keep is above else (0.0, 1.0)


def _ladder(classifier: AdaptiveClassifier, encoded: Encoded, factor: float, progress: bool) -> Ladder:
    tokens = scaled(classifier.token_rule, factor)
    every = classifier.every_rung(encoded, progress=progress, tokens=tokens)
    return Ladder(every.logits, lambda rule: classifier.flops(every.kept, replace(rule, tokens=tokens)), factor)
