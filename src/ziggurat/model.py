"""The front door: one class for every model, and the functions that make one.

What a function needs is imported when it is called: loading a model and answering costs no more than it must.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Self

import numpy as np

from ziggurat.encoder.folder import read_manifest
from ziggurat.engine.opened import OpenedModel, Point, Text
from ziggurat.errors import UserError

if TYPE_CHECKING:
    from ziggurat.calibrate.points import Promise
    from ziggurat.calibrate.result import Calibration
    from ziggurat.data.memory import RowsLike
    from ziggurat.data.sources import Columns
    from ziggurat.explain.record import Explanation
    from ziggurat.measure.evaluation import Evaluation
    from ziggurat.recipe import Recipe
    from ziggurat.training.fit import TrainOptions
    from ziggurat.types import Label

Model = str | Path | OpenedModel  # a folder, a name on the Hugging Face hub, or a model that is open


class AdaptiveModel(OpenedModel):
    """A model that spends on each input only the compute that it needs. It answers classes, labels, numbers or spans.

    `ziggurat.load` and `from_pretrained` open one from its folder; `ziggurat.train`, `adapt` and `cascade` make one.
    Nothing changes it: `calibrate` returns another one. Several threads may use it at once.

    >>> model = ziggurat.load("runs/news", dtype="int8")
    >>> model.predict(["Oil prices fall again", "Who won the match?"])
    array(['Business', 'Sports'], dtype='<U8')
    """

    calibration: Calibration | None = None  # that made its operating points; None = it was not made by `calibrate`

    @property
    def folder(self) -> Path:
        """Where it was opened from; UserError where it was not."""
        if self.origin is None:
            raise UserError("the model is in no folder; make it with ziggurat.load")
        return self.origin.folder

    @property
    def labels(self) -> tuple[Label, ...]:
        """Names of its outputs, in the order of the columns of `predict_proba`."""
        return self.manifest.labels

    @property
    def points(self) -> tuple[str, ...]:
        """Names of its operating points, from "full" on: what `at` may be."""
        return ("full", *(point.name for point in self.manifest.operating_points))

    def predict(
        self, texts: Iterable[Text], at: Point = "balanced", batch_size: int | None = None, progress: bool = False
    ) -> np.ndarray:
        """The labels of n texts, as scikit-learn gives them; arguments and errors as `answer`.

        Returns:
            (n) names of classes, numbers (float64), or texts of spans; of labels that may all apply (n, n_labels) int8,
            1 where one does.
        """
        answers = self.answer(texts, at, batch_size, progress)
        return self.problem.predicted(answers.predictions)

    def predict_proba(
        self, texts: Iterable[Text], at: Point = "balanced", batch_size: int | None = None, progress: bool = False
    ) -> np.ndarray:
        """The probability of each class or label, (n, n_labels) float32, in the order of `labels`.

        Arguments and errors as `answer`; UserError for models of numbers and spans, which give none.
        """
        shares = self.answer(texts, at, batch_size, progress).probabilities
        if shares is None:
            raise UserError(f"predict_proba: a model of {self.problem.kind} gives no probabilities; use answer")
        return shares

    def evaluate(
        self,
        rows: RowsLike,
        at: str = "balanced",
        columns: Columns | None = None,
        batch_size: int = 32,
        metrics: Sequence[str] | None = None,
        progress: bool = False,
    ) -> Evaluation:
        """How good, how cheap and how fast it is on labelled rows, beside its own full depth.

        >>> result = model.evaluate([{"text": "Oil prices fall again", "label": "Business"}, …], at="fast")
        >>> result.figures["accuracy"], result.flops_ratio, result.speed.time_ratio
        (0.91, 3.2, 2.7)

        Args:
            rows: what `ziggurat.train` takes.
            at: name of an operating point, or a file of one (`….json`).
            columns: what the columns of the rows are called; None = text, text_pair and label.
            batch_size: texts per batch.
            metrics: measures beside the problem's own, such as "mcc"; None = those of a known task.
            progress: whether a progress bar is shown.

        Raises:
            UserError: rows without labels, or with labels that are not the model's; an unknown point or measure.
        """
        from ziggurat.data.sources import DEFAULT_COLUMNS
        from ziggurat.measure.evaluate import evaluate
        from ziggurat.measure.subject import ModelOptions

        columns, options = columns or DEFAULT_COLUMNS, ModelOptions.like(self, batch_size)
        place = str(self.folder)
        return evaluate(place, rows, at, columns=columns, options=options, progress=progress, metrics=metrics)

    def explain(self, text: Text, at: str = "balanced", html: str | Path | None = None) -> Explanation:
        """Which tokens of a text, or pair of texts, left at which layer, and why it exited where it did.

        >>> model.explain("Oil prices fall again").layers
        2

        With `html` also as a page of its own. UserError for a pair where the model reads single texts or the reverse,
        for an unknown point, and for a page that would replace a file of the model.
        """
        from ziggurat.explain.explain import explain
        from ziggurat.measure.subject import ModelOptions

        page = None if html is None else Path(html)
        return explain(str(self.folder), text, at, options=ModelOptions.like(self), html=page)

    def calibrate(
        self,
        rows: RowsLike,
        promise: Promise | None = None,
        columns: Columns | None = None,
        batch_size: int = 32,
        html: str | Path | None = None,
        progress: bool = False,
    ) -> Self:
        """Certifies operating points on rows that did not train the model, and writes them into its folder.

        >>> model = model.calibrate("logs.jsonl", ziggurat.Promise(max_drop=0.01))
        >>> model.calibration.points[0].certificate.gain  # times faster than full depth, as measured
        3.1
        >>> model.predict(texts, at="fast")

        Args:
            rows: what `ziggurat.train` takes; without labels what is promised is agreement with full depth.
            promise: what may be lost, and with what confidence; None = `Promise()`.
            columns: what the columns of the rows are called; None = text, text_pair and label.
            batch_size: texts per batch, for which times are predicted.
            html: where a page of what was tried is written; None = nowhere.
            progress: whether a progress bar is shown.

        Returns:
            The model with the new points, which has what was found as `calibration`; this one stays as it is.

        Raises:
            UserError: too few rows, unknown labels, or a score that the model cannot have; then nothing is written.
        """
        from ziggurat.calibrate.calibrate import calibrate_model
        from ziggurat.calibrate.points import Promise
        from ziggurat.data.sources import DEFAULT_COLUMNS
        from ziggurat.measure.subject import ModelOptions

        options, page = ModelOptions.like(self, batch_size), None if html is None else Path(html)
        terms = Promise() if promise is None else promise
        place, columns = str(self.folder), columns or DEFAULT_COLUMNS
        calibration = calibrate_model(place, rows, terms, columns, options, page, progress)
        calibrated = self.with_manifest(read_manifest(self.folder))
        calibrated.calibration = calibration
        return calibrated

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes the model and its operating points into an empty or new folder: what `ziggurat.load` opens.

        UserError where there is something in the folder already.
        """
        from ziggurat.encoder.cascade import copy_whole

        copy_whole(self.folder, Path(folder), self.manifest)

    def push_to_hub(self, name: str, private: bool | None = None, token: str | None = None) -> str:
        """Uploads the model to the Hugging Face hub as `name`, such as "me/news"; returns the address of the commit.

        `private` is for a name that is new there, None = as the account's settings say. `token`: None = the one that
        `hf auth login` keeps. UserError where the hub refuses, or cannot be reached.
        """
        from ziggurat.encoder.hub import upload

        with TemporaryDirectory() as made:
            self.save_pretrained(folder := Path(made) / "model")
            return upload(folder, name, private, token)


def load(
    model: str | Path,
    *,
    backend: str = "auto",
    dtype: str = "float32",
    device: str = "auto",
    threads: int | None = None,
) -> AdaptiveModel:
    """Opens a model folder, or a model on the Hugging Face hub.

    >>> model = ziggurat.load("runs/news", dtype="int8")

    Args:
        model: a folder that `train`, `adapt`, `cascade` or `save_pretrained` wrote, or a name on the hub.
        backend: native (the compiled engine, CPUs), torch, or auto: native on CPUs where it is installed.
        dtype: float32, bfloat16, or int8 (native).
        device: auto, cpu or cuda.
        threads: of the CPU; None = `OMP_NUM_THREADS`, else all cores.

    Raises:
        UserError: no model there, a broken file, or a combination that the backend does not have.
    """
    return AdaptiveModel.from_pretrained(model, device, dtype, threads, backend)


def train(
    rows: RowsLike,
    recipe: str | Recipe = "early-exit",
    *,
    out: str | Path,
    model: str | Path | None = None,
    teacher: Model | None = None,
    columns: Columns | None = None,
    options: TrainOptions | None = None,
) -> AdaptiveModel:
    """Trains a model on rows, from a pre-trained encoder, into the folder `out`.

    >>> rows = [{"text": "Oil prices fall again", "label": "Business"}, …]
    >>> model = ziggurat.train(rows, recipe="early-exit", out="runs/news")

    Args:
        rows: a path, `hf:NAME@SPLIT`, a list of mappings, `(texts, labels)`, a data frame or a `datasets.Dataset`; see
            `ziggurat.as_rows`. What they look like says whether classes, labels, numbers or spans are wanted.
        recipe: name of a shipped recipe, a TOML file, or a `Recipe`.
        out: the folder, empty or new. An interrupted call with the same arguments goes on where it stopped.
        model: encoder to start from, a folder or a name on the hub; None = the packaged MiniLM.
        teacher: a model that the recipe's student or small model learns from, in place of `model`.
        columns: what the columns of the rows are called; None = text, text_pair and label.
        options: everything else; None = `TrainOptions()`.

    Returns:
        The model, open; what was tried on the way is logged, and kept in the folder. Of the processes of
        `accelerate launch` only the main one returns, the others end here.

    Raises:
        UserError: rows, labels, recipe or encoder do not fit each other, or the folder is not empty.
    """
    from ziggurat.training.train import train_model

    chosen = _options(options, columns)
    start = None if model is None else str(model)
    if train_model(rows, out, recipe, start, chosen, None if teacher is None else _place(teacher)) is None:
        raise SystemExit  # with success: another process has the model
    return load(out, device=chosen.device)


def adapt(
    checkpoint: str | Path,
    rows: RowsLike,
    recipe: str | Recipe = "adapt",
    *,
    out: str | Path,
    columns: Columns | None = None,
    options: TrainOptions | None = None,
) -> AdaptiveModel:
    """Gives a fine-tuned Hugging Face classifier exits, into the folder `out`; at full depth its answers stay the same.

    >>> model = ziggurat.adapt("my-finetuned-bert", "logs.jsonl", out="runs/fast")

    `rows` need no labels; labels that they have must be the checkpoint's. Everything else, and errors, as `train`.
    """
    from ziggurat.training.train import adapt_model

    chosen = _options(options, columns)
    if adapt_model(str(checkpoint), rows, out, recipe, chosen) is None:
        raise SystemExit  # with success: another process has the model
    return load(out, device=chosen.device)


def cascade(
    models: Sequence[Model],
    *,
    out: str | Path,
    rows: RowsLike | None = None,
    columns: Columns | None = None,
    progress: bool = False,
) -> AdaptiveModel:
    """Writes models that answer the same question, from cheap to expensive, into the folder `out` as one model.

    >>> model = ziggurat.cascade([small, "runs/news"], out="runs/cascade").calibrate("logs.jsonl")

    It has no operating point but "full", its last tier alone, until it is calibrated. On `rows` a score is fitted that
    predicts whether the next tier would do better.

    Raises:
        UserError: fewer than two models, models of different questions, or the folder is not empty.
    """
    from ziggurat.data.sources import DEFAULT_COLUMNS
    from ziggurat.training.cascade import make_cascade

    make_cascade([_place(model) for model in models], out, rows, columns or DEFAULT_COLUMNS, progress=progress)
    return load(out)


def _options(options: TrainOptions | None, columns: Columns | None) -> TrainOptions:
    from ziggurat.training.fit import TrainOptions

    chosen = TrainOptions() if options is None else options
    return chosen if columns is None else replace(chosen, columns=columns)


def _place(model: Model) -> str:
    """The folder of a model that is open, or its name as it was given."""
    if isinstance(model, OpenedModel):
        if model.origin is None:
            raise UserError("the model is in no folder; make it with ziggurat.load")
        return str(model.origin.folder)
    return str(model)
