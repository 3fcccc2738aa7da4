"""The page of a calibration: everything that it shows, from the stored runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ziggurat.calibrate.candidates import doubts
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
from ziggurat.calibrate.paths import Tried
from ziggurat.calibrate.points import Chosen, rule_of
from ziggurat.calibrate.result import Calibration
from ziggurat.calibrate.risks import risk_by_name
from ziggurat.calibrate.rows import Seen, full_run
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
    """Writes the page; `result` is what the calibration returns.

    UserError where matplotlib is not installed or the file cannot be written.
    """
    text = page(result, shown)
    with whole_file(html) as path:
        path.write_bytes(utf8(text))


def picture(
    result: Calibration,
    classifier: OpenedModel,
    chosen: Sequence[Chosen],
    paths: Sequence[Sequence[Tried]],
    order: Seen,
    witness: Seen,
    time: PredictedTime,
) -> Picture:
    """What the page shows, as arrays; `time` predicts for rows of `order`."""
    risk, sure = risk_by_name(result.criterion, classifier.problem), result.confidence
    front = shown_frontier(paths)
    full = full_run(witness.runs)
    full_loss = float(witness.losses[full.pruning][:, -1].mean())
    full_accuracy = _accuracy(classifier.problem, full.predictions()[:, -1], witness)
    full_seconds = time.of_full_depth(len(classifier.rungs))
    target = max((one.certified.target for one in chosen), default=0.0)
    measured = [one.certificate.full_ms for one in chosen if one.certificate is not None]
    tied = risk.name == "accuracy" and full_accuracy is not None
    costly_at, mean, costly = _costly(classifier, chosen, witness)
    return Picture(
        rungs=tuple(rung.name for rung in classifier.rungs),
        full_ms=measured[0] if measured else 1e3 * full_seconds,
        full_predicted_ms=1e3 * full_seconds,
        full_loss=full_loss,
        full_accuracy=full_accuracy,
        accuracy_scale=full_accuracy + full_loss if tied and full_accuracy is not None else None,
        frontier=frontier_curve(front, witness, risk, sure),
        estimate=np.array([one.loss for one in front]),
        random=random_curve(front, order, witness, time),
        oracle=oracle_curve(order, witness, time),
        spots=tuple(spot for one in chosen for spot in _spots(one, result, classifier, witness)),
        mechanisms=tuple(mechanisms(classifier, paths, target, sure, witness.draws, full_seconds)),
        costly_at=costly_at,
        mean_gflops=mean,
        costly=costly,
    )


def _labels(rows: Seen) -> np.ndarray | None:
    """Of all rows, (n, …); None = some have none."""
    labels: np.ndarray | None = rows.rows.labels
    return labels if labels is not None and labelled(labels).all() else None


def _accuracy(problem: Problem, predictions: np.ndarray, rows: Seen) -> float | None:
    """None of rows without labels, or where accuracy is no figure of the problem."""
    labels = _labels(rows)
    return None if labels is None else problem.figures(predictions, labels).get("accuracy")


def _lost(problem: Problem, answers: np.ndarray, full: np.ndarray, rows: Seen) -> np.ndarray | None:
    """How much more than full depth's answers are off the labels, (n); None = no labels."""
    labels = _labels(rows)
    return None if labels is None else problem.loss(answers, labels) - problem.loss(full, labels)


def _spots(one: Chosen, result: Calibration, classifier: OpenedModel, witness: Seen) -> list[Spot]:
    """A point's part of the page; none for full depth."""
    if one.setting is None or one.certificate is None:
        return []
    run, rungs, problem = witness.runs[one.setting.pruning], rungs_of(one.setting, witness), classifier.problem
    answers = run.predictions()[np.arange(len(rungs)), rungs]
    risk = risk_by_name(result.criterion, classifier.problem)
    lost = witness.evidence(risk).losses_of(one.setting)
    low, high = band(risk, lost, result.confidence)
    unsure, sorted_by = _doubt(one.setting, classifier, witness)
    full = full_run(witness.runs).predictions()[:, -1]
    spot = Spot(
        name=one.name,
        predicted_ms=one.certificate.predicted_ms,
        measured_ms=one.certificate.measured_ms,
        gain=one.certificate.gain,
        loss=float(lost.mean()),
        low=low,
        high=high,
        accuracy=_accuracy(problem, answers, witness),
        exits=exit_shares(rungs, run.n_rungs),
        tokens=tokens_left(*_of_last_tier(classifier, witness, run.kept, rungs, rule_of(classifier, one.setting))),
        deciles=deciles(
            unsure, rungs < run.n_rungs - 1, problem.differs(answers, full), _lost(problem, answers, full, witness)
        ),
        sorted_by=sorted_by,
    )
    return [spot]


def _of_last_tier(
    classifier: OpenedModel, rows: Seen, kept: np.ndarray, rungs: np.ndarray, rule: ExitRule
) -> tuple[np.ndarray, np.ndarray]:
    """Tokens that its layers leave without exits, (s, L + 1), and how many layers run for each sequence, (s)."""
    columns = classifier.ladder.slices[-1].columns
    return kept[:, columns], (classifier.ran(rows.encoded, kept, rungs, rule)[:, columns] > 0).sum(axis=1) - 1


def _doubt(setting: Tried, classifier: OpenedModel, rows: Seen) -> tuple[np.ndarray, str]:
    """How unsure the first rung that is asked is of each row, (n), and what that is called.

    All rows come by there; scores of other rungs could not be ranked together. A count cannot differ there yet, so the
    largest probability stands for it.
    """
    asked = tuple(int(rung) for rung in np.flatnonzero(setting.asked))
    score = "max-probability" if exit_score(setting.score).first_count is not None else setting.score
    # A change is known from the second on, up to which nobody can have left.
    exits = asked[: 2 if exit_score(score).compares else 1]
    known = doubts(rows.runs[setting.pruning], score, exits)
    return known.values[:, -1], f"{score} after {classifier.rungs[exits[-1]].name}"


def _costly(classifier: OpenedModel, chosen: Sequence[Chosen], witness: Seen) -> tuple[str, float, tuple[Costly, ...]]:
    """At the fastest point as measured: its name, GFLOPs of a text there on average, the texts that cost most."""
    made = [(one.certificate.measured_ms, one) for one in chosen if one.setting and one.certificate is not None]
    fastest = min(made, key=lambda pair: pair[0])[1] if made else None
    setting = None if fastest is None else fastest.setting
    run = full_run(witness.runs) if setting is None else witness.runs[setting.pruning]
    everyone = np.arange(len(witness.rows))
    rungs = np.full(len(everyone), run.n_rungs - 1) if setting is None else rungs_of(setting, witness)
    rule = rule_of(classifier, setting)
    encoded, answers = witness.encoded, run.predictions()[everyone, rungs]
    flops = classifier.spent(encoded, run.kept, rule)[everyone, rungs]
    kept = encoded.summed(classifier.ran(encoded, run.kept, rungs, rule))
    rows = costliest(flops, _COSTLY)
    found = tuple(
        _input(classifier, witness, row, int(rungs[row]), kept[row], flops[row], answers[row : row + 1]) for row in rows
    )
    return FULL_DEPTH if fastest is None else fastest.name, float(flops.mean() / 1e9), found


def _input(
    classifier: OpenedModel, rows: Seen, row: int, rung: int, kept: np.ndarray, flops: int, answer: np.ndarray
) -> Costly:
    """Of the row's own answer, (1, …)."""
    data, problem, labels = rows.rows, classifier.problem, _labels(rows)
    label = None if labels is None else labels[row : row + 1]
    wrong = label is not None and problem.differs.binary and bool(problem.loss(answer, label)[0] > 0)
    pair = "" if data.pairs is None else f" ‖ {data.pairs[row]}"
    return Costly(
        text=data.texts[row] + pair,
        read=int(rows.encoded.read[row]),
        kept=int(kept[kept > 0][-1]),
        rung=classifier.rungs[rung].name,
        gflops=float(flops / 1e9),
        answer=_shown(problem.label(answer[0])),
        label=None if label is None else _shown(problem.true_label(label[0])),
        wrong=wrong,
    )


def _shown(label: Any) -> str:
    """A class, all labels that apply, a number or a part of a text, as people read them."""
    if isinstance(label, float):
        return f"{label:.4g}"
    return (", ".join(map(str, label)) or "none") if isinstance(label, tuple) else str(label) or "(no answer)"
