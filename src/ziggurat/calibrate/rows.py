"""The rows of a calibration, in their roles, and the model run on them at every strength of pruning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from ziggurat.calibrate.candidates import StoredRun
from ziggurat.calibrate.certify import Evidence
from ziggurat.calibrate.choose import pruning_strengths
from ziggurat.calibrate.grouping import Groups, groups_of, per_draw
from ziggurat.calibrate.risks import Risk
from ziggurat.data.builtin import STDLIB_DOCS
from ziggurat.data.dataset import Dataset, Fractions, Role, as_dataset, has_role, load_builtin
from ziggurat.data.groups import overlapping
from ziggurat.data.sources import Columns, Rows
from ziggurat.data.tables import Source
from ziggurat.data.tokenizer import Encoded
from ziggurat.encoder.folder import trained_rows
from ziggurat.encoder.hub import local_folder
from ziggurat.engine.opened import OpenedModel
from ziggurat.errors import UserError
from ziggurat.measure.subject import load_like
from ziggurat.policies.prune import scaled
from ziggurat.policies.rules import ExitRule

ENOUGH = 200  # rows that chose for the model: from here on they order the path, and all fresh rows certify
MOST_ORDERING = 20_000  # more learn no better path, and would be missing where they certify
_COMPARED = 4000
_ORDERING = 3  # else one of so many fresh rows does


@dataclass(frozen=True)
class CalibrationRows:
    """Disjoint rows."""

    order: Dataset  # learn the path of settings
    certify: Dataset  # test it; in a fixed random order, as the betting bound needs
    left_out: int  # rows of the source that trained the model, or chose for it and order nothing
    groups: int = 0  # of the certifying rows, by the text that they share; 0 = not counted
    drawn: Groups | None = None  # these, as a test counts them; None = it counts each row by itself
    overlap: float = 0.0  # share of the certifying texts that are a part of one that trained, or have one as a part


def calibration_rows(
    model: str, classifier: OpenedModel, source: Source, columns: Columns, risk: Risk
) -> CalibrationRows:
    """Rows of a source, without those that trained the model.

    Where the source has rows that chose something for it in training, as the file that it was trained on has, these
    order the path, and all that it has not seen certify. Else a third of the fresh rows order it. UserError if nothing
    is fresh, labels are missing that the risk needs, or a class is missing among the rows that certify.
    """
    rows = _builtin(model, classifier) if source == STDLIB_DOCS else _of_source(model, classifier, source, columns)
    if risk.needs_labels:
        _check_labels(classifier, rows.certify, risk)
    _check_range(classifier, rows, risk)
    if rows.certify.articles is not None:  # rows that share an article are counted one by one, see docs/design.md
        return rows
    shared = rows.certify.group_hashes
    drawn = groups_of(shared) if _in_groups(classifier) else None
    return replace(rows, groups=len(np.unique(shared)), drawn=drawn)


def _in_groups(classifier: OpenedModel) -> bool:
    """Whether rows that share text are one draw: unless the model's recipe says `grouped = false`."""
    recipe = classifier.manifest.training.get("recipe")
    return not isinstance(recipe, Mapping) or bool(recipe.get("grouped", True))


def _builtin(model: str, classifier: OpenedModel) -> CalibrationRows:
    roles = load_builtin()
    if roles[Role.SELECT].label_names != classifier.manifest.labels:
        raise UserError(f"{STDLIB_DOCS}: its labels are not the model's; give rows like those that it was trained on")
    certify = roles[Role.CERTIFY]
    seen = _seen(model, certify)
    return CalibrationRows(roles[Role.SELECT], _shuffled(certify.take(np.flatnonzero(~seen))), int(seen.sum()))


def _of_source(model: str, classifier: OpenedModel, source: Source, columns: Columns) -> CalibrationRows:
    loaded = load_like(classifier, source, columns)
    everything = as_dataset(loaded, Role.CERTIFY, classifier.manifest.labels, classifier.manifest.problem_type)
    seen = _seen(model, everything)
    fresh = _shuffled(everything.take(np.flatnonzero(~seen)))
    chose = np.flatnonzero(seen & _that_chose(classifier, loaded))
    overlap = _overlap(fresh, everything.take(np.flatnonzero(seen)))
    if len(chose) >= ENOUGH // classifier.problem.texts_per_input:
        return CalibrationRows(_shuffled(everything.take(chose)), fresh, int(seen.sum()) - len(chose), overlap=overlap)
    groups = fresh.group_hashes  # what shares text with a row that ordered the path may not certify it
    ordering = groups % _ORDERING == 0
    if not ordering.any():  # a cascade's learned score was fitted to all of those, of the same rows
        ordering = groups // _ORDERING % _ORDERING == 0
    if ordering.sum() > MOST_ORDERING:
        ordering &= groups <= np.sort(groups[ordering])[MOST_ORDERING - 1]
    if ordering.all() or not ordering.any():
        raise UserError(f"{source}: {len(fresh)} rows that the model has not seen; calibration needs some hundred")
    order, certify = (fresh.take(np.flatnonzero(chosen)) for chosen in (ordering, ~ordering))
    return CalibrationRows(order, certify, int(seen.sum()), overlap=overlap)


def _seen(model: str, rows: Dataset) -> np.ndarray:
    """Which rows trained the model or chose for it, (n) bool; UserError where all did."""
    seen: np.ndarray = np.isin(rows.hashes, trained_rows(local_folder(model)))
    if seen.all():
        raise UserError(
            f"{rows.source}: all {len(seen):,} rows trained the model or chose for it; "
            "calibrate with rows that it has not seen"
        )
    return seen


def _overlap(fresh: Dataset, seen: Dataset) -> float:
    """Of at most so many fresh texts, the share that is a run of words of a seen one, or the reverse."""
    if not len(seen) or fresh.articles is not None:  # no article of a seen row is fresh
        return 0.0
    return float(overlapping(fresh.texts[:_COMPARED], seen.texts).mean())


def _that_chose(classifier: OpenedModel, rows: Rows) -> np.ndarray:
    """Which rows had the role "select" if the model was trained on them, (n) bool."""
    recipe = classifier.manifest.training.get("recipe")
    if not isinstance(recipe, Mapping):  # the folder does not say how its rows were shared out
        return np.zeros(len(rows), dtype=bool)
    select, certify = float(recipe["select"]), float(recipe["certify"])
    grouped = bool(recipe.get("grouped", False))  # older folders shared rows out one by one
    return has_role(rows, Fractions(1 - select - certify, select, certify, 0.0), Role.SELECT, grouped)


def _shuffled(rows: Dataset) -> Dataset:
    return rows.take(np.random.default_rng(0).permutation(len(rows)))


def _check_range(classifier: OpenedModel, rows: CalibrationRows, risk: Risk) -> None:
    """UserError, before anything is run, for a regression without a range that bounds losses, or a label outside."""
    for part in (rows.order, rows.certify):
        labels = part.truth if risk.needs_labels else part.labels_or_none[:0]
        try:
            classifier.problem.check_labels(labels)
        except UserError as error:
            raise UserError(f"{part.source}: {error}") from None


def _check_labels(classifier: OpenedModel, rows: Dataset, risk: Risk) -> None:
    if rows.labels is None:
        raise UserError(
            f"{rows.source}: criterion {risk.name!r} needs labels; name their column with --label-column, or certify "
            "agreement with the full model, which needs none (--criterion agreement)"
        )
    classifier.problem.check_certifying(rows)


@dataclass(frozen=True, eq=False)
class Seen:
    """Rows, and what all rungs said to them."""

    rows: Dataset
    encoded: Encoded  # what the model reads of them
    runs: Mapping[float, StoredRun]  # by strength of pruning
    losses: Mapping[float, np.ndarray]  # (n, n_rungs) of leaving there, likewise
    groups: Groups | None = None  # that the rows were drawn in; None = each was drawn by itself

    @property
    def draws(self) -> int:
        """How many independent ones the rows are."""
        return len(self.rows) if self.groups is None else len(self.groups)

    def evidence(self, risk: Risk) -> Evidence:
        """For `certify`."""
        return Evidence(self.runs, self.losses, risk, self.groups)

    def per_draw(self, losses: np.ndarray, risk: Risk) -> np.ndarray:
        """Losses of rows, (n), as a bound takes them: (draws)."""
        return per_draw(losses, self.groups, risk)


def seen(
    classifier: OpenedModel,
    rows: Dataset,
    risk: Risk,
    reference: OpenedModel | None,
    batch_size: int,
    progress: bool,
) -> Seen:
    """Runs the model on the rows; losses are counted from `reference` at full depth, None = the model itself."""
    encoded, problem = classifier.encode_rows(rows), classifier.problem
    runs: dict[float, StoredRun] = {}
    for strength in pruning_strengths(classifier.token_rule):
        tokens = scaled(classifier.token_rule, strength)
        every = classifier.every_rung(encoded, batch_size, progress, tokens)
        predictions = problem.predictions(every.readings, encoded)
        runs[strength] = StoredRun(
            every.readings, every.token_counts, strength, classifier.deferral, problem, predictions
        )
    if reference is not None:
        theirs = reference.encode_rows(rows)
        outcomes = reference.run(theirs, ExitRule.full_depth(len(reference.rungs)), batch_size, progress)
        full = reference.predictions(theirs, outcomes)
    else:
        full = full_run(runs).predictions()[:, -1]
    return Seen(rows, encoded, runs, {strength: _losses(run, risk, full, rows) for strength, run in runs.items()})


def full_run(runs: Mapping[float, StoredRun]) -> StoredRun:
    """The run without pruning: of a model that never prunes its only one."""
    return runs.get(0.0, next(iter(runs.values())))


def _losses(run: StoredRun, risk: Risk, full: np.ndarray, rows: Dataset) -> np.ndarray:
    labels = rows.labels if risk.needs_labels else None
    predictions = run.predictions()
    return np.stack([risk.of(predictions[:, rung], full, labels) for rung in range(run.n_rungs)], axis=1)
