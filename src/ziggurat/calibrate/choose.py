"""Chooses operating points on the select rows: the cheapest setting before any loses more than the target there.

Chosen is not certified: `confidence` stays None until rows that chose nothing vouch for the point.
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

TARGETS: Mapping[str, float] = {"exact": 0.0, "balanced": 0.005, "fast": 0.01}  # accuracy that may be lost
_HAIR = 1e-4  # beyond the smallest and largest score
_CANDIDATES = 256  # thresholds that are tried: quantiles of the scores that occur


@dataclass(frozen=True)
class Ladder:
    """What all rungs say to the select rows at one strength of pruning, and what that costs."""

    every: np.ndarray  # (n, n_rungs, width) readings
    cost: Callable[[ExitRule], np.ndarray]  # FLOPs of leaving at each rung, (n, n_rungs)
    pruning: float = 1.0  # factor on the model's pruning thresholds; 0 = nothing is pruned
    predictions: np.ndarray | None = None  # (n, n_rungs, …) of these readings; None = as the problem has them alone


@dataclass(frozen=True)
class _Setting:
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
    """One operating point for each target, the cheapest over all ladders.

    The first ladder's last rung is the full model: what is lost is counted from there, so it should not be pruned.
    `labels` (n), or None to measure agreement with the full model instead of accuracy; `temperatures` (n_rungs) divide
    the logits for the score, and are written into the points. `reference` is the accuracy that the model had before it
    was pruned: where it is better than the full model's, what is lost is counted from there. Where nothing keeps a
    target the point is the full model. `score` None = the problem's default. Accuracy is 1 minus
    the problem's mean loss.
    """
    score = problem.scores[0] if score is None else score
    right = _graded(ladders, labels, problem)
    whole = max(float(right[0][:, -1].mean()), reference)
    walks = [_settings(ladder, score, temperatures, mine) for ladder, mine in zip(ladders, right, strict=True)]
    written = None if temperatures is None else tuple(temperatures.tolist())
    points = []
    for name, target in targets.items():
        fine = chain.from_iterable(_admissible(walk, whole - target) for walk in walks)
        best = min(fine, key=lambda one: one.cost, default=walks[0][0])
        chosen = tuple(None if np.isnan(threshold) else float(threshold) for threshold in best.rule.thresholds)
        points.append(
            OperatingPoint(name, score, chosen, fingerprint, target, None, data, written, pruning=best.pruning)
        )
    return tuple(points)


def _graded(ladders: Sequence[Ladder], labels: np.ndarray | None, problem: Problem) -> list[np.ndarray]:
    """How right the rungs of each ladder are, (n, n_rungs)."""
    answers = [_predictions(ladder, problem) for ladder in ladders]
    truth, loss = (answers[0][:, -1], problem.differs) if labels is None else (labels, problem.loss)
    return [rights(predictions, loss, truth) for predictions in answers]


def _predictions(ladder: Ladder, problem: Problem) -> np.ndarray:
    return problem.predictions(ladder.every) if ladder.predictions is None else ladder.predictions


def rights(predictions: np.ndarray, loss: Loss, truth: np.ndarray) -> np.ndarray:
    """1 minus the loss of every rung's answer: predictions (n, n_rungs, …), labels (n, …) → (n, n_rungs)."""
    return np.stack([1 - loss(predictions[:, rung], truth) for rung in range(predictions.shape[1])], axis=1)


def _settings(ladder: Ladder, score: str, temperatures: np.ndarray | None, right: np.ndarray) -> list[_Setting]:
    """The rules worth trying from dear to cheap, full depth first: unpruned, that is always admissible."""
    every, n_rungs = ladder.every, ladder.every.shape[1]
    thresholds = candidate_thresholds(every, score, temperatures)[:: -1 if exit_score(score).larger_is_surer else 1]
    rules = [
        ExitRule.full_depth(n_rungs),
        *(ExitRule.uniform(score, threshold, n_rungs, temperatures) for threshold in thresholds),
    ]
    asked = ladder.cost(rules[-1])  # all shared thresholds ask the same heads, so they pay the same for a rung
    everyone, settings = np.arange(len(every)), []
    for rule in rules:
        rungs = replay(every, rule)
        flops = ladder.cost(rule) if rule is rules[0] else asked
        settings.append(
            _Setting(rule, ladder.pruning, float(right[everyone, rungs].mean()), float(flops[everyone, rungs].mean()))
        )
    return settings


def _admissible(walk: Iterable[_Setting], least: float) -> Iterator[_Setting]:
    """Up to the first setting that loses too much: one beyond it that does not owes that to luck."""
    return takewhile(lambda one: one.right >= least - 1e-12, walk)


def candidate_thresholds(every: np.ndarray, score: str, temperatures: np.ndarray | None = None) -> np.ndarray:
    """Thresholds worth trying, rising float64: of a count all that it can reach, else (at most 257) between quantiles.

    Quantiles of the score at all rungs but the last. Between, and not on them: a score that equals its threshold leaves
    or stays by the rounding of its batch. A count has no rounding, and the threshold 2 reads better than 1.5.
    """
    n_rungs = every.shape[1]
    if n_rungs == 1:  # a model without exits has nowhere to put a threshold
        return np.empty(0)
    asked = exit_score(score)
    most = asked.largest_count(n_rungs)
    if most is not None:
        return np.arange(most + 1, dtype=np.float64)
    seen = every if temperatures is None else every / temperatures[:, None]
    values = np.concatenate([asked.of(seen[:, : rung + 1]) for rung in range(n_rungs - 1)])
    values = values[np.isfinite(values)]  # without those that have nothing to compare with yet
    if not len(values):
        return np.empty(0)
    quantiles = np.unique(np.quantile(values, np.linspace(0, 1, _CANDIDATES)))
    return np.concatenate([quantiles[:1] - _HAIR, (quantiles[1:] + quantiles[:-1]) / 2, quantiles[-1:] + _HAIR])


_LARGEST = 20.0  # and 1 / 20 at the other end: rows that a rung gets all right would drive it to 0


def fit_temperatures(every: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """What to divide each rung's logits by: (n, n_rungs, n_classes) and (n) class indices → (n_rungs) float64.

    Each minimises the mean negative log-likelihood of the labels (Guo et al. 2017; per exit as in Sledgehammer), or is
    exactly 1 where the best one found does not improve on that. No prediction changes. Needs scipy.
    """
    return np.array([_fit_one(every[:, rung], labels) for rung in range(every.shape[1])])


def likelihood_loss(logits: np.ndarray, labels: np.ndarray, temperature: float = 1.0) -> float:
    """Mean negative log-likelihood of the labels (n) under logits (n, n_classes) / temperature, in nats."""
    logs = log_softmax(logits / np.float64(temperature))
    return float(-logs[np.arange(len(labels)), labels].mean())


def _fit_one(logits: np.ndarray, labels: np.ndarray) -> float:
    from scipy.optimize import minimize_scalar

    # The loss is convex in 1 / T, so it has one valley in log T too, and a bounded search finds it.
    end = np.log(_LARGEST)
    found = minimize_scalar(
        lambda log: likelihood_loss(logits, labels, np.exp(log)), bounds=(-end, end), method="bounded"
    )
    best = float(np.exp(found.x))
    return best if likelihood_loss(logits, labels, best) < likelihood_loss(logits, labels) else 1.0


_PENALTY = 1.0  # of half the squared weights, in rows: weak beside some hundred rows


def fit_deferral(
    readings: np.ndarray, predictions: np.ndarray, truth: np.ndarray | None, problem: Problem
) -> np.ndarray:
    """Weights (n_rungs - 1, 4 + width) of `policies.exits.learned` from what all rungs said.

    `readings` (n, n_rungs, width) and their `predictions` (n, n_rungs, …); `truth` (n, …), None = the last rung's
    answers. The score learns how much each answer is worth keeping (`Problem.keeps`).
    """
    keeps = problem.keeps(predictions, truth)
    found = [_logistic(features(readings[:, : rung + 1]), keeps[:, rung]) for rung in range(keeps.shape[1])]
    return np.array(found).reshape(-1, 4 + readings.shape[2])


def _logistic(table: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Weights (m) with which features (n, m) say the shares `wanted` (n) in [0, 1]."""
    from scipy.optimize import minimize
    from scipy.special import expit

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        said = table @ weights
        value = np.logaddexp(0, said).sum() - wanted @ said + _PENALTY / 2 * (weights @ weights)
        return float(value), table.T @ (expit(said) - wanted) + _PENALTY * weights

    return minimize(loss, np.zeros(table.shape[1]), jac=True, method="L-BFGS-B").x


def with_operating_points(classifier: OpenedModel, select: Dataset, recipe: Recipe, progress: bool) -> Manifest:
    """The manifest with the points that the select rows choose; UserError for rows of another role."""
    ladders, problem = select_ladders(classifier, select, progress=progress), classifier.problem
    points = choose_points(
        ladders,
        select.labels,
        classifier.manifest.fingerprint,
        select.digest,
        recipe.exit_score,
        problem=problem,
        temperatures=fit_temperatures(ladders[-1].every, select.classes) if recipe.temperatures else None,
        reference=float(classifier.manifest.training.get(REFERENCE, 0.0)),
    )
    training = dict(classifier.manifest.training)
    if classifier.token_rule is not None and select.labels is not None:
        right = rights(_predictions(ladders[-1], problem)[:, -1:], problem.loss, select.labels)
        training[PRUNED] = float(right.mean())
    return dataclasses.replace(classifier.manifest, operating_points=points, training=training)


def fitted_offsets(classifier: OpenedModel, select: Dataset, progress: bool) -> tuple[float, ...] | None:
    """The numbers of the rungs that their answers depend on (`Problem.rung_offsets`); None = there are none."""
    if select.labels is None:
        return None
    encoded = classifier.encode_rows(select)
    tokens = scaled(classifier.token_rule, pruning_strengths(classifier.token_rule)[0])
    run = partial(classifier.every_rung, encoded, progress=progress, tokens=tokens)
    return classifier.problem.rung_offsets(lambda: run().readings, encoded, select.truth)


def select_ladders(
    classifier: OpenedModel, select: Dataset, factors: Sequence[float] | None = None, progress: bool = False
) -> list[Ladder]:
    """What every rung says to the select rows at several strengths of pruning; UserError for rows of another role.

    By default the first strength is none and the last the one that the model was trained for.
    """
    select.require(Role.SELECT)
    encoded = classifier.encode_rows(select)
    factors = pruning_strengths(classifier.token_rule) if factors is None else factors
    return [_ladder(classifier, encoded, factor, progress) for factor in factors]


def pruning_strengths(tokens: TokenRule | None) -> tuple[float, ...]:
    """Factors on the model's pruning that are worth a run; the first is none, the last what it was trained for."""
    if tokens is None:
        return (1.0,)
    return (0.0, 0.5, 0.75, 1.25, 1.0) if tokens.keep is above else (0.0, 1.0)


def _ladder(classifier: OpenedModel, encoded: Encoded, factor: float, progress: bool) -> Ladder:
    tokens = scaled(classifier.token_rule, factor)
    every = classifier.every_rung(encoded, progress=progress, tokens=tokens)

    def cost(rule: ExitRule) -> np.ndarray:
        return classifier.spent(encoded, every.token_counts, replace(rule, tokens=tokens))

    return Ladder(every.readings, cost, factor, classifier.problem.predictions(every.readings, encoded))
