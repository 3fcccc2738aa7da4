"""Runs a recipe's stages: from rows and a Hugging Face folder to a model folder."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import set_seed

from ziggurat.data.dataset import Dataset, Role
from ziggurat.data.tokenizer import TextTokenizer
from ziggurat.encoder.finetuned import known_names
from ziggurat.encoder.folder import (
    CUT,
    LABEL_RANGE,
    MANIFEST,
    OTHER_SCALE,
    REFERENCE,
    TRIALS,
    Manifest,
    read_manifest,
    trained_rows,
)
from ziggurat.encoder.hub import checkpoint_folder
from ziggurat.encoder.spec import read_spec
from ziggurat.encoder.tokenizer_files import own_length, read_tokenizer
from ziggurat.encoder.torch.checkpoint import load_hf, read_config, save_model, take_pruning
from ziggurat.encoder.torch.int8 import Int8Linear, simulate_int8
from ziggurat.encoder.torch.model import EncoderModel
from ziggurat.encoder.torch.parts import limit_threads, resolve_device
from ziggurat.engine.backends.torch import TorchBackend
from ziggurat.engine.opened import OpenedModel
from ziggurat.engine.tiers import EncoderTier
from ziggurat.policies.rules import ExitRule
from ziggurat.problems.registry import problem_named
from ziggurat.recipe import STUDENT_STAGES, Recipe
from ziggurat.training.batches import Examples
from ziggurat.training.checks import refuse_emptying, refuse_misfits
from ziggurat.training.loop import Run
from ziggurat.training.own_answers import label_range, on_labels_scale, own_answers, warn_of_exchanged, without_labels
from ziggurat.training.precomputed import with_teacher_logits
from ziggurat.training.stages import HEAD_STAGES, PLAIN_STAGES, UNPRUNED_STAGES, stage_of
from ziggurat.training.students import make_student, student_spec
from ziggurat.training.trials import trials_in
from ziggurat.training.unfinished import claim, identity_of, refuse_other_run
from ziggurat.types import ProblemType

STAGES_FOLDER = "stages"


@dataclass(frozen=True)
class Fit:
    """Input, output and settings of `fit_folder`."""

    source: Path  # Hugging Face folder: an encoder, or a fine-tuned classifier
    recipe: Recipe
    work: Path  # folder of checkpoints; the same arguments resume from there
    made: Path  # the finished model folder
    device: str = "auto"
    progress: bool = True
    mixed_precision: bool = True
    keep_stages: bool = False  # also save a model folder for each stage, in `work`/stages
    label_range: tuple[float, float] | None = None  # of a regression; None = from the rows


def fit_folder(fit: Fit, train: Dataset, select: Dataset) -> bool:
    """Trains and saves; returns whether this process saved (with `accelerate launch`, only the first does).

    UserError for rows of another role, a recipe that does not fit the model, or a `work` folder of another run.
    """
    train.require(Role.TRAIN)
    select.require(Role.SELECT)
    fit = _with_length(fit)
    device = resolve_device(fit.device)
    limit_threads()
    state = PartialState(cpu=device.type == "cpu")
    identity = _identity(fit, train, select)
    refuse_other_run(fit.work, identity)
    if not _is_made(fit):
        start = _prepared(fit, train, select, device)
        claim(fit.work, identity)
        rows = _seen_rows(fit.source, train, select)
        notes = dict(start.notes)

        def manifest_of(model: EncoderModel, stages: int) -> Manifest:
            manifest = _manifest(fit, model, train, start.tokenizer.max_length, stages)
            return replace(manifest, training={**manifest.training, **notes})

        def save(model: EncoderModel, stages: int, out: Path) -> None:
            if state.is_main_process and not out.exists():
                save_model(model, manifest_of(model, stages), rows, fit.source, out)

        def after(stages: int, model: EncoderModel) -> None:
            kind = fit.recipe.stages[stages - 1].kind
            if trials := trials_in(stage_folder(start.run, stages, kind)):
                notes[TRIALS] = trials
            if kind in PLAIN_STAGES and select.labels is not None:
                notes[REFERENCE] = plain_quality(model, manifest_of(model, stages), start.tokenizer, select)
            if fit.keep_stages:
                save(model, stages, fit.work / STAGES_FOLDER / f"{stages}-{kind}")

        trained = run_recipe(start.model, fit.recipe, start.train, start.select, start.run, after)
        save(trained, len(fit.recipe.stages), fit.made)
    state.wait_for_everyone()
    return bool(state.is_main_process)


@dataclass(frozen=True)
class _Prepared:
    """Input of the first stage."""

    model: EncoderModel
    tokenizer: TextTokenizer
    train: Examples
    select: Examples
    run: Run
    notes: Mapping[str, Any]  # for the manifest's `training`


def _prepared(fit: Fit, train: Dataset, select: Dataset, device: torch.device) -> _Prepared:
    """The model before any stage and the tokenised rows; UserError if they do not fit together."""
    set_seed(fit.recipe.seed)
    model = _start(fit, train)
    goes_on = _is_ours(fit.source) and take_pruning(model, fit.source)
    refuse_misfits(fit.recipe, model.spec, goes_on)
    tokenizer = _tokenizer(fit, train)
    tokenizer.check_fit(model.spec.vocabulary)
    run = Run(fit.work, device, progress=fit.progress, mixed_precision=fit.mixed_precision)
    made = [_examples(part, tokenizer, fit.recipe) for part in (train, select)]
    examples = [part for part, _ in made]
    if not goes_on:
        refuse_emptying(model, examples[1].encoded.tokens)
    answers = own_answers(model, examples[1], fit.recipe, run)
    limits = label_range(fit.label_range, answers, train, select)
    notes = _known_of(fit.source, train, goes_on) | ({} if limits is None else {LABEL_RANGE: list(limits)})
    notes[CUT] = sum(cut for _, cut in made)
    warn_of_exchanged(answers, select)
    if not on_labels_scale(answers, select):
        notes[OTHER_SCALE] = True
        examples = [without_labels(part) for part in examples]
    return _Prepared(model, tokenizer, examples[0], examples[1], run, notes)


def _is_made(fit: Fit) -> bool:
    """Whether everything that `fit_folder` writes exists already."""
    wanted = len(fit.recipe.stages) if fit.keep_stages else 0
    return (fit.made / MANIFEST).exists() and len(list((fit.work / STAGES_FOLDER).glob("*/" + MANIFEST))) >= wanted


def run_recipe(
    model: EncoderModel,
    recipe: Recipe,
    train: Examples,
    select: Examples,
    run: Run,
    after: Callable[[int, EncoderModel], None] = lambda stages, model: None,
) -> EncoderModel:
    """Runs all stages of the recipe; `run.folder` gets one folder per stage, from which a stopped run resumes.

    `after(stages, model)` is called after each stage, with the number of finished stages. At the first stage that
    trains a student, the model becomes the teacher and is replaced by the student; later stages distil from that
    student. The plain model's logits of the rows are computed once for all stages that distil from it.
    """
    stages = [(config, stage_of(config.kind)) for config in recipe.stages]
    plain = copy.deepcopy(model) if any(config.distillation > 0 for config in recipe.stages) else None
    teacher, with_logits = None, list[Examples]()
    for number, (config, stage) in enumerate(stages, start=1):
        # Each stage has its own seed, so a resumed run draws the same numbers.
        set_seed(recipe.seed + number)
        folder = stage_folder(run, number, config.kind)
        trains_student = config.kind in STUDENT_STAGES
        if trains_student and teacher is None:
            model, teacher = make_student(model, recipe), model
        stage_run = replace(run, folder=folder, seed=recipe.seed + number, teacher=teacher if trains_student else plain)
        rows = [train, select]
        if plain is not None and config.distillation and not stage_run.finished:
            rows = with_logits = with_logits or [with_teacher_logits(plain, part, run) for part in rows]
        model = stage(model, rows[0], rows[1], config, stage_run)
        if plain is not None and config.kind in PLAIN_STAGES:
            plain, with_logits = copy.deepcopy(model), []
        after(number, model)
    return model.eval().requires_grad_(False)


def stage_folder(run: Run, number: int, kind: str) -> Path:
    """The folder of the recipe's stage of this number (1, 2, …)."""
    return run.folder / f"{number}-{kind}"


def _start(fit: Fit, train: Dataset) -> EncoderModel:
    """The model before any stage. The teacher of a student has no exits and no pruning.

    A classifier with other classes, or another order of classes, is replaced by a new one.
    """
    recipe, n_outputs = fit.recipe, len(train.label_names)
    keep = problem_named(train.problem, train.label_names).keeps_head(known_names(fit.source))
    mean = 0.0
    if train.problem is ProblemType.REGRESSION and train.labels is not None:
        mean = float(np.nanmean(train.labels))
    head_layers, pruning = (recipe.head_layers, recipe.pruning) if recipe.student is None else ((), None)
    shape = n_outputs, recipe.head_kind, head_layers, recipe.dropout, pruning, train.problem
    model = load_hf(fit.source, *shape, mean, keep_classifier=keep)
    if _is_ours(fit.source) and read_manifest(fit.source).int8:
        simulate_int8(model)
    return model


def _known_of(source: Path, train: Dataset, goes_on: bool) -> dict[str, Any]:
    """Notes of an earlier training in folder `source` that still hold.

    The plain model's accuracy holds if the rows are the same; pruning trials hold if training continues with it.
    """
    before = read_manifest(source).training if _is_ours(source) else {}
    same = before.get("data", {}).get("digest") == train.digest
    known = {REFERENCE: same, TRIALS: goes_on}
    return {key: before[key] for key, counts in known.items() if counts and key in before}


def _texts_digest(rows: Dataset) -> str:
    """Digest of all texts, exact and in order; the digest of the rows ignores order and spelling variants."""
    return hashlib.blake2b(
        repr((rows.texts, rows.pairs)).encode("utf-8", "backslashreplace"), digest_size=16
    ).hexdigest()


def _seen_rows(source: Path, train: Dataset, select: Dataset) -> np.ndarray:
    """Content hashes (n) uint64 of all rows used for training or for any choice, also by the model in `source`.

    A student depends on its teacher's rows, so these may not certify it either.
    """
    before = [trained_rows(source)] if _is_ours(source) else []
    return np.unique(np.concatenate([train.hashes, select.hashes, *before]))


def _is_ours(source: Path) -> bool:
    return (source / MANIFEST).exists()


def _examples(rows: Dataset, tokenizer: TextTokenizer, recipe: Recipe) -> tuple[Examples, int]:
    """One example per sequence, and the number of rows that are cut to the maximum length."""
    problem = problem_named(rows.problem, rows.label_names, windows=recipe.spans)
    encoded = problem.encode(tokenizer, rows.texts, rows.pairs)
    return Examples(encoded.by_sequence(), problem.targets(rows, encoded)), int(encoded.truncated.sum())


def _tokenizer(fit: Fit, train: Dataset) -> TextTokenizer:
    """The tokenizer of the finished folder; UserError if its ids differ from transformers' on some rows."""
    assert fit.recipe.max_length is not None
    return read_tokenizer(fit.source, fit.recipe.max_length, train.texts, train.pairs)


def plain_quality(model: EncoderModel, manifest: Manifest, tokenizer: TextTokenizer, rows: Dataset) -> float:
    """1 - mean loss on labelled rows of a model in training, at full depth without pruning: the reference for pruning.

    `manifest` is that of its future folder.
    """
    backend = TorchBackend(model, next(model.parameters()).device.type, reader=manifest.problem.reader)
    classifier = OpenedModel([EncoderTier(backend, manifest, tokenizer, model.spec)])
    encoded = classifier.encode_rows(rows)
    readings = classifier.run(encoded, ExitRule.full_depth(len(classifier.rungs))).readings[:, None]
    offsets = classifier.problem.rung_offsets(lambda: readings, encoded, rows.truth)
    problem = classifier.problem.with_offsets(offsets)
    lost = float(problem.loss(problem.predictions(readings, encoded)[:, 0], rows.truth).sum())
    return (len(rows) - lost) / len(rows)


def _with_length(fit: Fit) -> Fit:
    """Sets the recipe's maximum length: the stated one, else the source's; at most that of the student."""
    spec = read_spec(read_config(fit.source))
    most = spec.positions
    if fit.recipe.student is not None:
        most = min(most, student_spec(fit.recipe.student, spec).positions)
    stated = fit.recipe.max_length
    length = own_length(fit.source, most) if stated is None else min(stated, most)
    return replace(fit, recipe=replace(fit.recipe, max_length=length))


def _manifest(fit: Fit, model: EncoderModel, train: Dataset, max_length: int, stages: int) -> Manifest:
    """The manifest after `stages` stages, without heads and thresholds that are not trained yet."""
    done = {stage.kind for stage in fit.recipe.stages[:stages]}
    pruned = not done <= UNPRUNED_STAGES or (fit.recipe.search is not None and stages == len(fit.recipe.stages))
    return Manifest(
        labels=train.label_names,
        problem_type=str(train.problem),
        pairs=train.pairs is not None,
        spans=problem_named(train.problem, windows=fit.recipe.spans).span_config,
        max_length=max_length,
        head_kind=model.head_kind,
        head_layers=model.head_layers if done & HEAD_STAGES else (),
        int8=any(isinstance(part, Int8Linear) for part in model.modules()),
        pruning=model.pruning.config if pruned and model.pruning is not None else None,
        fingerprint="",  # computed from the files by `save_model`
        training={
            "recipe": dataclasses.asdict(fit.recipe),
            "data": {"source": train.source, "digest": train.digest, "rows": len(train)},
            "processes": PartialState().num_processes,
            "stages": [stage.kind for stage in fit.recipe.stages[:stages]],
        },
    )


def _identity(fit: Fit, train: Dataset, select: Dataset) -> dict[str, Any]:
    """Everything that the result depends on, as JSON values."""
    student = None if fit.recipe.student is None else fit.recipe.student.checkpoint
    return {
        "model": identity_of(fit.source),
        "recipe": dataclasses.asdict(fit.recipe),
        "student": None if student is None else identity_of(checkpoint_folder(student)),
        "data": [_texts_digest(train), train.digest, _texts_digest(select), select.digest],
        "label range": None if fit.label_range is None else list(fit.label_range),
        "processes": PartialState().num_processes,
        "mixed precision": fit.mixed_precision,
    }
