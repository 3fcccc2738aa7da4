"""What is promised, which settings are tried and tested for it, and the operating points that they become."""

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
from ziggurat.calibrate.paths import Tried, path_of, sequences, tried
from ziggurat.calibrate.risks import Risk, risks_of
from ziggurat.calibrate.rows import CalibrationRows, Seen, full_run
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
    classifier: OpenedModel,
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


def rule_of(classifier: OpenedModel, setting: Tried | None) -> ExitRule:
    """As the engine takes it; None = full depth."""
    if setting is None:
        return ExitRule.full_depth(len(classifier.rungs), classifier.problem.scores[0])
    return replace(setting.rule(classifier.deferral), tokens=scaled(classifier.token_rule, setting.pruning))


def _timed(
    classifier: OpenedModel,
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
    classifier: OpenedModel,
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
    classifier: OpenedModel,
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
    evidence = witness.evidence(risks_of(classifier.problem)[terms.criterion])
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


def _watched(
    classifier: OpenedModel, setting: Tried | None, witness: Seen, confidence: float
) -> tuple[float, float, float]:
    """What production can watch without labels: how often answers differ from full depth's at most, and their cost.

    That is full depth's share of FLOPs, first of all rows together, then the mean of each row's own.
    """
    if setting is None:
        return 0.0, 1.0, 1.0
    run, everyone = witness.runs[setting.pruning], np.arange(len(witness.rows))
    risk = risks_of(classifier.problem)["agreement"]
    rungs = replay(run.every, setting.rule(run.deferral))
    full = full_run(witness.runs).predictions()[:, -1]
    differing = risk.of(run.predictions()[everyone, rungs], full)
    spent = classifier.spent(witness.encoded, run.kept, rule_of(classifier, setting))[everyone, rungs]
    whole = classifier.whole(witness.encoded)
    differs = upper_bound(risk, witness.per_draw(differing, risk), confidence)
    return differs, float(spent.sum() / whole.sum()), float(watched_costs(spent, whole).mean())


def drop_name(drop: float) -> str:
    """What the point that may lose this much is called where it has no other name."""
    return next((name for name, usual in TARGETS.items() if usual == drop), f"drop-{100 * drop:g}")


@dataclass(frozen=True)
class Promise:
    """What calibration is to certify: how much may be lost, with what confidence, counted how and from what.

    >>> ziggurat.Promise(max_drop=0.01).targets
    {'fast': 0.01}
    >>> ziggurat.Promise({"night": 0.02}, confidence=0.99)

    `max_drop` stands for the targets: one loss, whose point is called exact, balanced or fast where it is a usual one.
    """

    # By the name of the operating point the largest loss, 0.01 = one point.
    targets: Mapping[str, float] = dataclasses.field(default_factory=lambda: dict(TARGETS))
    confidence: float = 0.95  # of each point by itself
    criterion: str | None = None  # see ziggurat.calibrate.risks; None = the problem's default: of classes accuracy
    scores: Sequence[str] | None = None  # exit scores that are tried; None = the problem's
    reference: str | None = None  # model folder that losses are counted from; None = the model itself at full depth
    max_layers: int | None = None  # after which every answer must have come, a cap on what an input can cost

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


def searched(classifier: OpenedModel, order: Seen, time: PredictedTime, promise: Promise) -> list[tuple[Tried, ...]]:
    """The paths of all families, at every strength of pruning, that have anything faster than full depth.

    Full depth of the model itself needs no test. Where losses are counted from another model, or answers must come
    sooner, the slowest setting is on a path too.
    """
    n_rungs = len(classifier.rungs)
    usable = usable_rungs(classifier, promise)
    saved, sizes = time.saved, [tier.n_rungs for tier in classifier.tiers]
    loses_nothing = promise.reference is None and usable == n_rungs
    slowest = time.of_full_depth(n_rungs) if loses_nothing else np.inf
    paths = []
    for strength, run in order.runs.items():
        losses = order.losses[strength]
        for family in families(
            run.cut(usable),
            losses[:, :usable],
            saved[:usable],
            promise.scores or classifier.problem.compared_scores,
            sizes,
        ):
            settings = (tried(extended(one, n_rungs), losses, time) for one in family)
            paths.append(path_of(settings, slowest))
    return [path for path in paths if path]


def certified(paths: Sequence[Sequence[Tried]], witness: Seen, risk: Risk, promise: Promise) -> dict[str, Certified]:
    """What rows that decided nothing certify, for each of the promise's targets."""
    tested = sequences(paths, promise.targets.values(), promise.confidence, witness.draws)
    evidence = witness.evidence(risk)
    return {
        name: certify(tested[target], evidence, target, promise.confidence) for name, target in promise.targets.items()
    }


def usable_rungs(classifier: OpenedModel, promise: Promise) -> int:
    """How many rungs are within the promise's cap; UserError if none is."""
    depths = classifier.depths.tolist()
    usable = sum(promise.max_layers is None or depth <= promise.max_layers for depth in depths)
    if usable == 0:
        raise UserError(
            f"--max-layers {promise.max_layers}: the first answer comes after layer {depths[0]}; allow that"
        )
    return usable


def refuse_too_few(rows: CalibrationRows, promise: Promise, risk: Risk) -> None:
    """UserError where even rows without a single loss would certify none of the targets."""
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
