"""The methods that are compared, and how each is trained: recipes, epochs, folders of models."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from multiprocessing.context import SpawnProcess
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from threading import Event

import torch

from scripts.shared import RESULTS, reported_file
from ziggurat.engine import OpenedModel
from ziggurat.errors import UserError
from ziggurat.recipe import Recipe, load_recipe
from ziggurat.training import TrainOptions, train_model

ROWS = RESULTS / "reproduction.jsonl"
FULL = "full"
METHODS = (
    FULL,
    "ltp",
    "manual-thresholds",
    "spatten",
    "lat",
    "top",
    "stop-words",
    "early-exit",
    "s3-entropy",
    "s3-count",
    "deebert",
    "pabee",
    "magic-pyramid",
    "magic-pyramid-shares",
    "magic-pyramid-joint",
)
TRAINED_AS = {"s3-count": "s3-entropy"}  # the same heads with another exit score
DATA = ("ag_news", "yelp_polarity", "sst2", "mrpc", "rte")
RECIPES = Path(__file__).with_name("recipes")  # Magic Pyramid's for each of them; all methods take its epochs and rate
# Epochs of stages that Magic Pyramid lacks. LengthDrop takes four passes a step, as `soft` and `hard` together.
OTHER_STAGES = {"mrpc": {"guess": 2, "lengthdrop": 3}, "rte": {"guess": 2, "lengthdrop": 3}}
OTHER_STAGES_ELSEWHERE = {"guess": 1, "lengthdrop": 1}
PHRASES = ("sst2",)  # trained on phrases of sentences, reported on sentences


@dataclass(frozen=True)
class Experiment:
    """A data set and a seed, the encoder to start from, and where models and rows go."""

    data: Path
    runs: Path
    seed: int
    encoder: str | None = None  # None = the packaged MiniLM
    rows: Path = ROWS

    @property
    def name(self) -> str:
        """The data set's name in rows and folders."""
        return self.data.resolve().name

    @property
    def train(self) -> str:
        """The file on which models are trained and settings chosen."""
        return str(self.data / "train.jsonl")

    @property
    def test(self) -> str:
        """The file whose rows are reported."""
        return str(reported_file(self.data))

    def check_complete(self) -> None:
        """UserError where a file is missing: before hours of training, not after them."""
        if not Path(self.train).exists():
            raise UserError(f"{self.data}: no train.jsonl; name a folder that has one")
        _ = self.test

    def model(self, method: str) -> Path:
        """The folder of a method's model."""
        return self.runs / self.name / f"{TRAINED_AS.get(method, method)}-{self.seed}"


def recipe_of(method: str, experiment: Experiment) -> Recipe:
    """The shipped recipe with the data set's epochs; without `regular` where a method starts from the full model."""
    file = RECIPES / f"{experiment.name}.toml"
    pyramid = load_recipe(str(file) if file.exists() else "magic-pyramid")
    known = {stage.kind: stage for stage in pyramid.stages}
    epochs = {kind: stage.epochs for kind, stage in known.items()} | OTHER_STAGES.get(
        experiment.name, OTHER_STAGES_ELSEWHERE
    )
    recipe = pyramid if method == "magic-pyramid" else load_recipe(method)
    # Without pruning a joint stage starts from the encoder (PABEE); behind a soft one it stands in for the hard one.
    starts = {"regular"} if recipe.pruning else {"regular", "joint"}
    stages = []
    for stage in recipe.stages:
        if method == FULL or stage.kind != "regular":
            length_of = ("hard" if recipe.pruning else "regular") if stage.kind == "joint" else stage.kind
            rate = known["regular"].learning_rate if stage.kind in starts else stage.learning_rate
            # A stage with patience ends by itself; its epochs are a limit.
            most = stage.epochs if stage.patience is not None else float(epochs[length_of])
            stages.append(replace(stage, epochs=most, learning_rate=rate))
    return replace(recipe, stages=tuple(stages), max_length=128, seed=experiment.seed)


def trained(method: str, experiment: Experiment) -> OpenedModel:
    """The method's model, trained unless its folder exists."""
    train(method, experiment)
    return OpenedModel.from_pretrained(experiment.model(method))


def train(method: str, experiment: Experiment, progress: bool = True) -> None:
    """Trains the method's model unless its folder exists; most start from the full model, which must exist."""
    method = TRAINED_AS.get(method, method)
    out = experiment.model(method)
    if not out.exists():
        start = experiment.encoder if method in (FULL, "pabee") else str(experiment.model(FULL))
        label, start_time = f"{experiment.name}: {method}, seed {experiment.seed}", time.monotonic()
        sys.stderr.write(f"{label}\n")
        train_model(experiment.train, out, recipe_of(method, experiment), start, TrainOptions(progress=progress))
        sys.stderr.write(f"{label}: trained in {(time.monotonic() - start_time) / 60:.0f} min\n")


def train_all(wanted: Sequence[tuple[str, Experiment]], jobs: int) -> None:
    """Trains these models, `jobs` at a time which share the cores; the full models first, then the longest trainings.

    Two processes with a core each train 1.3 times as fast as one with two.
    """
    full = dict.fromkeys((FULL, experiment) for _, experiment in wanted)
    rest = dict.fromkeys(
        (TRAINED_AS.get(method, method), experiment) for method, experiment in wanted if method != FULL
    )
    for wave in (full, rest):
        missing = [(method, experiment) for method, experiment in wave if not experiment.model(method).exists()]
        if jobs == 1 or len(missing) < 2:
            for method, experiment in missing:
                train(method, experiment)
        else:
            _train_at_once(sorted(missing, key=_work, reverse=True), jobs)


def _work(wanted: tuple[str, Experiment]) -> float:
    """Roughly how long a model trains, in epochs of the whole encoder; heads alone train on precomputed states."""
    passes = {"heads": 0.1, "lengthdrop": 4}
    return sum(stage.epochs * passes.get(stage.kind, 1) for stage in recipe_of(*wanted).stages)


def _train_at_once(missing: Iterable[tuple[str, Experiment]], jobs: int) -> None:
    """A process for each model. When one fails, or at Ctrl-C, the others write a checkpoint and end."""
    context, stopped = get_context("spawn"), Event()
    threads, live = max(1, torch.get_num_threads() // jobs), set[SpawnProcess]()

    def train_one(method: str, experiment: Experiment) -> None:
        if stopped.is_set():
            return
        errors = context.SimpleQueue()
        process = context.Process(target=_train_in_process, args=(method, experiment, threads, errors))
        process.start()
        live.add(process)
        process.join()
        live.remove(process)
        if process.exitcode != 0:
            stopped.set()
            unexplained = f"{experiment.name}: {method}: ended with code {process.exitcode}"
            raise UserError(unexplained if errors.empty() else errors.get())

    with ThreadPoolExecutor(jobs) as pool:
        try:
            for future in [pool.submit(train_one, method, experiment) for method, experiment in missing]:
                future.result()
        except KeyboardInterrupt:  # the processes got it, too; a second signal would end them without a checkpoint
            stopped.set()
            raise
        except UserError:
            for process in tuple(live):
                process.terminate()
            raise


def _train_in_process(method: str, experiment: Experiment, threads: int, errors: SimpleQueue[str]) -> None:
    torch.set_num_threads(threads)
    try:
        train(method, experiment, progress=False)
    except UserError as error:
        errors.put(str(error))
        sys.exit(2)
