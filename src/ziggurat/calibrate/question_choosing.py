"""Operating points of a model of questions, from select rows, and when it says that there is no answer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ziggurat.calibrate.choose import Ladder, choose_points, pruning_strengths
from ziggurat.calibrate.no_answer import best_no_answer
from ziggurat.data.dataset import Role
from ziggurat.data.squad import SPAN_ENDS, Questions
from ziggurat.data.tokenizer import TextTokenizer
from ziggurat.data.windows import Windows
from ziggurat.encoder.folder import REFERENCE, Manifest, seal, write_manifest
from ziggurat.engine.backend import AllRungs
from ziggurat.engine.questions import QuestionAnswerer
from ziggurat.engine.tiers import EncoderTier
from ziggurat.policies.prune import scaled
from ziggurat.policies.rules import ExitRule
from ziggurat.policies.spans import NULL_SCORE, SCORE, SpanReader
from ziggurat.recipe import Recipe
from ziggurat.report.squad_metrics import grades

if TYPE_CHECKING:
    from ziggurat.encoder.torch.model import AdaptiveModel


@dataclass(frozen=True, eq=False)
class Graded:
    """What all rungs answered to n questions, and how good that is."""

    texts: list[list[str]]  # (n_rungs) lists of n answers
    exact: np.ndarray  # (n, n_rungs) of 0 and 1
    f1: np.ndarray  # (n, n_rungs) in [0, 1]


def add_question_points(folder: Path, select: Questions, recipe: Recipe, device: str, progress: bool) -> Manifest:
    """Chooses on select rows, and writes into the folder, what answers them best at each cost: its new manifest."""
    select.require(Role.SELECT)
    answerer = QuestionAnswerer.from_pretrained(folder, device)
    windows = answerer.encode(select.texts, select.contexts)
    runs = every_strength(answerer, windows, progress=progress)
    if not all(select.golds):
        answerer = answerer.with_no_answer(_no_answer(answerer, windows, runs[0.0 if 0.0 in runs else 1.0], select))
    ladders = [
        Ladder(
            run.readings,
            partial(_cost, answerer, windows, run, factor),
            factor,
            graded(answerer, windows, run.readings, select).f1,
        )
        for factor, run in runs.items()
    ]
    manifest = answerer.manifest
    manifest = seal(folder, manifest)
    reference = float(manifest.training.get(REFERENCE, 0.0))
    points = choose_points(
        ladders,
        None,
        manifest.fingerprint,
        select.digest,
        recipe.exit_score,
        reference=reference,
        output=answerer.output,
    )
    manifest = replace(manifest, operating_points=points)
    write_manifest(manifest, folder)
    return manifest


def plain_f1(select: Questions, recipe: Recipe, model: AdaptiveModel, tokenizer: TextTokenizer) -> float:
    """F1 on select rows of a model in training, at full depth and unpruned: what pruning must not lose."""
    from ziggurat.engine.backends.torch import TorchBackend

    manifest = Manifest(
        SPAN_ENDS,
        True,
        tokenizer.max_length,
        model.head_kind,
        model.head_layers,
        fingerprint="",
        spans=recipe.spans,
        problem_type=model.problem,
    )
    device = next(model.parameters()).device.type
    answerer = QuestionAnswerer(
        [
            EncoderTier(
                TorchBackend(model, device, reader=SpanReader(recipe.spans.answer)), manifest, tokenizer, model.spec
            )
        ]
    )
    windows = answerer.encode(select.texts, select.contexts)
    last = answerer.run(windows, ExitRule.full_depth(len(answerer.rungs))).readings[:, None]
    rung = AllRungs(last, np.zeros(0))
    if not all(select.golds):
        answerer = answerer.with_no_answer(_no_answer(answerer, windows, rung, select))
    return float(graded(answerer, windows, last, select).f1.mean())


def every_strength(
    answerer: QuestionAnswerer, windows: Windows, batch_size: int = 32, progress: bool = False
) -> dict[float, AllRungs]:
    """What every rung says at every strength of pruning; the first strength is none."""
    return {
        factor: answerer.every_rung(windows, batch_size, progress, scaled(answerer.token_rule, factor))
        for factor in pruning_strengths(answerer.token_rule)
    }


def graded(answerer: QuestionAnswerer, windows: Windows, readings: np.ndarray, rows: Questions) -> Graded:
    """Grades of every rung's answers: readings (n, n_rungs, 7)."""
    golds = [[text for text, _ in some] for some in rows.golds]
    texts, marks = [], []
    for rung in range(readings.shape[1]):
        said = answerer.texts(windows, readings[:, rung], np.full(len(rows), rung))
        texts.append([text for text, _, _ in said])
        marks.append(grades(texts[-1], golds))
    exact, f1 = (np.stack(side, axis=1) for side in zip(*marks, strict=True))
    return Graded(texts, exact, f1)


def _cost(answerer: QuestionAnswerer, windows: Windows, run: AllRungs, factor: float, rule: ExitRule) -> np.ndarray:
    return answerer.spent(windows, run.kept, replace(rule, tokens=scaled(answerer.token_rule, factor)))


def _no_answer(answerer: QuestionAnswerer, windows: Windows, run: AllRungs, rows: Questions) -> tuple[float, ...]:
    """For each rung the threshold with the best F1 on these rows."""
    always = answerer.with_no_answer(None)
    answered = graded(always, windows, run.readings, rows).f1
    silent = np.array([0.0 if some else 1.0 for some in rows.golds])
    leads = run.readings[..., NULL_SCORE] - run.readings[..., SCORE]
    return tuple(best_no_answer(leads[:, rung], answered[:, rung], silent) for rung in range(answered.shape[1]))
