"""`calibrate` for questions: what may be lost is F1, exact match, or agreement with full depth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ziggurat.calibrate.candidates import Candidate, StoredRun
from ziggurat.calibrate.question_choosing import every_strength, graded
from ziggurat.calibrate.risks import Risk
from ziggurat.calibrate.rows import CalibrationRows, Seen, full_run
from ziggurat.data.dataset import Fractions, Role, content_hashes
from ziggurat.data.squad import Questions, read_questions
from ziggurat.encoder.folder import trained_rows
from ziggurat.encoder.hub import local_folder
from ziggurat.engine.questions import QuestionAnswerer
from ziggurat.errors import UserError
from ziggurat.measure.clock import interleave
from ziggurat.measure.subject import ModelOptions, sample
from ziggurat.policies.prune import scaled
from ziggurat.policies.rules import ExitRule
from ziggurat.report.squad_metrics import normalised

ENOUGH = 50  # questions that chose for the model: from here on they order the path, and all fresh ones certify
_ORDERING = 3  # else one of so many fresh articles does
_TIMED = 64  # questions, of which full depth's time gives the price of a FLOP


def question_rows(model: str, answerer: QuestionAnswerer, source: str) -> CalibrationRows:
    """Questions of a source about contexts that the model has not seen, and those that order the path.

    Those that chose for the model in training order it, if the source has enough of them; else the questions of a third
    of the fresh articles. UserError if there are too few articles.
    """
    everything = read_questions(source, Role.CERTIFY)
    seen = np.isin(everything.hashes, trained_rows(local_folder(model)))
    if seen.all():
        raise UserError(f"{source}: the model has seen the contexts of all {len(seen):,} questions; give others")
    fresh = everything.take(np.flatnonzero(~seen))
    chose = _that_chose(answerer, everything, seen)
    if len(chose) >= ENOUGH:
        return CalibrationRows(_shuffled(chose), _shuffled(fresh), int(seen.sum()) - len(chose))
    ordering = content_hashes(fresh.articles) % _ORDERING == 0
    if ordering.all() or not ordering.any():
        raise UserError(f"{source}: {len(set(fresh.articles))} articles that the model has not seen; add more articles")
    order, certify = (_shuffled(fresh.take(np.flatnonzero(chosen))) for chosen in (ordering, ~ordering))
    return CalibrationRows(order, certify, int(seen.sum()))


def seen_questions(answerer: QuestionAnswerer, rows: Questions, risk: Risk, batch_size: int, progress: bool) -> Seen:
    """Runs the model on the questions at every strength of pruning; losses are counted from its full depth."""
    windows = answerer.encode(rows.texts, rows.contexts)
    every = every_strength(answerer, windows, batch_size, progress)
    marks = {strength: graded(answerer, windows, run.readings, rows) for strength, run in every.items()}
    known: dict[str, int] = {}
    codes = {
        strength: np.array([[known.setdefault(normalised(text), len(known)) for text in rung] for rung in mark.texts]).T
        for strength, mark in marks.items()
    }
    runs = {
        strength: StoredRun(run.readings, run.kept, strength, answers=codes[strength])
        for strength, run in every.items()
    }
    scores = (
        codes
        if risk.name == "agreement"
        else {strength: 1 - (mark.exact if risk.name == "exact-match" else mark.f1) for strength, mark in marks.items()}
    )
    full = scores[full_run(runs).pruning][:, -1]
    losses = {
        strength: np.stack([risk.of(column, full, full) for column in each.T], axis=1)
        for strength, each in scores.items()
    }
    return Seen(rows, windows, runs, losses)


class FlopsTime:
    """Predicted seconds per question of settings: FLOPs at the price that full depth was measured to have."""

    key = None  # no machine's profile

    def __init__(self, answerer: QuestionAnswerer, seen: Seen, options: ModelOptions) -> None:
        self._answerer, self._seen = answerer, seen
        some = seen.encoded.take(sample(len(seen.rows), _TIMED))
        timing = interleave(
            {"full": lambda: answerer.run(some, ExitRule.full_depth(len(answerer.rungs)), options.batch_size)}, 3
        )
        self._price = timing["full"].p50 / float(answerer.whole(some).sum())

    def __call__(self, candidate: Candidate) -> float:
        """Of the rows that `candidate.rungs` is about."""
        return self._of(candidate.rungs, candidate.asked, candidate.pruning)

    def of_full_depth(self, n_rungs: int) -> float:
        """Of rows that go all the way, without pruning, no exit asked."""
        return self._price * float(self._answerer.whole(self._seen.encoded).mean())

    @property
    def saved(self) -> np.ndarray:
        """What leaving at each rung saves of the time of full depth, (n_rungs)."""
        found: np.ndarray = 1 - self._answerer.depths / self._answerer.depths[-1]
        return found

    def _of(self, rungs: np.ndarray, asked: tuple[bool, ...], pruning: float) -> float:
        thresholds = np.where(asked[:-1], 0.0, np.nan)
        rule = replace(
            ExitRule.full_depth(len(asked)), thresholds=thresholds, tokens=scaled(self._answerer.token_rule, pruning)
        )
        spent = self._answerer.spent(self._seen.encoded, self._seen.runs[pruning].kept, rule)
        return self._price * float(spent[np.arange(len(rungs)), rungs].mean())


def _that_chose(answerer: QuestionAnswerer, rows: Questions, seen: np.ndarray) -> Questions:
    """The questions that had the role "select" if the model was trained on these."""
    recipe = answerer.manifest.training.get("recipe")
    nothing = rows.take(np.zeros(0, dtype=np.int64))
    if not isinstance(recipe, Mapping):
        return nothing
    select, certify = float(recipe["select"]), float(recipe["certify"])
    known = rows.take(np.flatnonzero(seen))
    if not len(known):
        return nothing
    shares: dict[str, Any] = {"train": 1 - select - certify, "select": select, "certify": certify}
    return known.take(np.flatnonzero(known.has_role(Fractions(**shares, test=0.0), Role.SELECT)))


def _shuffled(rows: Questions) -> Questions:
    return rows.take(np.random.default_rng(0).permutation(len(rows)))
