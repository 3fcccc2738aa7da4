"""From rows and a Hugging Face folder to a model folder: a recipe's stages, one after the other."""

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
from ziggurat.train.batches import Examples
from ziggurat.train.checks import refuse_emptying, refuse_misfits
from ziggurat.train.loop import Run
from ziggurat.train.own_answers import label_range, on_labels_scale, own_answers, warn_of_exchanged, without_labels
from ziggurat.train.precomputed import with_teacher_logits
from ziggurat.train.stages import HEAD_STAGES, PLAIN_STAGES, UNPRUNED_STAGES, stage_of
from ziggurat.train.students import make_student, student_spec
from ziggurat.train.trials import trials_in
from ziggurat.train.unfinished import claim, identity_of, refuse_other_run
from ziggurat.types import ProblemType

STAGES_FOLDER = "stages"


@dataclass(frozen=True)
class Fit:
    """What `fit_folder` makes of what, and where."""

    source: Path  # Hugging Face folder: an encoder, or a fine-tuned classifier
    recipe: Recipe
    work: Path  # keeps checkpoints; the same arguments go on from there
    made: Path  # the finished model folder
    device: str = "auto"
    progress: bool = True
    mixed_precision: bool = True
    keep_stages: bool = False  # also a model folder for each stage, in `work`/stages
    label_range: tuple[float, float] | None = None  # of a regression, as the user states it; None = as the rows have it


def fit_folder(fit: Fit, train: Dataset, select: Dataset) -> bool:
    """Trains and saves; whether this process is the one that saved (with `accelerate launch`, one of several).

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
    """What the first stage starts from."""

    model: EncoderModel
    tokenizer: TextTokenizer
    train: Examples
    select: Examples
    run: Run
    notes: Mapping[str, Any]  # for the manifest's `training`


def _prepared(fit: Fit, train: Dataset, select: Dataset, device: torch.device) -> _Prepared:
    """The model before any stage and the tokenised rows; UserError for what does not fit together."""
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
    own = own_answers(model, examples[1], fit.recipe, run)
    limits = label_range(fit.label_range, own, train, select)
    notes = _known_of(fit.source, train, goes_on) | ({} if limits is None else {LABEL_RANGE: list(limits)})
    notes[CUT] = sum(cut for _, cut in made)
    warn_of_exchanged(own, select)
    if not on_labels_scale(own, select):
        notes[OTHER_SCALE] = True
        examples = [without_labels(part) for part in examples]
    return _Prepared(model, tokenizer, examples[0], examples[1], run, notes)


def _is_made(fit: Fit) -> bool:
    """Whether all that `fit_folder` writes is there already."""
    kept = len(fit.recipe.stages) if fit.keep_stages else 0
    return (fit.made / MANIFEST).exists() and len(list((fit.work / STAGES_FOLDER).glob("*/" + MANIFEST))) >= kept


def run_recipe(
    model: EncoderModel,
    recipe: Recipe,
    train: Examples,
    select: Examples,
    run: Run,
    after: Callable[[int, EncoderModel], None] = lambda stages, model: None,
) -> EncoderModel:
    """The model after every stage of the recipe; `run.folder` gets one folder per stage and makes the run resumable.

    `after(stages, model)` is called when so many stages are done. At the first stage that trains a student the model so
    far becomes the teacher, and a student takes its place; stages behind it that distil learn from that student.
    What the plain model says of the rows is worked out once for all stages that distil from it.
    """
    stages = [(config, stage_of(config.kind)) for config in recipe.stages]
    plain = copy.deepcopy(model) if any(config.distillation > 0 for config in recipe.stages) else None
    teacher, taught = None, list[Examples]()
    for number, (config, stage) in enumerate(stages, start=1):
        # Each stage starts from its own seed, so that a resumed run draws what an unbroken one would.
        set_seed(recipe.seed + number)
        folder = stage_folder(run, number, config.kind)
        trains_student = config.kind in STUDENT_STAGES
        if trains_student and teacher is None:
            model, teacher = make_student(model, recipe), model
        mine = replace(run, folder=folder, seed=recipe.seed + number, teacher=teacher if trains_student else plain)
        rows = [train, select]
        if plain is not None and config.distillation and not mine.finished:
            rows = taught = taught or [with_teacher_logits(plain, part, run) for part in rows]
        model = stage(model, rows[0], rows[1], config, mine)
        if plain is not None and config.kind in PLAIN_STAGES:
            plain, taught = copy.deepcopy(model), []
        after(number, model)
    return model.eval().requires_grad_(False)


def stage_folder(run: Run, number: int, kind: str) -> Path:
    """Where the recipe's stage of this number (1, 2, …) keeps what it has done."""
    return run.folder / f"{number}-{kind}"


def _start(fit: Fit, train: Dataset) -> EncoderModel:
    """The model before any stage; a student's teacher has neither exits nor pruning, the student has the recipe's.

    A classifier of other classes, or of the same ones in another order, starts fresh.
    """
    recipe, n_outputs = fit.recipe, len(train.label_names)
    keep = problem_named(train.problem, train.label_names).keeps_head(known_names(fit.source))
    mean = 0.0
    if train.problem is ProblemType.REGRESSION and train.labels is not None:
        mean = float(np.nanmean(train.labels))
    places, pruning = (recipe.head_layers, recipe.pruning) if recipe.student is None else ((), None)
    shape = n_outputs, recipe.head_kind, places, recipe.dropout, pruning, train.problem
    model = load_hf(fit.source, *shape, mean, keep_classifier=keep)
    if _is_ours(fit.source) and read_manifest(fit.source).int8:
        simulate_int8(model)
    return model


def _known_of(source: Path, train: Dataset, goes_on: bool) -> dict[str, Any]:
    """What the folder that `source` is says of the plain model that it is made of, and of pruning that is gone on with.

    How accurate that was counts where it was trained and judged on the same rows.
    """
    before = read_manifest(source).training if _is_ours(source) else {}
    same = before.get("data", {}).get("digest") == train.digest
    known = {REFERENCE: same, TRIALS: goes_on}
    return {key: before[key] for key, counts in known.items() if counts and key in before}


def _texts_digest(rows: Dataset) -> str:
    """Of all texts, to the letter and in their order: unlike the rows' own digest, which knows what is alike."""
    return hashlib.blake2b(
        repr((rows.texts, rows.pairs)).encode("utf-8", "backslashreplace"), digest_size=16
    ).hexdigest()


def _seen_rows(source: Path, train: Dataset, select: Dataset) -> np.ndarray:
    """Content hashes (n) uint64 of all rows that trained or chose: here, and before, where `source` is ours.

    A student knows what its teacher was shown, so no promise may rest on that either.
    """
    before = [trained_rows(source)] if _is_ours(source) else []
    return np.unique(np.concatenate([train.hashes, select.hashes, *before]))


def _is_ours(source: Path) -> bool:
    return (source / MANIFEST).exists()


def _examples(rows: Dataset, tokenizer: TextTokenizer, recipe: Recipe) -> tuple[Examples, int]:
    """The sequences of rows, each an example by itself, and how many rows are longer than what is read of them."""
    problem = problem_named(rows.problem, rows.label_names, windows=recipe.spans)
    encoded = problem.encode(tokenizer, rows.texts, rows.pairs)
    return Examples(encoded.by_sequence(), problem.targets(rows, encoded)), int(encoded.truncated.sum())


def _tokenizer(fit: Fit, train: Dataset) -> TextTokenizer:
    """The tokenizer that the finished folder will have; UserError if transformers gives some rows other ids."""
    assert fit.recipe.max_length is not None
    return read_tokenizer(fit.source, fit.recipe.max_length, train.texts, train.pairs)


def plain_quality(model: EncoderModel, manifest: Manifest, tokenizer: TextTokenizer, rows: Dataset) -> float:
    """1 - the mean loss on labelled rows of a model in training, at full depth, unpruned: what pruning must not lose.

    `manifest` is what its folder would say.
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
    """With how many tokens are read: as the recipe says, else as many as the source reads, if the student can, too."""
    spec = read_spec(read_config(fit.source))
    most = spec.positions
    if fit.recipe.student is not None:
        most = min(most, student_spec(fit.recipe.student, spec).positions)
    stated = fit.recipe.max_length
    length = own_length(fit.source, most) if stated is None else min(stated, most)
    return replace(fit, recipe=replace(fit.recipe, max_length=length))


def _manifest(fit: Fit, model: EncoderModel, train: Dataset, max_length: int, stages: int) -> Manifest:
    """What the folder is after so many stages: untrained heads and thresholds are not in it, nobody may ask them."""
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
        fingerprint="",  # `save_model` takes it from the files
        training={
            "recipe": dataclasses.asdict(fit.recipe),
            "data": {"source": train.source, "digest": train.digest, "rows": len(train)},
            "processes": PartialState().num_processes,
            "stages": [stage.kind for stage in fit.recipe.stages[:stages]],
        },
    )


def _identity(fit: Fit, train: Dataset, select: Dataset) -> dict[str, Any]:
    """Whatever the result depends on, as JSON values."""
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
