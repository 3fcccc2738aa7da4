"""Computes the data of a calibration's page from the stored runs, and writes the page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ziggurat.calibrate.candidates import uncertainty_of
from ziggurat.calibrate.page.curves import (
    FULL_DEPTH,
    band,
    frontier_curve,
    mechanisms,
    oracle_curve,
    random_curve,
    rungs_of,
    shown_frontier,
)
from ziggurat.calibrate.page.data import Costly, Picture, Spot, costliest, deciles, exit_shares, tokens_left
from ziggurat.calibrate.page.page import page
from ziggurat.calibrate.paths import Setting
from ziggurat.calibrate.points import Chosen, rule_of
from ziggurat.calibrate.result import Calibration
from ziggurat.calibrate.risks import risk_by_name
from ziggurat.calibrate.rows import RungRuns, full_run
from ziggurat.calibrate.times import PredictedTime
from ziggurat.data.labels import labelled
from ziggurat.engine.opened import OpenedModel
from ziggurat.files import whole_file
from ziggurat.policies.exits import exit_score
from ziggurat.policies.rules import ExitRule
from ziggurat.problems.problem import Problem
from ziggurat.system import utf8

_COSTLY = 10


def write_page(html: Path, result: Calibration, shown: Picture) -> None:
    """Writes the page of a calibration's result.

    UserError if matplotlib is not installed or the file cannot be written.
    """
    text = page(result, shown)
    with whole_file(html) as path:
        path.write_bytes(utf8(text))


def picture(
    result: Calibration,
    classifier: OpenedModel,
    chosen: Sequence[Chosen],
    paths: Sequence[Sequence[Setting]],
    search_rows: RungRuns,
    certify_rows: RungRuns,
    time: PredictedTime,
) -> Picture:
    """The data of the page; `time` predicts for `search_rows`."""
    risk, sure = risk_by_name(result.criterion, classifier.problem), result.confidence
    front = shown_frontier(paths)
    full = full_run(certify_rows.runs)
    full_loss = float(certify_rows.losses[full.pruning][:, -1].mean())
    full_accuracy = _accuracy(classifier.problem, full.predictions()[:, -1], certify_rows)
    full_seconds = time.of_full_depth(len(classifier.rungs))
    target = max((choice.certified.target for choice in chosen), default=0.0)
    measured = [choice.certificate.full_ms for choice in chosen if choice.certificate is not None]
    tied = risk.name == "accuracy" and full_accuracy is not None
    costly_at, mean, costly = _costly(classifier, chosen, certify_rows)
    return Picture(
        rungs=tuple(rung.name for rung in classifier.rungs),
        full_ms=measured[0] if measured else 1e3 * full_seconds,
        full_predicted_ms=1e3 * full_seconds,
        full_loss=full_loss,
        full_accuracy=full_accuracy,
        accuracy_scale=full_accuracy + full_loss if tied and full_accuracy is not None else None,
        frontier=frontier_curve(front, certify_rows, risk, sure),
        estimate=np.array([setting.loss for setting in front]),
        random=random_curve(front, search_rows, certify_rows, time),
        oracle=oracle_curve(search_rows, certify_rows, time),
        spots=tuple(spot for choice in chosen for spot in _spots(choice, result, classifier, certify_rows)),
        mechanisms=tuple(mechanisms(classifier, paths, target, sure, certify_rows.draws, full_seconds)),
        costly_at=costly_at,
        mean_gflops=mean,
        costly=costly,
    )


def _labels(rows: RungRuns) -> np.ndarray | None:
    """Labels (n, …); None if any row has no label."""
    labels: np.ndarray | None = rows.rows.labels
    return labels if labels is not None and labelled(labels).all() else None


def _accuracy(problem: Problem, predictions: np.ndarray, rows: RungRuns) -> float | None:
    """Accuracy; None for rows without labels, or if the problem has no accuracy."""
    labels = _labels(rows)
    return None if labels is None else problem.figures(predictions, labels).get("accuracy")


def _lost(problem: Problem, answers: np.ndarray, full: np.ndarray, rows: RungRuns) -> np.ndarray | None:
    """Loss of answers minus the loss of full depth's, (n); None = no labels."""
    labels = _labels(rows)
    return None if labels is None else problem.loss(answers, labels) - problem.loss(full, labels)


def _spots(choice: Chosen, result: Calibration, classifier: OpenedModel, certify_rows: RungRuns) -> list[Spot]:
    """A point's part of the page; none for full depth."""
    if choice.setting is None or choice.certificate is None:
        return []
    run, rungs, problem = (
        certify_rows.runs[choice.setting.pruning],
        rungs_of(choice.setting, certify_rows),
        classifier.problem,
    )
    answers = run.predictions()[np.arange(len(rungs)), rungs]
    risk = risk_by_name(result.criterion, classifier.problem)
    lost = certify_rows.evidence(risk).losses_of(choice.setting)
    low, high = band(risk, lost, result.confidence)
    unsure, sorted_by = _first_uncertainty(choice.setting, classifier, certify_rows)
    full = full_run(certify_rows.runs).predictions()[:, -1]
    spot = Spot(
        name=choice.name,
        predicted_ms=choice.certificate.predicted_ms,
        measured_ms=choice.certificate.measured_ms,
        gain=choice.certificate.gain,
        loss=float(lost.mean()),
        low=low,
        high=high,
        accuracy=_accuracy(problem, answers, certify_rows),
        exits=exit_shares(rungs, run.n_rungs),
        tokens=tokens_left(
            *_of_last_tier(classifier, certify_rows, run.token_counts, rungs, rule_of(classifier, choice.setting))
        ),
        deciles=deciles(
            unsure, rungs < run.n_rungs - 1, problem.differs(answers, full), _lost(problem, answers, full, certify_rows)
        ),
        sorted_by=sorted_by,
    )
    return [spot]


def _of_last_tier(
    classifier: OpenedModel, rows: RungRuns, token_counts: np.ndarray, rungs: np.ndarray, rule: ExitRule
) -> tuple[np.ndarray, np.ndarray]:
    """For the last tier: token counts without exits, (s, L + 1), and the number of layers that run, (s)."""
    columns = classifier.ladder.slices[-1].columns
    return token_counts[:, columns], (classifier.ran(rows.encoded, token_counts, rungs, rule)[:, columns] > 0).sum(
        axis=1
    ) - 1


def _first_uncertainty(setting: Setting, classifier: OpenedModel, rows: RungRuns) -> tuple[np.ndarray, str]:
    """Uncertainty of the first evaluated rung about each row, (n), and its display name.

    All rows reach that rung; scores of different rungs are not comparable. A count is the same for all rows there, so
    the largest probability replaces it.
    """
    active = tuple(int(rung) for rung in np.flatnonzero(setting.active))
    score = "max-probability" if exit_score(setting.score).first_count is not None else setting.score
    # A change is known from the second rung on; no row can exit before it.
    exits = active[: 2 if exit_score(score).compares else 1]
    uncertainty = uncertainty_of(rows.runs[setting.pruning], score, exits)
    return uncertainty.values[:, -1], f"{score} after {classifier.rungs[exits[-1]].name}"


def _costly(
    classifier: OpenedModel, chosen: Sequence[Chosen], certify_rows: RungRuns
) -> tuple[str, float, tuple[Costly, ...]]:
    """The fastest measured point: its name, its mean GFLOPs per text, and its most expensive texts."""
    certified_choices = [
        (choice.certificate.measured_ms, choice)
        for choice in chosen
        if choice.setting and choice.certificate is not None
    ]
    fastest = min(certified_choices, key=lambda pair: pair[0])[1] if certified_choices else None
    setting = None if fastest is None else fastest.setting
    run = full_run(certify_rows.runs) if setting is None else certify_rows.runs[setting.pruning]
    all_rows = np.arange(len(certify_rows.rows))
    rungs = np.full(len(all_rows), run.n_rungs - 1) if setting is None else rungs_of(setting, certify_rows)
    rule = rule_of(classifier, setting)
    encoded, answers = certify_rows.encoded, run.predictions()[all_rows, rungs]
    flops = classifier.flops(encoded, run.token_counts, rule)[all_rows, rungs]
    token_counts = encoded.summed(classifier.ran(encoded, run.token_counts, rungs, rule))
    rows = costliest(flops, _COSTLY)
    found = tuple(
        _input(classifier, certify_rows, row, int(rungs[row]), token_counts[row], flops[row], answers[row : row + 1])
        for row in rows
    )
    return FULL_DEPTH if fastest is None else fastest.name, float(flops.mean() / 1e9), found


def _input(
    classifier: OpenedModel,
    rows: RungRuns,
    row: int,
    rung: int,
    token_counts: np.ndarray,
    flops: int,
    answer: np.ndarray,
) -> Costly:
    """The table entry of one row; `answer` (1, …) is its answer."""
    data, problem, labels = rows.rows, classifier.problem, _labels(rows)
    label = None if labels is None else labels[row : row + 1]
    wrong = label is not None and problem.differs.binary and bool(problem.loss(answer, label)[0] > 0)
    pair = "" if data.pairs is None else f" ‖ {data.pairs[row]}"
    return Costly(
        text=data.texts[row] + pair,
        read=int(rows.encoded.read[row]),
        remaining=int(token_counts[token_counts > 0][-1]),
        rung=classifier.rungs[rung].name,
        gflops=float(flops / 1e9),
        answer=_shown(problem.label(answer[0])),
        label=None if label is None else _shown(problem.true_label(label[0])),
        wrong=wrong,
    )


def _shown(label: Any) -> str:
    """Text for a class, a set of labels, a number or a span."""
    if isinstance(label, float):
        return f"{label:.4g}"
    return (", ".join(map(str, label)) or "none") if isinstance(label, tuple) else str(label) or "(no answer)"
