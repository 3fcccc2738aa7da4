"""The names of version 0.1, for one release: each warns once, with the new name, and does what it did."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Self

from ziggurat.calibrate.calibrate import calibrate_model
from ziggurat.calibrate.points import Promise
from ziggurat.data.sources import DEFAULT_COLUMNS, Columns
from ziggurat.engine.opened import Point, Text
from ziggurat.errors import UserError
from ziggurat.measure.subject import ModelOptions
from ziggurat.model import AdaptiveModel
from ziggurat.recipe import Recipe
from ziggurat.system import Progress
from ziggurat.training.cascade import make_cascade
from ziggurat.training.fit import TrainOptions
from ziggurat.training.train import adapt_model, train_model
from ziggurat.types import Answer, ProblemType, SpanAnswer

_CALLER = 3  # frames up from `warnings.warn`: the caller of the old name


@cache
def _warn(old: str, new: str) -> None:
    warnings.warn(f"{old} is now {new}; the old name goes with the next release", DeprecationWarning, _CALLER)


class AdaptiveClassifier(AdaptiveModel):
    """`AdaptiveModel`, whose `answer` was called `predict` and returned a list."""

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path,
        device: str = "auto",
        dtype: str = "float32",
        threads: int | None = None,
        engine: str = "auto",
    ) -> Self:
        """As `AdaptiveModel.from_pretrained`, where `engine` is `backend`."""
        _warn("AdaptiveClassifier", "AdaptiveModel (engine= is backend=, operating_point= is at=)")
        opened = super().from_pretrained(model, device, dtype, threads, engine)
        if opened.problem.kind is ProblemType.QUESTION_ANSWERING:
            raise UserError(f"{model}: answers questions with spans of a text; open it with ziggurat.load")
        return opened

    def predict(  # type: ignore[override]
        self,
        texts: Iterable[Text],
        operating_point: Point = "balanced",
        batch_size: int | None = None,
        progress: bool = False,
    ) -> list[Answer | SpanAnswer]:
        """A list of what `AdaptiveModel.answer` returns."""
        return list(self.answer(texts, operating_point, batch_size, progress))

    def stream(
        self,
        arrivals: Iterable[Sequence[Text]],
        operating_point: Point = "balanced",
        deadline: float = 0.05,
        batch_sizes: Sequence[int] | None = None,
    ) -> Iterator[tuple[int, Answer | SpanAnswer]]:
        """As `AdaptiveModel.stream`, where `deadline`, which must be more than 0, is `linger`."""
        if not deadline > 0:
            raise UserError(f"deadline {deadline:g} s: must be more than 0; 0.01 is ten milliseconds")
        return super().stream(arrivals, operating_point, deadline, batch_sizes)


class QuestionAnswerer(AdaptiveModel):
    """`AdaptiveModel`, whose `answer` takes pairs of a question and its context."""

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path,
        device: str = "auto",
        dtype: str = "float32",
        threads: int | None = None,
        engine: str = "auto",
    ) -> Self:
        """As `AdaptiveModel.from_pretrained`, where `engine` is `backend`."""
        _warn("QuestionAnswerer", "AdaptiveModel (predict is answer, of pairs of a question and its context)")
        opened = super().from_pretrained(model, device, dtype, threads, engine)
        if opened.problem.kind is not ProblemType.QUESTION_ANSWERING:
            raise UserError(f"{model}: a classifier, which has no spans to give; open it with ziggurat.load")
        return opened

    def predict(  # type: ignore[override]
        self,
        questions: Iterable[str],
        contexts: Iterable[str],
        operating_point: Point = "balanced",
        batch_size: int | None = None,
        progress: bool = False,
    ) -> list[Answer | SpanAnswer]:
        """A list of what `AdaptiveModel.answer` returns for n questions, each about its own context."""
        if isinstance(questions, str) or isinstance(contexts, str):
            raise UserError("questions and contexts: one string was given; give a list of each")
        firsts, seconds = list(questions), list(contexts)
        if len(firsts) != len(seconds):
            raise UserError(f"{len(firsts)} questions about {len(seconds)} contexts; give each its own")
        return list(self.answer(list(zip(firsts, seconds, strict=True)), operating_point, batch_size, progress))


def train_classifier(
    source: str,
    out: str | Path,
    recipe: str | Recipe = "early-exit",
    model: str | None = None,
    options: TrainOptions = TrainOptions(),
    teacher: str | None = None,
) -> dict[str, Any]:
    """`ziggurat.train`, which returned what was done as JSON values."""
    _warn("train_classifier", "ziggurat.train(rows, recipe, out=…)")
    done = train_model(source, out, recipe, model, options, teacher)
    return {} if done is None else done.to_dict()


def adapt_classifier(
    checkpoint: str,
    source: str,
    out: str | Path,
    recipe: str | Recipe = "adapt",
    options: TrainOptions = TrainOptions(),
) -> dict[str, Any]:
    """`ziggurat.adapt`, which returned what was done as JSON values."""
    _warn("adapt_classifier", "ziggurat.adapt(checkpoint, rows, recipe, out=…)")
    done = adapt_model(checkpoint, source, out, recipe, options)
    return {} if done is None else done.to_dict()


def build_cascade(
    models: Sequence[str],
    out: str | Path,
    source: str | None = None,
    columns: Columns = DEFAULT_COLUMNS,
    options: ModelOptions = ModelOptions(),
    progress: bool = False,
) -> dict[str, Any]:
    """`ziggurat.cascade`, which returned what it is made of as JSON values."""
    _warn("build_cascade", "ziggurat.cascade(models, out=…)")
    return make_cascade(models, out, source, columns, options, progress).to_dict()


def calibrate_classifier(
    model: str,
    source: str,
    promise: Promise = Promise(),
    columns: Columns = DEFAULT_COLUMNS,
    options: ModelOptions = ModelOptions(),
    html: Path | None = None,
    progress: bool = False,
    tick: Progress = None,
) -> dict[str, Any]:
    """`AdaptiveModel.calibrate`, which returned what was found as JSON values."""
    _warn("calibrate_classifier", "ziggurat.load(model).calibrate(rows, promise)")
    return calibrate_model(model, source, promise, columns, options, html, progress, tick).to_dict()
