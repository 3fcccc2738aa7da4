"""`report deferral`: which inputs a cascade's tier should escalate, and what later tiers gain on them (TangoBERT)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from ziggurat.analyses.curves import right_answers
from ziggurat.analyses.deferral_figure import (
    Route,
    errors_by_decile,
    oracle_route,
    random_route,
    route,
    share_of_oracle,
)
from ziggurat.analyses.reporting import Part, Report, Request, Subject, caveats, write_report
from ziggurat.calibrate.candidates import SCORES, StoredRun, uncertainty_of
from ziggurat.engine.opened import OpenedModel
from ziggurat.errors import UserError
from ziggurat.policies.exits import LEARNED
from ziggurat.policies.rules import ExitRule
from ziggurat.problems.metrics import accuracy_interval
from ziggurat.report.plots import Panel, Series

RATES = tuple(step / 20 for step in range(21))
TARGETS = {"99": 0.99, "98": 0.98}  # share of the last rung's accuracy: TangoBERT's operating points
AGREEMENT, RANDOM, ORACLE = "agreement", "random", "oracle"
_LEVEL = "#888888"  # colour of level lines
_LINES = {RANDOM: "-.", ORACLE: ":"}
_ERRORS = {"corrected": "corrects", "introduced": "spoils"}  # effect of the later answer on a stop's answer


@dataclass(frozen=True)
class Stop:
    """A point at which texts may be answered, or the last rung."""

    name: str  # "tier 1 (static)", "layer 2"
    rung: int
    before: int | None  # last rung of the tier before, for agreement; None = no tier before


def deferral(request: Request, tier: int = 1) -> Report:
    """Compares routers from the end of a tier (from 1; without tiers a rung) to the last rung, without pruning.

    For each deferral score, the random router and the oracle: accuracy and FLOPs by share of escalated texts, and a
    summary. Errors by tenth of the margin; with three or more tiers, for every step from a tier to the next. UserError
    for a model without tiers and exits, or an invalid tier.
    """
    (subject,) = request.subjects()
    stop = stop_at(subject.classifier, subject.model, tier)
    steps = steps_from(subject.classifier, stop)
    all_right = right_answers(subject.every_rung(None).readings, subject.rows.classes)
    right = all_right[:, [stop.rung, -1]]
    run = StoredRun(
        subject.every_rung(None).readings, subject.every_rung(None).token_counts, 0.0, subject.classifier.deferral
    )
    routes = _routes(subject, run, stop, right)
    errors = _errors(subject.name, run, all_right, steps)
    full = float(subject.classifier.full_flops(subject.encoded).mean())
    last = float(right[:, 1].mean())
    curves = [row for name, router in routes.items() for row in _curve(subject, name, router, full)]
    parts = [_error_table(stop, errors), Part("curves", "Accuracy and FLOPs by share escalated", curves)]
    title = f"Deferral at {stop.name}: {subject.name}, {request.data}"
    panels = [*_curve_panels(curves, last), *_error_panels(steps, errors)]
    rows = [
        {"model": subject.name, "router": name, **_summary(router, routes, last, full)}
        for name, router in routes.items()
    ]
    notes = [*_notes(subject, stop, last), *(_step_notes(steps, errors) if len(steps) > 1 else [])]
    return write_report(request.out, "deferral", title, rows, notes, panels, parts)


def stop_at(classifier: OpenedModel, model: str, tier: int) -> Stop:
    """The end of a cascade's tier, or a model's rung, numbered from 1; UserError if it does not exist."""
    found = _stops(classifier)
    most = len(found) - 1
    if not most:
        raise UserError(
            f"{model}: nothing is escalated, for it has neither tiers nor exits; give a cascade (`ziggurat cascade`) "
            "or a model with exits"
        )
    if not 1 <= tier <= most:
        kind = "tiers of a cascade" if len(classifier.tiers) > 1 else "exits of a model"
        raise UserError(f"--tier {tier}: the {kind} before the last rung count from 1, and {model} has {most}")
    return found[tier - 1]


def steps_from(classifier: OpenedModel, stop: Stop) -> list[tuple[Stop, Stop]]:
    """Pairs of stops with compared errors: each tier of a cascade and the next; in a model, a rung and the last."""
    found = _stops(classifier)
    return list(pairwise(found)) if len(classifier.tiers) > 1 else [(stop, found[-1])]


def _stops(classifier: OpenedModel) -> list[Stop]:
    """The ends of all tiers of a cascade, all rungs of a model."""
    if len(classifier.tiers) == 1:
        return [Stop(rung.name, index, index - 1 if index else None) for index, rung in enumerate(classifier.rungs)]
    tiers = classifier.ladder.slices
    ends = [tier.rungs.stop - 1 for tier in tiers]
    names = [f"tier {number} ({tier.tier.manifest.kind})" for number, tier in enumerate(tiers, start=1)]
    return [Stop(*fields) for fields in zip(names, ends, (None, *ends[:-1]), strict=True)]


def _routes(subject: Subject, run: StoredRun, stop: Stop, right: np.ndarray) -> Mapping[str, Route]:
    """All routers by name; a router that uses an earlier tier pays for it."""
    alone = _flops(subject, run, (stop.rung,))
    scores = [*SCORES, *([] if subject.classifier.deferral is None else [LEARNED])]
    routes = {score: route(right, alone, uncertainty_of(run, score, (stop.rung,)).values[:, 0]) for score in scores}
    if stop.before is not None:
        compared = (stop.before, stop.rung)
        doubt = uncertainty_of(run, AGREEMENT, compared).values[:, -1]
        routes[AGREEMENT] = route(right, _flops(subject, run, compared), doubt)
    return routes | {RANDOM: random_route(right, alone), ORACLE: oracle_route(right, alone)}


def _flops(subject: Subject, run: StoredRun, computed: Sequence[int]) -> np.ndarray:
    """FLOPs of exiting at the last of the computed rungs, and of escalation to the ladder's last rung: (n, 2)."""
    thresholds = np.full(run.n_rungs - 1, np.nan)
    thresholds[list(computed)] = 0.0
    return subject.classifier.flops(subject.encoded, run.token_counts, ExitRule("entropy", thresholds))[
        :, [computed[-1], -1]
    ]


def _curve(subject: Subject, name: str, router: Route, full: float) -> list[dict[str, Any]]:
    n, rows = len(subject.rows), []
    for rate in RATES:
        accuracy, flops = router.at(rate)
        low, high = accuracy_interval(round(accuracy * n), n)
        rows.append(
            {
                "model": subject.name,
                "router": name,
                "share": rate,
                "accuracy": accuracy,
                "accuracy_low": min(low, accuracy),
                "accuracy_high": max(high, accuracy),
                "gflops_mean": flops / 1e9,
                "flops_ratio": full / flops,
            }
        )
    return rows


def _summary(router: Route, routes: Mapping[str, Route], last: float, full: float) -> dict[str, Any]:
    """Summary of a router's curve; `last` is the last rung's accuracy, `full` its mean FLOPs."""
    found: dict[str, Any] = {"share_of_oracle": share_of_oracle(router, routes[RANDOM], routes[ORACLE])}
    for name, target in TARGETS.items():
        sent = router.least_sent(target * last)
        found |= {f"stays_{name}": 1 - sent, f"flops_ratio_{name}": full / router.at(sent)[1]}
    return found


def _notes(subject: Subject, stop: Stop, last: float) -> list[str]:
    alike = ["With two classes max-probability, margin and entropy order texts alike."]
    return [
        *caveats(subject),
        f"What is escalated from {stop.name} is answered by {subject.classifier.rungs[-1].name} at full depth, no "
        f"token pruned there (accuracy {last:.2%}); every tier and head that ran is charged, tokenising is not.",
        "Random: the expected value over all orders. Oracle: first what the last rung puts right, last what it spoils. "
        "Texts of one score are escalated by lot; values are expected ones.",
        "Gain over random: the area between a router's curve and the random router's, beside the oracle's.",
        "May stay: the largest share that keeps 99 % or 98 % of the last rung's accuracy. It was chosen on these very "
        "rows: a description and not a promise. `ziggurat calibrate` promises.",
        *(alike if len(subject.classifier.manifest.labels) == 2 else []),
    ]


def _curve_panels(curves: Sequence[dict[str, Any]], last: float) -> list[Panel]:
    """Accuracy by share escalated and by FLOPs, with TangoBERT's two operating points as level lines."""
    panels = []
    for xlabel, key, unit in (("escalated (%)", "share", 100), ("GFLOPs per text", "gflops_mean", 1)):
        series = []
        for name in dict.fromkeys(row["router"] for row in curves):
            curve = [row for row in curves if row["router"] == name]
            x = [unit * row[key] for row in curve]
            series.append(Series(name, x, [row["accuracy"] for row in curve], line=_LINES.get(name, "-")))
        ends = [unit * find(row[key] for row in curves) for find in (min, max)]
        series += [
            Series(f"{percent} % of the last", ends, [share * last] * 2, line=line, colour=_LEVEL)
            for (percent, share), line in zip(TARGETS.items(), ("--", ":"), strict=True)
        ]
        panels.append(Panel(xlabel, series, log_x=False))
    return panels


def _errors(name: str, run: StoredRun, right: np.ndarray, steps: Sequence[tuple[Stop, Stop]]) -> list[dict[str, Any]]:
    """Ten rows for each step, as shares of all texts; `right` (n, n_rungs, bool)."""
    rows = []
    for number, (stop, after) in enumerate(steps, start=1):
        confidence = -uncertainty_of(run, "margin", (stop.rung,)).values[:, 0]
        where = {"step": number, "tier": stop.name, "next_tier": after.name} if len(steps) > 1 else {}
        found = errors_by_decile(confidence, right[:, [stop.rung, after.rung]])
        rows += [{"model": name, **where, **row} for row in found]
    return rows


def _error_table(stop: Stop, errors: Sequence[dict[str, Any]]) -> Part:
    """The table of errors. With several steps, the later answer is that of the next tier, which may not be the last."""
    if "step" not in errors[0]:
        return Part("errors", f"Errors by confidence of {stop.name}", errors)
    renamed = [{("next_accuracy" if key == "last_accuracy" else key): row[key] for key in row} for row in errors]
    return Part("steps", "Errors of each step, by confidence of its tier", renamed)


def _step_notes(steps: Sequence[tuple[Stop, Stop]], errors: Sequence[dict[str, Any]]) -> Iterator[str]:
    yield "A step's errors are of all texts, whether or not they would reach its tier; corrected ones and spoilt ones:"
    for number, (stop, after) in enumerate(steps, start=1):
        of_step = [row for row in errors if row["step"] == number]
        corrected, introduced = (sum(row[key] for row in of_step) for key in _ERRORS)
        yield f"{stop.name}: {after.name} corrects {corrected:.2%} of all texts and spoils {introduced:.2%}."


def _error_panels(steps: Sequence[tuple[Stop, Stop]], errors: Sequence[dict[str, Any]]) -> Iterator[Panel]:
    """One panel for each step, all with the same y axis."""
    many = len(steps) > 1
    later = "next" if many else "last"
    labels = {key: f"{later} {effect}" for key, effect in _ERRORS.items()} | {"both_wrong": "both wrong"}
    highest = 1.05 * max(row[key] for row in errors for key in labels) or 0.01
    for number, (stop, after) in enumerate(steps, start=1):
        of_step = [row for row in errors if row.get("step", 1) == number]
        series = [
            Series(label, [row["decile"] for row in of_step], [row[key] for row in of_step], marker=marker)
            for (key, label), marker in zip(labels.items(), "o^s", strict=True)
        ]
        xlabel = f"tenth by margin of {stop.name}, surest last" + (f"\nnext: {after.name}" if many else "")
        y_range = (-highest / 20, highest) if many else None
        yield Panel(xlabel, series, log_x=False, ylabel="of all texts (%)", y_range=y_range)
