"""Chooses operating points on the select rows: the cheapest setting before the first that loses more than the target.

A chosen point is not certified: `confidence` stays None until independent rows certify the point.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, takewhile

import numpy as np

from ziggurat.data.dataset import Dataset, Role
from ziggurat.data.tokenizer import Encoded
from ziggurat.encoder.folder import PRUNED, REFERENCE, Manifest
from ziggurat.engine.opened import OpenedModel
from ziggurat.engine.replay import replay
from ziggurat.policies.exits import exit_score, features, log_softmax
from ziggurat.policies.prune import TokenRule, above, scaled
from ziggurat.policies.rules import ExitRule
from ziggurat.problems.classes import CLASSES
from ziggurat.problems.problem import Loss, Problem
from ziggurat.recipe import Recipe
from ziggurat.types import OperatingPoint

TARGETS: Mapping[str, float] = {"exact": 0.0, "balanced": 0.005, "fast": 0.01}  # largest drop in accuracy
_EPSILON = 1e-4  # distance beyond the smallest and the largest score
_CANDIDATES = 256  # thresholds to try: quantiles of the scores that occur


@dataclass(frozen=True)
class Ladder:
    """Readings of all rungs for the select rows at one strength of pruning, and their cost."""

    all_readings: np.ndarray  # (n, n_rungs, width) readings
    cost: Callable[[ExitRule], np.ndarray]  # FLOPs of an exit at each rung, (n, n_rungs)
    pruning: float = 1.0  # factor on the model's pruning thresholds; 0 = nothing is pruned
    predictions: np.ndarray | None = None  # (n, n_rungs, …); None = computed from the readings


@dataclass(frozen=True)
class _RuleResult:
    """One rule on the select rows."""

    rule: ExitRule
    pruning: float
    right: float  # share of right answers
    cost: float  # mean FLOPs


def choose_points(
    ladders: Sequence[Ladder],
    labels: np.ndarray | None,
    fingerprint: str,
    data: str,
    score: str | None = None,
    targets: Mapping[str, float] = TARGETS,
    temperatures: np.ndarray | None = None,
    reference: float = 0.0,
    problem: Problem = CLASSES,
) -> tuple[OperatingPoint, ...]:
    """One operating point for each target: the cheapest setting of all ladders that keeps it.

    The last rung of the first ladder is the full model. Losses are relative to it, so it should not be pruned. `labels`
    (n); None measures agreement with the full model instead of accuracy. `temperatures` (n_rungs) divide the logits for
    the score, and are stored in the points. `reference` is the model's accuracy before pruning; if it is better than
    the full model's, losses are relative to it. If no setting keeps a target, the point is the full model. `score`
    None = the problem's default. Accuracy is 1 minus the problem's mean loss.
    """
    score = problem.scores[0] if score is None else score
    right = _graded(ladders, labels, problem)
    full_right = max(float(right[0][:, -1].mean()), reference)
    walks = [_rule_results(ladder, score, temperatures, grades) for ladder, grades in zip(ladders, right, strict=True)]
    written = None if temperatures is None else tuple(temperatures.tolist())
    points = []
    for name, target in targets.items():
        fine = chain.from_iterable(_admissible(walk, full_right - target) for walk in walks)
        best = min(fine, key=lambda result: result.cost, default=walks[0][0])
        chosen = tuple(None if np.isnan(threshold) else float(threshold) for threshold in best.rule.thresholds)
        points.append(
            OperatingPoint(name, score, chosen, fingerprint, target, None, data, written, pruning=best.pruning)
        )
    return tuple(points)


def _graded(ladders: Sequence[Ladder], labels: np.ndarray | None, problem: Problem) -> list[np.ndarray]:
    """1 minus the loss of each rung of each ladder, (n, n_rungs)."""
    answers = [_predictions(ladder, problem) for ladder in ladders]
    truth, loss = (answers[0][:, -1], problem.differs) if labels is None else (labels, problem.loss)
    return [rights(predictions, loss, truth) for predictions in answers]


def _predictions(ladder: Ladder, problem: Problem) -> np.ndarray:
    return problem.predictions(ladder.all_readings) if ladder.predictions is None else ladder.predictions


def rights(predictions: np.ndarray, loss: Loss, truth: np.ndarray) -> np.ndarray:
    """1 minus the loss of every rung's answer: predictions (n, n_rungs, …), labels (n, …) → (n, n_rungs)."""
    return np.stack([1 - loss(predictions[:, rung], truth) for rung in range(predictions.shape[1])], axis=1)


def _rule_results(ladder: Ladder, score: str, temperatures: np.ndarray | None, right: np.ndarray) -> list[_RuleResult]:
    """Results of all rules, from expensive to cheap; full depth comes first. Unpruned, it is always admissible."""
    all_readings, n_rungs = ladder.all_readings, ladder.all_readings.shape[1]
    thresholds = candidate_thresholds(all_readings, score, temperatures)[
        :: -1 if exit_score(score).larger_is_surer else 1
    ]
    rules = [
        ExitRule.full_depth(n_rungs),
        *(ExitRule.uniform(score, threshold, n_rungs, temperatures) for threshold in thresholds),
    ]
    shared_flops = ladder.cost(rules[-1])  # all shared thresholds run the same heads, so a rung costs the same
    all_rows, results = np.arange(len(all_readings)), []
    for rule in rules:
        rungs = replay(all_readings, rule)
        flops = ladder.cost(rule) if rule is rules[0] else shared_flops
        results.append(
            _RuleResult(
                rule, ladder.pruning, float(right[all_rows, rungs].mean()), float(flops[all_rows, rungs].mean())
            )
        )
    return results


def _admissible(walk: Iterable[_RuleResult], least: float) -> Iterator[_RuleResult]:
    """Results before the first that loses too much; a later result that loses less is likely to be luck."""
    return takewhile(lambda result: result.right >= least - 1e-12, walk)


def candidate_thresholds(all_readings: np.ndarray, score: str, temperatures: np.ndarray | None = None) -> np.ndarray:
    """Thresholds to try, rising float64: all values of a count, else at most 257 midpoints between quantiles.

    The quantiles are of the score at all rungs but the last. Midpoints, because with a score equal to the threshold the
    rounding of the batch would decide the exit. A count has no rounding, and the threshold 2 reads better than 1.5.
    """
    n_rungs = all_readings.shape[1]
    if n_rungs == 1:  # a model without exits needs no threshold
        return np.empty(0)
    kind = exit_score(score)
    most = kind.largest_count(n_rungs)
    if most is not None:
        return np.arange(most + 1, dtype=np.float64)
    readings = all_readings if temperatures is None else all_readings / temperatures[:, None]
    values = np.concatenate([kind.of(readings[:, : rung + 1]) for rung in range(n_rungs - 1)])
    values = values[np.isfinite(values)]  # a first rung of a comparing score has no value
    if not len(values):
        return np.empty(0)
    quantiles = np.unique(np.quantile(values, np.linspace(0, 1, _CANDIDATES)))
    return np.concatenate([quantiles[:1] - _EPSILON, (quantiles[1:] + quantiles[:-1]) / 2, quantiles[-1:] + _EPSILON])


_LARGEST = 20.0  # bounds are 1 / 20 and 20: a rung without errors would drive the temperature to 0


def fit_temperatures(all_readings: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Temperatures that divide each rung's logits: (n, n_rungs, n_classes) and (n) class indices → (n_rungs) float64.

    Each minimises the mean negative log-likelihood of the labels (Guo et al. 2017; per exit as in Sledgehammer). It is
    exactly 1 if the minimiser is no better than 1. Predictions do not change. Needs scipy.
    """
    return np.array([_fit_one(all_readings[:, rung], labels) for rung in range(all_readings.shape[1])])


def likelihood_loss(logits: np.ndarray, labels: np.ndarray, temperature: float = 1.0) -> float:
    """Mean negative log-likelihood of the labels (n) under logits (n, n_classes) / temperature, in nats."""
    logs = log_softmax(logits / np.float64(temperature))
    return float(-logs[np.arange(len(labels)), labels].mean())


def _fit_one(logits: np.ndarray, labels: np.ndarray) -> float:
    from scipy.optimize import minimize_scalar

    # The loss is convex in 1 / T, so it has a single minimum in log T, which a bounded search finds.
    end = np.log(_LARGEST)
    found = minimize_scalar(
        lambda log: likelihood_loss(logits, labels, np.exp(log)), bounds=(-end, end), method="bounded"
    )
    best = float(np.exp(found.x))
    return best if likelihood_loss(logits, labels, best) < likelihood_loss(logits, labels) else 1.0


_PENALTY = 1.0  # factor of half the squared weights; weak compared with a few hundred rows


def fit_deferral(
    readings: np.ndarray, predictions: np.ndarray, truth: np.ndarray | None, problem: Problem
) -> np.ndarray:
    """Weights (n_rungs - 1, 4 + width) of `policies.exits.learned`, fitted to the readings of all rungs.

    `readings` (n, n_rungs, width) and their `predictions` (n, n_rungs, …); `truth` (n, …), None = the last rung's
    predictions. The target is `Problem.keeps`: how good it is to keep each answer.
    """
    keeps = problem.keeps(predictions, truth)
    found = [_logistic(features(readings[:, : rung + 1]), keeps[:, rung]) for rung in range(keeps.shape[1])]
    return np.array(found).reshape(-1, 4 + readings.shape[2])


def _logistic(table: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Weights (m) of a logistic regression of the shares `wanted` (n) in [0, 1] on features (n, m)."""
    from scipy.optimize import minimize
    from scipy.special import expit

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        logits = table @ weights
        value = np.logaddexp(0, logits).sum() - wanted @ logits + _PENALTY / 2 * (weights @ weights)
        return float(value), table.T @ (expit(logits) - wanted) + _PENALTY * weights

    return minimize(loss, np.zeros(table.shape[1]), jac=True, method="L-BFGS-B").x


def with_operating_points(classifier: OpenedModel, select: Dataset, recipe: Recipe, progress: bool) -> Manifest:
    """The manifest with points chosen on the select rows; UserError for rows of another role."""
    ladders, problem = select_ladders(classifier, select, progress=progress), classifier.problem
    points = choose_points(
        ladders,
        select.labels,
        classifier.manifest.fingerprint,
        select.digest,
        recipe.exit_score,
        problem=problem,
        temperatures=fit_temperatures(ladders[-1].all_readings, select.classes) if recipe.temperatures else None,
        reference=float(classifier.manifest.training.get(REFERENCE, 0.0)),
    )
    training = dict(classifier.manifest.training)
    if classifier.token_rule is not None and select.labels is not None:
        right = rights(_predictions(ladders[-1], problem)[:, -1:], problem.loss, select.labels)
        training[PRUNED] = float(right.mean())
    return dataclasses.replace(classifier.manifest, operating_points=points, training=training)


def fitted_offsets(classifier: OpenedModel, select: Dataset, progress: bool) -> tuple[float, ...] | None:
    """Offsets of the rungs that the problem's answers use (`Problem.rung_offsets`); None = it uses none."""
    if select.labels is None:
        return None
    encoded = classifier.encode_rows(select)
    tokens = scaled(classifier.token_rule, pruning_strengths(classifier.token_rule)[0])
    run = partial(classifier.every_rung, encoded, progress=progress, tokens=tokens)
    return classifier.problem.rung_offsets(lambda: run().readings, encoded, select.truth)


def select_ladders(
    classifier: OpenedModel, select: Dataset, factors: Sequence[float] | None = None, progress: bool = False
) -> list[Ladder]:
    """Ladders of the select rows at several strengths of pruning; UserError for rows of another role.

    By default the first strength does not prune, and the last is the one that the model was trained for.
    """
    select.require(Role.SELECT)
    encoded = classifier.encode_rows(select)
    factors = pruning_strengths(classifier.token_rule) if factors is None else factors
    return [_ladder(classifier, encoded, factor, progress) for factor in factors]


def pruning_strengths(tokens: TokenRule | None) -> tuple[float, ...]:
    """Factors on the model's pruning to run; the first does not prune, the last is the trained strength."""
    if tokens is None:
        return (1.0,)
    return (0.0, 0.5, 0.75, 1.25, 1.0) if tokens.keep is above else (0.0, 1.0)


def _ladder(classifier: OpenedModel, encoded: Encoded, factor: float, progress: bool) -> Ladder:
    tokens = scaled(classifier.token_rule, factor)
    all_rungs = classifier.every_rung(encoded, progress=progress, tokens=tokens)

    def cost(rule: ExitRule) -> np.ndarray:
        return classifier.flops(encoded, all_rungs.token_counts, replace(rule, tokens=tokens))

    return Ladder(all_rungs.readings, cost, factor, classifier.problem.predictions(all_rungs.readings, encoded))
