"""From certified settings to operating points: the fastest is timed beside full depth before it is believed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from ziggurat.calibrate.bounds import upper_bound
from ziggurat.calibrate.certify import Certified
from ziggurat.calibrate.paths import Tried
from ziggurat.calibrate.risks import risks_of
from ziggurat.engine import rules
from ziggurat.engine.classifier import AdaptiveClassifier
from ziggurat.engine.questions import QuestionAnswerer
from ziggurat.engine.rules import ExitRule
from ziggurat.engine.runner import replay
from ziggurat.jobs.calibration.runs import Seen, full_run
from ziggurat.jobs.opening import ModelOptions, sample
from ziggurat.jobs.watching import watched_costs
from ziggurat.policies.prune import scaled
from ziggurat.report.competition import Progress
from ziggurat.report.measure import Timing, interleave, paired_ratio
from ziggurat.types import Certificate, OperatingPoint

Model = AdaptiveClassifier | QuestionAnswerer
_TIMED = 512  # rows that a setting is timed on


@dataclass(frozen=True, eq=False)
class Chosen:
    """What became of one target."""

    name: str
    certified: Certified
    setting: Tried | None  # that the point runs; None = full depth
    point: OperatingPoint | None  # None = nothing keeps the promise
    note: str | None = None  # why it is not faster

    @property
    def certificate(self) -> Certificate | None:
        """Of the point."""
        return None if self.point is None else self.point.certificate


@dataclass(frozen=True)
class Terms:
    """What all certificates of one calibration share."""

    criterion: str
    reference: str | None
    profile: str | None  # key; None = times were not predicted by a machine's profile
    always_full: bool  # full depth keeps every promise: losses are counted from it, and it may be used
    batch_sizes: tuple[int, ...] | None = None  # at which each tier of a cascade was fastest


def chosen_points(
    classifier: Model,
    certified: Mapping[str, Certified],
    order: Seen,
    witness: Seen,
    terms: Terms,
    options: ModelOptions,
    tick: Progress,
) -> list[Chosen]:
    """The points in the order of their targets.

    Where no setting is certified, or the fastest is no faster when it runs, the point is full depth, if that keeps
    every promise; else there is none.
    """
    timings = _timed(classifier, {name: one.fastest for name, one in certified.items()}, order, options, tick)
    return [_chosen(classifier, name, one, witness, terms, timings, options) for name, one in certified.items()]


def rule_of(classifier: Model, setting: Tried | None) -> ExitRule:
    """As the engine takes it; None = full depth."""
    if setting is None:
        return rules.never(len(classifier.rungs), classifier.output.scores[0])
    return replace(setting.rule(classifier.deferral), tokens=scaled(classifier.token_rule, setting.pruning))


def _timed(
    classifier: Model,
    settings: Mapping[str, Tried | None],
    order: Seen,
    options: ModelOptions,
    tick: Progress,
) -> dict[str | None, Timing]:
    """Seconds per text of each setting, and under None of full depth, interleaved."""
    timed = order.encoded.take(sample(len(order.rows), _TIMED))
    wanted = {None: None} | {name: setting for name, setting in settings.items() if setting is not None}
    calls = {
        str(name): partial(classifier.run, timed, rule_of(classifier, setting), options.batch_size)
        for name, setting in wanted.items()
    }
    timings = interleave(calls, progress=tick)
    n = len(timed)
    return {name: Timing(tuple(run / n for run in timings[str(name)].runs)) for name in wanted}


def _chosen(
    classifier: Model,
    name: str,
    certified: Certified,
    witness: Seen,
    terms: Terms,
    timings: Mapping[str | None, Timing],
    options: ModelOptions,
) -> Chosen:
    setting, note = certified.fastest, None
    # Where full depth may not be used, or itself loses, a certified setting is what there is, however slow.
    if setting is not None and terms.always_full and paired_ratio(timings[None], timings[name]).median <= 1:
        slower = paired_ratio(timings[name], timings[None]).median
        setting, note = None, f"the fastest certified setting took {slower:.2f}x full depth's time when it ran"
    elif setting is None:
        note = _why_none(certified, witness)
    if setting is None and not terms.always_full:
        return Chosen(name, certified, None, None, note)
    point = _point(classifier, name, certified, setting, witness, terms, timings, options)
    return Chosen(name, certified, setting, point, note)


def _why_none(certified: Certified, witness: Seen) -> str:
    if certified.tightest is None:
        return "nothing is faster than full depth on this machine"
    needed = (
        "no number of rows would"
        if certified.rows_needed is None
        else f"about {certified.rows_needed:,} rows like these might"
    )
    groups = "" if witness.groups is None else f" in {witness.draws:,} groups"
    return (
        f"{len(witness.rows):,} rows{groups} do not certify {100 * certified.target:g} points for anything faster "
        f"({needed}); they certify {100 * certified.tightest:.2f}"
    )


def _point(
    classifier: Model,
    name: str,
    certified: Certified,
    setting: Tried | None,
    witness: Seen,
    terms: Terms,
    timings: Mapping[str | None, Timing],
    options: ModelOptions,
) -> OperatingPoint:
    rule, backend = rule_of(classifier, setting), classifier.backend
    full, own = timings[None], timings[name if setting is not None else None]
    gain = paired_ratio(full, own)
    differs, flops, cost = _watched(classifier, setting, witness, certified.confidence)
    evidence = witness.evidence(risks_of(classifier.output)[terms.criterion])
    certificate = Certificate(
        criterion=terms.criterion,
        estimate=0.0 if setting is None else float(evidence.losses_of(setting).mean()),
        rows=len(witness.rows),
        data=witness.rows.digest,
        engine=backend.engine,
        dtype=backend.dtype,
        threads=backend.threads,
        batch_size=options.batch_size,
        profile=terms.profile,
        predicted_ms=1e3 * (full.p50 if setting is None else setting.seconds),
        measured_ms=1e3 * own.p50,
        full_ms=1e3 * full.p50,
        gain=gain.median,
        gain_low=gain.low,
        gain_high=gain.high,
        differs=differs,
        flops=flops,
        reference=terms.reference,
        groups=None if witness.groups is None else witness.draws,
        cost=cost,
    )
    thresholds: Sequence[float | None] = [None if np.isnan(t) else float(t) for t in rule.thresholds]
    return OperatingPoint(
        name=name,
        score=rule.score,
        thresholds=tuple(thresholds),
        fingerprint=classifier.manifest.fingerprint,
        target=certified.target,
        confidence=certified.confidence,
        data=witness.rows.digest,
        pruning=0.0 if setting is None else setting.pruning,
        certificate=certificate,
        batch_sizes=terms.batch_sizes,
    )


def _watched(classifier: Model, setting: Tried | None, witness: Seen, confidence: float) -> tuple[float, float, float]:
    """What production can watch without labels: how often answers differ from full depth's at most, and their cost.

    That is full depth's share of FLOPs, first of all rows together, then the mean of each row's own.
    """
    if setting is None:
        return 0.0, 1.0, 1.0
    run, everyone = witness.runs[setting.pruning], np.arange(len(witness.rows))
    risk = risks_of(classifier.output)["agreement"]
    rungs = replay(run.every, setting.rule(run.deferral))
    full = full_run(witness.runs).predictions()[:, -1]
    differing = risk.of(run.predictions()[everyone, rungs], full)
    spent = classifier.spent(witness.encoded, run.kept, rule_of(classifier, setting))[everyone, rungs]
    whole = classifier.whole(witness.encoded)
    differs = upper_bound(risk, witness.per_draw(differing, risk), confidence)
    return differs, float(spent.sum() / whole.sum()), float(watched_costs(spent, whole).mean())
