"""The rows of a calibration by role, and the model's runs on them at all strengths of pruning."""

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

ENOUGH = 200  # select rows of the training; with at least so many, they are the search rows, and fresh rows certify
MOST_ORDERING = 20_000  # search rows; more do not improve the path, and are better used to certify
_COMPARED = 4000  # texts whose overlap with training texts is computed
_ORDERING = 3  # one of so many fresh rows is a search row, if there are no select rows


@dataclass(frozen=True)
class CalibrationRows:
    """Disjoint rows, by role."""

    search: Dataset  # learns the path of settings
    certify: Dataset  # tests it; in a fixed random order, as the betting bound needs
    left_out: int  # rows of the source that were used in training, and are not search rows
    groups: int = 0  # number of groups of certifying rows that share text; 0 = not counted
    drawn: Groups | None = None  # the groups that count as draws; None = each row is a draw
    overlap: float = 0.0  # share of certifying texts that are part of a training text, or contain one


def calibration_rows(
    model: str, classifier: OpenedModel, source: Source, columns: Columns, risk: Risk
) -> CalibrationRows:
    """Rows of a source by role, without those that trained the model.

    If the source has enough select rows of the training, as the training file has, these are the search rows, and all
    unused rows certify. Else a third of the unused rows are search rows. UserError if all rows were used in training,
    if the risk needs labels that are missing, or if a class is missing among the certifying rows.
    """
    rows = _builtin(model, classifier) if source == STDLIB_DOCS else _of_source(model, classifier, source, columns)
    if risk.needs_labels:
        _check_labels(classifier, rows.certify, risk)
    _check_range(classifier, rows, risk)
    if rows.certify.articles is not None:  # rows that share an article count as separate draws, see docs/design.md
        return rows
    shared = rows.certify.group_hashes
    drawn = groups_of(shared) if _in_groups(classifier) else None
    return replace(rows, groups=len(np.unique(shared)), drawn=drawn)


def _in_groups(classifier: OpenedModel) -> bool:
    """Whether rows that share text are one draw: true unless the model's recipe has `grouped = false`."""
    recipe = classifier.manifest.training.get("recipe")
    return not isinstance(recipe, Mapping) or bool(recipe.get("grouped", True))


def _builtin(model: str, classifier: OpenedModel) -> CalibrationRows:
    roles = load_builtin()
    if roles[Role.SELECT].label_names != classifier.manifest.labels:
        raise UserError(f"{STDLIB_DOCS}: its labels are not the model's; give rows like those that it was trained on")
    certify = roles[Role.CERTIFY]
    used = _used_in_training(model, certify)
    return CalibrationRows(roles[Role.SELECT], _shuffled(certify.take(np.flatnonzero(~used))), int(used.sum()))


def _of_source(model: str, classifier: OpenedModel, source: Source, columns: Columns) -> CalibrationRows:
    loaded = load_like(classifier, source, columns)
    all_rows = as_dataset(loaded, Role.CERTIFY, classifier.manifest.labels, classifier.manifest.problem_type)
    used = _used_in_training(model, all_rows)
    fresh = _shuffled(all_rows.take(np.flatnonzero(~used)))
    chose = np.flatnonzero(used & _that_chose(classifier, loaded))
    overlap = _overlap(fresh, all_rows.take(np.flatnonzero(used)))
    if len(chose) >= ENOUGH // classifier.problem.texts_per_input:
        return CalibrationRows(_shuffled(all_rows.take(chose)), fresh, int(used.sum()) - len(chose), overlap=overlap)
    groups = fresh.group_hashes  # rows that share text with a search row may not certify
    ordering = groups % _ORDERING == 0
    if not ordering.any():  # such rows may all have fitted a cascade's learned score
        ordering = groups // _ORDERING % _ORDERING == 0
    if ordering.sum() > MOST_ORDERING:
        ordering &= groups <= np.sort(groups[ordering])[MOST_ORDERING - 1]
    if ordering.all() or not ordering.any():
        raise UserError(f"{source}: {len(fresh)} rows that the model has not seen; calibration needs some hundred")
    search, certify = (fresh.take(np.flatnonzero(chosen)) for chosen in (ordering, ~ordering))
    return CalibrationRows(search, certify, int(used.sum()), overlap=overlap)


def _used_in_training(model: str, rows: Dataset) -> np.ndarray:
    """Which rows trained the model or were its select rows, (n) bool; UserError if all of them."""
    used: np.ndarray = np.isin(rows.hashes, trained_rows(local_folder(model)))
    if used.all():
        raise UserError(
            f"{rows.source}: all {len(used):,} rows trained the model or chose for it; "
            "calibrate with rows that it has not seen"
        )
    return used


def _overlap(fresh: Dataset, used: Dataset) -> float:
    """Share of fresh texts that are a run of words of a used one, or the reverse; of at most `_COMPARED` texts."""
    if not len(used) or fresh.articles is not None:  # fresh rows never share an article with used ones
        return 0.0
    return float(overlapping(fresh.texts[:_COMPARED], used.texts).mean())


def _that_chose(classifier: OpenedModel, rows: Rows) -> np.ndarray:
    """Which rows have the role "select" under the model's recipe, (n) bool."""
    recipe = classifier.manifest.training.get("recipe")
    if not isinstance(recipe, Mapping):  # the folder does not record how its rows were split
        return np.zeros(len(rows), dtype=bool)
    select, certify = float(recipe["select"]), float(recipe["certify"])
    grouped = bool(recipe.get("grouped", False))  # older folders split rows one by one
    return has_role(rows, Fractions(1 - select - certify, select, certify, 0.0), Role.SELECT, grouped)


def _shuffled(rows: Dataset) -> Dataset:
    return rows.take(np.random.default_rng(0).permutation(len(rows)))


def _check_range(classifier: OpenedModel, rows: CalibrationRows, risk: Risk) -> None:
    """UserError for a regression without a range, which bounds losses, or with a label outside of it."""
    for part in (rows.search, rows.certify):
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
class RungRuns:
    """Rows, and the runs of all rungs on them."""

    rows: Dataset
    encoded: Encoded  # the rows' tokens
    runs: Mapping[float, StoredRun]  # by strength of pruning
    losses: Mapping[float, np.ndarray]  # (n, n_rungs) of an exit there, by strength of pruning
    groups: Groups | None = None  # in which the rows were drawn; None = row by row

    @property
    def draws(self) -> int:
        """Number of independent draws: groups, or rows."""
        return len(self.rows) if self.groups is None else len(self.groups)

    def evidence(self, risk: Risk) -> Evidence:
        """The arguments of `certify`."""
        return Evidence(self.runs, self.losses, risk, self.groups)

    def per_draw(self, losses: np.ndarray, risk: Risk) -> np.ndarray:
        """Losses of rows (n) → losses of draws (draws), which bounds need."""
        return per_draw(losses, self.groups, risk)


def run_all_rungs(
    classifier: OpenedModel,
    rows: Dataset,
    risk: Risk,
    reference: OpenedModel | None,
    batch_size: int,
    progress: bool,
) -> RungRuns:
    """Runs the model on the rows; losses are relative to `reference` at full depth, None = the model itself."""
    encoded, problem = classifier.encode_rows(rows), classifier.problem
    runs: dict[float, StoredRun] = {}
    for strength in pruning_strengths(classifier.token_rule):
        tokens = scaled(classifier.token_rule, strength)
        all_rungs = classifier.every_rung(encoded, batch_size, progress, tokens)
        predictions = problem.predictions(all_rungs.readings, encoded)
        runs[strength] = StoredRun(
            all_rungs.readings, all_rungs.token_counts, strength, classifier.deferral, problem, predictions
        )
    if reference is not None:
        reference_inputs = reference.encode_rows(rows)
        outcomes = reference.run(reference_inputs, ExitRule.full_depth(len(reference.rungs)), batch_size, progress)
        full = reference.predictions(reference_inputs, outcomes)
    else:
        full = full_run(runs).predictions()[:, -1]
    return RungRuns(rows, encoded, runs, {strength: _losses(run, risk, full, rows) for strength, run in runs.items()})


def full_run(runs: Mapping[float, StoredRun]) -> StoredRun:
    """The run without pruning; the only run of a model that never prunes."""
    return runs.get(0.0, next(iter(runs.values())))


def _losses(run: StoredRun, risk: Risk, full: np.ndarray, rows: Dataset) -> np.ndarray:
    labels = rows.labels if risk.needs_labels else None
    predictions = run.predictions()
    return np.stack([risk.of(predictions[:, rung], full, labels) for rung in range(run.n_rungs)], axis=1)
