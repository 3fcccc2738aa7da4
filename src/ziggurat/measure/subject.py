"""Loads a model and labelled rows to measure it on; wrong models and sources are refused before loading."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ziggurat.data.builtin import STDLIB_DOCS
from ziggurat.data.catalogue import parse_source
from ziggurat.data.dataset import Dataset, Role, as_dataset, load, load_builtin
from ziggurat.data.folders import place_of
from ziggurat.data.sources import DEFAULT_COLUMNS, Columns, Rows
from ziggurat.data.tables import Source
from ziggurat.data.task_rows import called_like
from ziggurat.data.tokenizer import Encoded
from ziggurat.encoder.folder import ENCODER, read_manifest, tier_folders, trained_rows
from ziggurat.encoder.hub import local_folder
from ziggurat.engine.opened import FULL, OpenedModel
from ziggurat.errors import UserError
from ziggurat.measure.clock import interleave, paired_ratio
from ziggurat.measure.evaluation import PointPromise, SpeedBeside
from ziggurat.measure.task_metrics import task_for
from ziggurat.policies.rules import ExitRule
from ziggurat.problems.problem import SEARCH, SMALL, TEACHER, TEMPERATURES, TIERS
from ziggurat.problems.registry import problem_named
from ziggurat.recipe import Recipe
from ziggurat.types import OperatingPoint, ProblemType


@dataclass(frozen=True)
class ModelOptions:
    """How a model is run."""

    device: str = "auto"
    dtype: str = "float32"
    threads: int | None = None  # None = all cores
    batch_size: int = 32
    backend: str = "auto"
    batch_given: bool = False  # the user chose `batch_size`; else a point's own batch sizes take precedence
    opened: OpenedModel | None = field(
        default=None, repr=False, compare=False
    )  # reused if its folder and options match

    @classmethod
    def like(cls, model: OpenedModel, batch_size: int | None = None) -> ModelOptions:
        """The options with which a model was opened."""
        if model.origin is None:
            return cls(opened=model)
        _, device, dtype, threads, backend = model.origin
        size = cls.batch_size if batch_size is None else batch_size
        return cls(device, dtype, threads, size, backend, batch_size is not None, model)

    def open(self, model: str) -> OpenedModel:
        """Loads the model folder, or returns `opened` if it is the same."""
        if self.opened is not None and self.opened.origin is not None:
            folder, *options = self.opened.origin
            same = options == [self.device, self.dtype, self.threads, self.backend]
            if same and Path(model).absolute() == folder:
                return self.opened
        return OpenedModel.from_pretrained(model, self.device, self.dtype, self.threads, self.backend)


def exit_rule(
    classifier: OpenedModel, operating_point: str | OperatingPoint, threshold: float | None, score: str | None
) -> ExitRule:
    """The exit rule of a call: its threshold if there is one, else the operating point.

    `score` None = the problem's default. UserError for a score without a threshold.
    """
    if score is not None and threshold is None:
        raise UserError(f"--score {score}: says what --threshold is compared with; give one, or leave --score out")
    score = classifier.problem.scores[0] if score is None else score
    return classifier.rule_of(operating_point if threshold is None else classifier.rule(score, threshold))


def promise_of(classifier: OpenedModel, operating_point: str, threshold: float | None) -> PointPromise | None:
    """The promise of an operating point; None for full depth, a threshold, or an uncertified point."""
    if threshold is not None or operating_point == FULL:
        return None
    point = classifier.point(operating_point)
    if point.certificate is None:
        return None
    proof, backend = point.certificate, classifier.backend
    broken = None
    if proof.dtype != backend.dtype:
        broken = f"{point.name} was certified in {proof.dtype}; in {backend.dtype} it promises nothing: calibrate in it"
    return PointPromise(point.target, point.confidence, proof.criterion, proof.rows, proof.groups, broken)


def rows_to_measure(classifier: OpenedModel, source: Source, columns: Columns = DEFAULT_COLUMNS) -> Dataset:
    """Labelled rows of a source as test rows; the built-in data has its own test rows."""
    names = classifier.manifest.labels
    if source == STDLIB_DOCS:
        rows = load_builtin()[Role.TEST]
        if rows.label_names != names:
            raise UserError(f"{source}: its labels are not the model's ({', '.join(map(str, names))})")
    else:
        loaded = load_like(classifier, source, columns, labels_required=True)
        rows = as_dataset(loaded, Role.TEST, names, classifier.manifest.problem_type)
    return rows.require(Role.TEST)


def load_like(
    classifier: OpenedModel, source: Source, columns: Columns = DEFAULT_COLUMNS, labels_required: bool = False
) -> Rows:
    """Rows of a source, with their classes renamed to the model's labels.

    UserError for pairs if the model reads single texts, or the reverse.
    """
    rows = load(source, columns, labels_required, classifier.problem.kind)
    check_pairs(classifier, rows)
    return called_like(rows, classifier.manifest.labels, task_for(classifier.manifest, source))


def check_pairs(classifier: OpenedModel, rows: Rows) -> None:
    """UserError if the rows are pairs and the model reads single texts, or the reverse."""
    if classifier.manifest.pairs and rows.pairs is None:
        raise UserError(
            f"{rows.source}: has single texts, the model reads pairs; name the second text's column with --pair-column"
        )
    if not classifier.manifest.pairs and rows.pairs is not None:
        raise UserError(
            f"{rows.source}: has pairs of texts, the model reads single ones; give rows without a second text"
        )


def seen_in_training(model: str, rows: Dataset) -> int:
    """Number of rows that were used in training; results on such rows are too good."""
    return int(np.isin(rows.hashes, trained_rows(local_folder(model))).sum())


def data_and_split(source: Source) -> tuple[str, str]:
    """Names of a source and its split: its folder and file without path and suffix, or its task and split."""
    if not isinstance(source, str):
        return str(source), str(Role.TEST)
    named, path = parse_source(source), Path(source)
    if named is not None:
        return named.task.name, named.split
    if path.exists():
        return path.resolve().parent.name, path.stem
    folder = place_of(source)
    if folder is not None and folder.exists():
        return folder.resolve().name, source.rpartition("@")[2]
    return source, str(Role.TEST)


def lengths_summary(encoded: Encoded) -> Mapping[str, Any]:
    """The length fields of a result row."""
    lengths = encoded.lengths
    return {"tokens_mean": float(lengths.mean()), "tokens_p99": float(np.percentile(lengths, 99))}


def sample(n: int, size: int) -> np.ndarray:
    """Indices of at most `size` rows of n, evenly spread, rising; deterministic."""
    return np.unique(np.linspace(0, n - 1, min(n, size)).round().astype(np.int64))


def beside_full_depth(
    model: OpenedModel, timed: Encoded, rules: tuple[ExitRule, ExitRule], batch_size: int
) -> SpeedBeside:
    """Speed of answering inputs under `rules`: an adaptive rule and that of full depth; five interleaved rounds."""
    adaptive, full = rules
    timings = interleave(
        {
            "adaptive": lambda: model.run(timed, adaptive, batch_size),
            "full": lambda: model.run(timed, full, batch_size),
        }
    )
    n, ratio = len(timed), paired_ratio(timings["full"], timings["adaptive"])
    return SpeedBeside(model.problem.counted, n / timings["adaptive"].p50, n / timings["full"].p50, ratio)


def tokens_left(token_counts: np.ndarray, lengths: np.ndarray) -> tuple[float, ...]:
    """Share of tokens read, then after each layer, of inputs that reach it: token_counts (n, L + 1), lengths (n)."""
    full = ((token_counts > 0) * lengths[:, None]).sum(axis=0)
    return tuple(float(count / of) for count, of in zip(token_counts.sum(axis=0), full, strict=True) if of)


def check_has_layers(model: str, command: str) -> None:
    """UserError for a small model alone: it has no layers and a single rung."""
    manifest = read_manifest(local_folder(model))
    if manifest.kind != ENCODER:
        raise UserError(
            f"{model}: a {manifest.kind} model alone has neither layers nor exits, which `ziggurat {command}` is "
            "about; give an encoder or a cascade (`ziggurat eval` measures a small model)"
        )


def check_recipe(recipe: Recipe, problem: ProblemType | None, teacher: bool = False) -> None:
    """UserError for a recipe with a part that the problem does not support; None = the problem is not known yet."""
    if problem is None:
        return
    parts = {
        **{stage.kind: f"stage {stage.kind!r}" for stage in recipe.stages},
        **({TEACHER: TEACHER} if teacher else {}),
        **({SMALL: SMALL} if recipe.small is not None else {}),
        **({SEARCH: SEARCH} if recipe.search is not None else {}),
        **({TIERS: TIERS} if recipe.tiers else {}),
        **({TEMPERATURES: TEMPERATURES} if recipe.temperatures else {}),
    }
    if wrong := [shown for part, shown in parts.items() if part in problem_named(problem).lacks]:
        raise UserError(
            f"recipe {recipe.name!r}: {wrong[0]} is not for {problem}; choose a recipe without it, such as full, "
            "early-exit or magic-pyramid"
        )


def check_classifies(model: str, command: str) -> None:
    """UserError for a model that does not classify into one of its classes."""
    problem = read_manifest(local_folder(model)).problem_type
    if problem != ProblemType.SINGLE_LABEL:
        raise UserError(
            f"{model}: `ziggurat {command}` is about classes, and the model's problem is {problem}; `eval`, `bench`, "
            "`calibrate`, `explain`, `report lengths` and `predict` know it"
        )


def check_one_sequence(model: str, command: str) -> None:
    """UserError for a model that reads its inputs in several sequences."""
    problem = read_manifest(local_folder(model)).problem
    if problem.reader is not None:
        raise UserError(
            f"{model}: `ziggurat {command}` is about inputs of one sequence, and the model reads {problem.pair} in "
            "windows; `bench` and `eval` measure it"
        )


def check_one_encoder(model: str, command: str) -> None:
    """UserError for a cascade, because it has layers of several models. The message names its encoders."""
    folder = local_folder(model)
    tiers = tier_folders(folder, read_manifest(folder))
    if tiers:
        encoders = [str(tier) for tier in tiers if read_manifest(tier).kind == ENCODER]
        instead = ", ".join([*encoders, "the folder that its last tier was made from"])
        raise UserError(
            f"{model}: a cascade, and `ziggurat {command}` is about one encoder's layers; "
            f"give its encoders by themselves: {instead}"
        )
