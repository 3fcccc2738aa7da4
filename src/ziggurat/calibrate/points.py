"""The promise of a calibration, the search for settings, and the operating points that result."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from ziggurat.calibrate.bounds import upper_bound
from ziggurat.calibrate.candidates import extended, families
from ziggurat.calibrate.certify import Certified, certify, least_rows
from ziggurat.calibrate.choose import TARGETS
from ziggurat.calibrate.paths import Setting, path_of, sequences, setting_of
from ziggurat.calibrate.risks import Risk, risks_of
from ziggurat.calibrate.rows import CalibrationRows, RungRuns, full_run
from ziggurat.calibrate.times import PredictedTime
from ziggurat.calibrate.watching import watched_costs
from ziggurat.engine.opened import FULL, OpenedModel
from ziggurat.engine.replay import replay
from ziggurat.errors import UserError
from ziggurat.measure.clock import Timing, interleave, paired_ratio
from ziggurat.measure.subject import ModelOptions, sample
from ziggurat.policies.prune import scaled
from ziggurat.policies.rules import ExitRule
from ziggurat.system import Progress
from ziggurat.types import Certificate, OperatingPoint

_TIMED = 512  # rows on which a setting is timed


@dataclass(frozen=True, eq=False)
class Chosen:
    """The result for one target."""

    name: str
    certified: Certified
    setting: Setting | None  # of the point; None = full depth
    point: OperatingPoint | None  # None = no setting keeps the promise
    note: str | None = None  # why it is not faster

    @property
    def certificate(self) -> Certificate | None:
        """The certificate of the point; None if there is no point."""
        return None if self.point is None else self.point.certificate


@dataclass(frozen=True)
class Terms:
    """The fields that all certificates of one calibration share."""

    criterion: str
    reference: str | None
    profile: str | None  # key; None = times were not predicted by a machine's profile
    always_full: bool  # full depth may be used as fallback, since losses are relative to it
    batch_sizes: tuple[int, ...] | None = None  # the fastest for each tier of a cascade


def chosen_points(
    classifier: OpenedModel,
    certified: Mapping[str, Certified],
    search_rows: RungRuns,
    certify_rows: RungRuns,
    terms: Terms,
    options: ModelOptions,
    tick: Progress,
) -> list[Chosen]:
    """The points in the order of their targets.

    If no setting is certified, or the fastest is not faster than full depth when it runs, the point is full depth. If
    full depth may not be used, there is no point.
    """
    timings = _timed(
        classifier, {name: result.fastest for name, result in certified.items()}, search_rows, options, tick
    )
    return [
        _chosen(classifier, name, result, certify_rows, terms, timings, options) for name, result in certified.items()
    ]


def rule_of(classifier: OpenedModel, setting: Setting | None) -> ExitRule:
    """The exit rule of a setting, with its pruning; None = full depth."""
    if setting is None:
        return ExitRule.full_depth(len(classifier.rungs), classifier.problem.scores[0])
    return replace(setting.rule(classifier.deferral), tokens=scaled(classifier.token_rule, setting.pruning))


def _timed(
    classifier: OpenedModel,
    settings: Mapping[str, Setting | None],
    search_rows: RungRuns,
    options: ModelOptions,
    tick: Progress,
) -> dict[str | None, Timing]:
    """Seconds per text of each setting, timed interleaved with full depth, whose key is None."""
    timed = search_rows.encoded.take(sample(len(search_rows.rows), _TIMED))
    wanted = {None: None} | {name: setting for name, setting in settings.items() if setting is not None}
    calls = {
        str(name): partial(classifier.run, timed, rule_of(classifier, setting), options.batch_size)
        for name, setting in wanted.items()
    }
    timings = interleave(calls, progress=tick)
    n = len(timed)
    return {name: Timing(tuple(run / n for run in timings[str(name)].runs)) for name in wanted}


def _chosen(
    classifier: OpenedModel,
    name: str,
    certified: Certified,
    certify_rows: RungRuns,
    terms: Terms,
    timings: Mapping[str | None, Timing],
    options: ModelOptions,
) -> Chosen:
    setting, note = certified.fastest, None
    # If full depth may not be used, a certified setting is the only choice, even if it is slow.
    if setting is not None and terms.always_full and paired_ratio(timings[None], timings[name]).median <= 1:
        slower = paired_ratio(timings[name], timings[None]).median
        setting, note = None, f"the fastest certified setting took {slower:.2f}x full depth's time when it ran"
    elif setting is None:
        note = _why_none(certified, certify_rows)
    if setting is None and not terms.always_full:
        return Chosen(name, certified, None, None, note)
    point = _point(classifier, name, certified, setting, certify_rows, terms, timings, options)
    return Chosen(name, certified, setting, point, note)


def _why_none(certified: Certified, certify_rows: RungRuns) -> str:
    if certified.tightest is None:
        return "nothing is faster than full depth on this machine"
    needed = (
        "no number of rows would"
        if certified.rows_needed is None
        else f"about {certified.rows_needed:,} rows like these might"
    )
    groups = "" if certify_rows.groups is None else f" in {certify_rows.draws:,} groups"
    return (
        f"{len(certify_rows.rows):,} rows{groups} do not certify {100 * certified.target:g} points for anything faster "
        f"({needed}); they certify {100 * certified.tightest:.2f}"
    )


def _point(
    classifier: OpenedModel,
    name: str,
    certified: Certified,
    setting: Setting | None,
    certify_rows: RungRuns,
    terms: Terms,
    timings: Mapping[str | None, Timing],
    options: ModelOptions,
) -> OperatingPoint:
    rule, backend = rule_of(classifier, setting), classifier.backend
    full, timing = timings[None], timings[name if setting is not None else None]
    gain = paired_ratio(full, timing)
    differs, flops_share, cost = _watched(classifier, setting, certify_rows, certified.confidence)
    evidence = certify_rows.evidence(risks_of(classifier.problem)[terms.criterion])
    certificate = Certificate(
        criterion=terms.criterion,
        estimate=0.0 if setting is None else float(evidence.losses_of(setting).mean()),
        rows=len(certify_rows.rows),
        data=certify_rows.rows.digest,
        engine=backend.engine,
        dtype=backend.dtype,
        threads=backend.threads,
        batch_size=options.batch_size,
        profile=terms.profile,
        predicted_ms=1e3 * (full.p50 if setting is None else setting.seconds),
        measured_ms=1e3 * timing.p50,
        full_ms=1e3 * full.p50,
        gain=gain.median,
        gain_low=gain.low,
        gain_high=gain.high,
        differs=differs,
        flops=flops_share,
        reference=terms.reference,
        groups=None if certify_rows.groups is None else certify_rows.draws,
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
        data=certify_rows.rows.digest,
        pruning=0.0 if setting is None else setting.pruning,
        certificate=certificate,
        batch_sizes=terms.batch_sizes,
    )


def _watched(
    classifier: OpenedModel, setting: Setting | None, certify_rows: RungRuns, confidence: float
) -> tuple[float, float, float]:
    """Figures that can be monitored without labels.

    First an upper bound of the share of answers that differ from full depth's. Then the cost relative to full depth's
    FLOPs, twice: total over total, and the mean of the rows' ratios.
    """
    if setting is None:
        return 0.0, 1.0, 1.0
    run, all_rows = certify_rows.runs[setting.pruning], np.arange(len(certify_rows.rows))
    risk = risks_of(classifier.problem)["agreement"]
    rungs = replay(run.all_readings, setting.rule(run.deferral))
    full = full_run(certify_rows.runs).predictions()[:, -1]
    differing = risk.of(run.predictions()[all_rows, rungs], full)
    flops = classifier.flops(certify_rows.encoded, run.token_counts, rule_of(classifier, setting))[all_rows, rungs]
    full_flops = classifier.full_flops(certify_rows.encoded)
    differs = upper_bound(risk, certify_rows.per_draw(differing, risk), confidence)
    return differs, float(flops.sum() / full_flops.sum()), float(watched_costs(flops, full_flops).mean())


def drop_name(drop: float) -> str:
    """Default name of the point for this largest drop: exact, balanced, fast or drop-…."""
    return next((name for name, usual in TARGETS.items() if usual == drop), f"drop-{100 * drop:g}")


@dataclass(frozen=True)
class Promise:
    """What calibration must certify: the largest loss, its criterion and reference, and the confidence.

    >>> ziggurat.Promise(max_drop=0.01).targets
    {'fast': 0.01}
    >>> ziggurat.Promise({"night": 0.02}, confidence=0.99)

    `max_drop` replaces `targets` by one loss. Its point is named exact, balanced or fast if the loss is a usual one.
    """

    # Largest loss by the name of the operating point; 0.01 = one percentage point.
    targets: Mapping[str, float] = dataclasses.field(default_factory=lambda: dict(TARGETS))
    confidence: float = 0.95  # of each point separately
    criterion: str | None = (
        None  # see ziggurat.calibrate.risks; None = the problem's default; for classes it is accuracy
    )
    scores: Sequence[str] | None = None  # exit scores to try; None = the problem's
    reference: str | None = None  # model folder that losses are relative to; None = the model itself at full depth
    max_layers: int | None = None  # largest number of layers per input, which caps the cost

    max_drop: dataclasses.InitVar[float | None] = None

    def __post_init__(self, max_drop: float | None) -> None:
        if max_drop is not None:
            object.__setattr__(self, "targets", {drop_name(max_drop): max_drop})
        for name, target in self.targets.items():
            if not 0 <= target < 1 or (target == 0 and name != "exact"):
                raise UserError(f"drop {target:g} of {name!r}: must be more than 0 and less than 1; 0.01 is one point")
            if name == FULL:
                raise UserError(f"operating point {FULL!r}: the name of full depth is taken; choose another")
            if name.endswith(".json"):  # as an option that would be a file
                raise UserError(f"operating point {name!r}: a name may not end in .json; leave that out")
        if not 0 < self.confidence < 1:
            raise UserError(f"confidence {self.confidence:g}: must be between 0 and 1, such as 0.95")


def searched(
    classifier: OpenedModel, search_rows: RungRuns, time: PredictedTime, promise: Promise
) -> list[tuple[Setting, ...]]:
    """The paths of all families at all strengths of pruning, without empty ones.

    A path has the settings that are faster than full depth. If losses are relative to another model, or `max_layers`
    excludes full depth, a path also includes slower settings.
    """
    n_rungs = len(classifier.rungs)
    usable = usable_rungs(classifier, promise)
    saved, sizes = time.saved, [tier.n_rungs for tier in classifier.tiers]
    loses_nothing = promise.reference is None and usable == n_rungs
    slowest = time.of_full_depth(n_rungs) if loses_nothing else np.inf
    paths = []
    for strength, run in search_rows.runs.items():
        losses = search_rows.losses[strength]
        for family in families(
            run.cut(usable),
            losses[:, :usable],
            saved[:usable],
            promise.scores or classifier.problem.compared_scores,
            sizes,
        ):
            settings = (setting_of(extended(candidate, n_rungs), losses, time) for candidate in family)
            paths.append(path_of(settings, slowest))
    return [path for path in paths if path]


def certified(
    paths: Sequence[Sequence[Setting]], certify_rows: RungRuns, risk: Risk, promise: Promise
) -> dict[str, Certified]:
    """Tests the paths on the certifying rows; results by the names of the promise's targets."""
    tested = sequences(paths, promise.targets.values(), promise.confidence, certify_rows.draws)
    evidence = certify_rows.evidence(risk)
    return {
        name: certify(tested[target], evidence, target, promise.confidence) for name, target in promise.targets.items()
    }


def usable_rungs(classifier: OpenedModel, promise: Promise) -> int:
    """Number of rungs within the promise's `max_layers`; UserError if it is 0."""
    depths = classifier.depths.tolist()
    usable = sum(promise.max_layers is None or depth <= promise.max_layers for depth in depths)
    if usable == 0:
        raise UserError(
            f"--max-layers {promise.max_layers}: the first answer comes after layer {depths[0]}; allow that"
        )
    return usable


def check_enough_rows(rows: CalibrationRows, promise: Promise, risk: Risk) -> None:
    """UserError if rows without any loss would still certify none of the targets."""
    wanted = [target for target in promise.targets.values() if target > 0]
    n = len(rows.certify) if rows.drawn is None else len(rows.drawn)
    if not wanted or n >= least_rows(max(wanted), promise.confidence):
        return
    share = f"{100 * promise.confidence:g} %"
    groups, of = ("", "") if rows.drawn is None else (f" in {n:,} groups by the text that they share", " groups")
    raise UserError(
        f"{rows.certify.source}: {len(rows.certify):,} rows{groups} are left to certify with, and even without a "
        f"mistake {max(wanted):g} needs {least_rows(max(wanted), promise.confidence):,}{of} at {share} confidence; "
        "give more, or a larger --max-drop"
    )
