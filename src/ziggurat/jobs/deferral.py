"""`report deferral`: who should go on from a cascade's first tier, and what the last one makes of it (TangoBERT)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ziggurat.calibrate.candidates import SCORES
from ziggurat.calibrate.stored import StoredRun, doubts
from ziggurat.engine.classifier import AdaptiveClassifier
from ziggurat.engine.rules import ExitRule
from ziggurat.engine.tiers import places
from ziggurat.errors import UserError
from ziggurat.jobs.reporting import Part, Request, Subject, caveats, write_report
from ziggurat.policies.exits import LEARNED
from ziggurat.report.curves import right_answers
from ziggurat.report.deferral import Route, errors_by_decile, oracle_route, random_route, route, share_of_oracle
from ziggurat.report.measure import accuracy_interval
from ziggurat.report.plots import Panel, Series

RATES = tuple(step / 20 for step in range(21))
TARGETS = {"99": 0.99, "98": 0.98}  # of the last rung's accuracy: Tango's operating points
AGREEMENT, RANDOM, ORACLE = "agreement", "random", "oracle"
_LEVEL = "#888888"  # of level lines
_LINES = {RANDOM: "-.", ORACLE: ":"}
_ERRORS = {"corrected": "last corrects", "introduced": "last spoils", "both_wrong": "both wrong"}


@dataclass(frozen=True)
class Stop:
    """Where a text may stay."""

    name: str  # "tier 1 (static)", "layer 2"
    rung: int
    before: int | None  # the rung at the end of the tier before, for agreement; None = there is none


def deferral(request: Request, tier: int = 1) -> dict[str, Any]:
    """Routers at the end of a tier (from 1; without tiers a rung) against the last rung, without token pruning there.

    Each deferral score, the random router and the oracle: accuracy and FLOPs by the share that is escalated, and what
    they come to; errors by tenth of the margin. UserError for a model without tiers and exits, or another tier.
    """
    (subject,) = request.subjects()
    stop = stop_at(subject.classifier, subject.model, tier)
    right = right_answers(subject.unpruned.logits, subject.rows.classes)[:, [stop.rung, -1]]
    run = StoredRun(subject.unpruned.logits, subject.unpruned.kept, 0.0, subject.classifier.deferral)
    routes = _routes(subject.classifier, run, stop, right)
    confidence = -doubts(run, "margin", (stop.rung,)).values[:, 0]
    errors = [{"model": subject.name, **row} for row in errors_by_decile(confidence, right)]
    full = float(subject.classifier.full_flops(subject.encoded.lengths).mean())
    last = float(right[:, 1].mean())
    curves = [row for name, one in routes.items() for row in _curve(subject, name, one, full)]
    parts = [
        Part("errors", f"Errors by confidence of {stop.name}", errors),
        Part("curves", "Accuracy and FLOPs by share escalated", curves),
    ]
    title = f"Deferral at {stop.name}: {subject.name}, {request.data}"
    panels = [*_curve_panels(curves, last), _error_panel(stop, errors)]
    rows = [
        {"model": subject.name, "router": name, **_summary(one, routes, last, full)} for name, one in routes.items()
    ]
    return write_report(request.out, "deferral", title, rows, _notes(subject, stop, last), panels, parts)


def stop_at(classifier: AdaptiveClassifier, model: str, tier: int) -> Stop:
    """The end of a cascade's tier, or a model's rung, counted from 1; UserError where there is no such, or none."""
    tiers = places(classifier.tiers)
    cascade = len(tiers) > 1
    ends = [place.rungs.stop - 1 for place in tiers] if cascade else list(range(len(classifier.rungs)))
    most = len(ends) - 1
    if not most:
        raise UserError(
            f"{model}: nothing is escalated, for it has neither tiers nor exits; give a cascade (`ziggurat cascade`) "
            "or a model with exits"
        )
    if not 1 <= tier <= most:
        what = "tiers of a cascade" if cascade else "exits of a model"
        raise UserError(f"--tier {tier}: the {what} before the last rung count from 1, and {model} has {most}")
    rung = ends[tier - 1]
    kind = tiers[tier - 1].tier.manifest.kind if cascade else ""
    name = f"tier {tier} ({kind})" if cascade else classifier.rungs[rung].name
    return Stop(name, rung, ends[tier - 2] if tier > 1 else None)


def _routes(classifier: AdaptiveClassifier, run: StoredRun, stop: Stop, right: np.ndarray) -> Mapping[str, Route]:
    """All routers by name; one that hears a tier before pays for it."""
    alone = _flops(classifier, run, (stop.rung,))
    scores = [*SCORES, *([] if classifier.deferral is None else [LEARNED])]
    routes = {score: route(right, alone, doubts(run, score, (stop.rung,)).values[:, 0]) for score in scores}
    if stop.before is not None:
        heard = (stop.before, stop.rung)
        doubt = doubts(run, AGREEMENT, heard).values[:, -1]
        routes[AGREEMENT] = route(right, _flops(classifier, run, heard), doubt)
    return routes | {RANDOM: random_route(right, alone), ORACLE: oracle_route(right, alone)}


def _flops(classifier: AdaptiveClassifier, run: StoredRun, heard: Sequence[int]) -> np.ndarray:
    """Cost of staying at the last of the rungs that are asked, and of going on to the ladder's last: (n, 2)."""
    thresholds = np.full(run.n_rungs - 1, np.nan)
    thresholds[list(heard)] = 0.0
    return classifier.flops(run.kept, ExitRule("entropy", thresholds))[:, [heard[-1], -1]]


def _curve(subject: Subject, name: str, one: Route, full: float) -> list[dict[str, Any]]:
    n, rows = len(subject.rows), []
    for rate in RATES:
        accuracy, flops = one.at(rate)
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


def _summary(one: Route, routes: Mapping[str, Route], last: float, full: float) -> dict[str, Any]:
    """What a router's whole curve comes to; `last` is the last rung's accuracy, `full` its mean FLOPs."""
    found: dict[str, Any] = {"share_of_oracle": share_of_oracle(one, routes[RANDOM], routes[ORACLE])}
    for name, target in TARGETS.items():
        sent = one.least_sent(target * last)
        found |= {f"stays_{name}": 1 - sent, f"flops_ratio_{name}": full / one.at(sent)[1]}
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
    """Accuracy over the share escalated and over FLOPs, with Tango's two operating points as level lines."""
    panels = []
    for xlabel, key, unit in (("escalated (%)", "share", 100), ("GFLOPs per text", "gflops_mean", 1)):
        series = []
        for name in dict.fromkeys(row["router"] for row in curves):
            mine = [row for row in curves if row["router"] == name]
            x = [unit * row[key] for row in mine]
            series.append(Series(name, x, [row["accuracy"] for row in mine], line=_LINES.get(name, "-")))
        ends = [unit * find(row[key] for row in curves) for find in (min, max)]
        series += [
            Series(f"{percent} % of the last", ends, [share * last] * 2, line=line, colour=_LEVEL)
            for (percent, share), line in zip(TARGETS.items(), ("--", ":"), strict=True)
        ]
        panels.append(Panel(xlabel, series, log_x=False))
    return panels


def _error_panel(stop: Stop, errors: Sequence[dict[str, Any]]) -> Panel:
    tenths = [row["decile"] for row in errors]
    series = [
        Series(label, tenths, [row[key] for row in errors], marker=marker)
        for (key, label), marker in zip(_ERRORS.items(), "o^s", strict=True)
    ]
    return Panel(f"tenth by margin of {stop.name}, surest last", series, log_x=False, ylabel="of all texts (%)")
