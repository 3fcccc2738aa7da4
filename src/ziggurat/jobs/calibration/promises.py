"""What is promised, and which settings are tried and tested for it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ziggurat.calibrate.candidates import extended, families
from ziggurat.calibrate.certify import Certified, certify, least_rows
from ziggurat.calibrate.choose import TARGETS
from ziggurat.calibrate.paths import Tried, path_of, sequences, tried
from ziggurat.calibrate.risks import Risk
from ziggurat.engine.classifier import FULL
from ziggurat.errors import UserError
from ziggurat.jobs.calibration.points import Model
from ziggurat.jobs.calibration.rows import CalibrationRows
from ziggurat.jobs.calibration.runs import Seen
from ziggurat.jobs.calibration.time import PredictedTime
from ziggurat.jobs.questions.calibration import FlopsTime


@dataclass(frozen=True)
class Promise:
    """What the user asks for."""

    targets: Mapping[str, float] = dataclasses.field(default_factory=lambda: dict(TARGETS))  # by point: largest loss
    confidence: float = 0.95  # of each point by itself
    criterion: str | None = None  # see ziggurat.calibrate.risks; None = the problem's default: of classes accuracy
    scores: Sequence[str] | None = None  # exit scores that are tried; None = the problem's
    reference: str | None = None  # model folder that losses are counted from; None = the model itself at full depth
    max_layers: int | None = None  # after which every answer must have come, a cap on what an input can cost

    def __post_init__(self) -> None:
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
    classifier: Model, order: Seen, time: PredictedTime | FlopsTime, promise: Promise
) -> list[tuple[Tried, ...]]:
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
            run.cut(usable), losses[:, :usable], saved[:usable], promise.scores or classifier.output.tried, sizes
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


def usable_rungs(classifier: Model, promise: Promise) -> int:
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
