"""What `reproduction/reproduce.py` compares, and how each method is trained: recipes, epochs, folders."""

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

from ziggurat.engine.classifier import AdaptiveClassifier
from ziggurat.errors import UserError
from ziggurat.recipe import Recipe, load_recipe
from ziggurat.train.fit import TrainOptions
from ziggurat.train.train import train_classifier

ROOT = Path(__file__).resolve().parent.parent
ROWS = ROOT / "results" / "reproduction.jsonl"
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
TRAINED_AS = {"s3-count": "s3-entropy"}  # the same heads, asked otherwise
DATA = ("ag_news", "yelp_polarity", "sst2", "mrpc", "rte")
RECIPES = Path(__file__).with_name("recipes")  # Magic Pyramid's for each of them; all methods take its epochs and rate
# Epochs of the stages that it has not. One of LengthDrop has four passes a step: as dear as `soft` and `hard` together.
OTHERS = {"mrpc": {"guess": 2, "lengthdrop": 3}, "rte": {"guess": 2, "lengthdrop": 3}}
OTHERS_ELSEWHERE = {"guess": 1, "lengthdrop": 1}
PHRASES = ("sst2",)  # trained on phrases of sentences, reported on sentences


@dataclass(frozen=True)
class Place:
    """One data set, the encoder that everything starts from, and where models and rows go."""

    data: Path
    runs: Path
    seed: int
    encoder: str | None = None  # None = the packaged MiniLM
    rows: Path = ROWS

    @property
    def name(self) -> str:
        """What rows and folders call the data set."""
        return self.data.resolve().name

    @property
    def train(self) -> str:
        """The file that models are trained, and settings chosen, on."""
        return str(self.data / "train.jsonl")

    @property
    def test(self) -> str:
        """The file that is reported."""
        files = [self.data / f"{name}.jsonl" for name in ("test", "validation")]
        found = [str(file) for file in files if file.exists()]
        if not found:
            raise UserError(f"{self.data}: no test.jsonl or validation.jsonl; name a folder that has one")
        return found[0]

    def refuse_incomplete(self) -> None:
        """UserError where rows are missing: before hours of training, not after them."""
        if not Path(self.train).exists():
            raise UserError(f"{self.data}: no train.jsonl; name a folder that has one")
        _ = self.test

    def model(self, method: str) -> Path:
        """The folder of a method's model."""
        return self.runs / self.name / f"{TRAINED_AS.get(method, method)}-{self.seed}"


def recipe_of(method: str, place: Place) -> Recipe:
    """The shipped recipe with the data set's epochs; without `regular` where a method starts from the full model."""
    own = RECIPES / f"{place.name}.toml"
    pyramid = load_recipe(str(own) if own.exists() else "magic-pyramid")
    known = {stage.kind: stage for stage in pyramid.stages}
    epochs = {kind: stage.epochs for kind, stage in known.items()} | OTHERS.get(place.name, OTHERS_ELSEWHERE)
    recipe = pyramid if method == "magic-pyramid" else load_recipe(method)
    # Without pruning a joint stage starts from the encoder (PABEE); behind a soft one it stands in for the hard one.
    starts = {"regular"} if recipe.pruning else {"regular", "joint"}
    stages = []
    for stage in recipe.stages:
        if method == FULL or stage.kind != "regular":
            lasts = ("hard" if recipe.pruning else "regular") if stage.kind == "joint" else stage.kind
            rate = known["regular"].learning_rate if stage.kind in starts else stage.learning_rate
            # A stage with patience ends by itself, and its epochs are only the most.
            most = stage.epochs if stage.patience is not None else float(epochs[lasts])
            stages.append(replace(stage, epochs=most, learning_rate=rate))
    return replace(recipe, stages=tuple(stages), max_length=128, seed=place.seed)


def trained(method: str, place: Place) -> AdaptiveClassifier:
    """The method's model, trained unless it is there."""
    train(method, place)
    return AdaptiveClassifier.from_pretrained(place.model(method))


def train(method: str, place: Place, progress: bool = True) -> None:
    """Trains the method's model unless it is there; most start from the full one, which has to be."""
    method = TRAINED_AS.get(method, method)
    out = place.model(method)
    if not out.exists():
        start = place.encoder if method in (FULL, "pabee") else str(place.model(FULL))
        what, began = f"{place.name}: {method}, seed {place.seed}", time.monotonic()
        sys.stderr.write(f"{what}\n")
        train_classifier(place.train, out, recipe_of(method, place), start, TrainOptions(progress=progress))
        sys.stderr.write(f"{what}: trained in {(time.monotonic() - began) / 60:.0f} min\n")


def train_all(wanted: Sequence[tuple[str, Place]], jobs: int) -> None:
    """Trains these models, `jobs` at a time with as many of the cores each, the full ones first, then the longest.

    Two processes with a core each train 1.3 times as fast as one with two.
    """
    full = dict.fromkeys((FULL, place) for _, place in wanted)
    rest = dict.fromkeys((TRAINED_AS.get(method, method), place) for method, place in wanted if method != FULL)
    for wave in (full, rest):
        missing = [(method, place) for method, place in wave if not place.model(method).exists()]
        if jobs == 1 or len(missing) < 2:
            for method, place in missing:
                train(method, place)
        else:
            _train_at_once(sorted(missing, key=_work, reverse=True), jobs)


def _work(wanted: tuple[str, Place]) -> float:
    """How long a model trains, in epochs of the whole encoder, roughly: heads learn from what a frozen one said."""
    passes = {"heads": 0.1, "lengthdrop": 4}
    return sum(stage.epochs * passes.get(stage.kind, 1) for stage in recipe_of(*wanted).stages)


def _train_at_once(missing: Iterable[tuple[str, Place]], jobs: int) -> None:
    """A process for each model. When one fails, or Ctrl-C, those that run write a checkpoint and end."""
    context, stopped = get_context("spawn"), Event()
    threads, live = max(1, torch.get_num_threads() // jobs), set[SpawnProcess]()

    def one(method: str, place: Place) -> None:
        if stopped.is_set():
            return
        said = context.SimpleQueue()
        process = context.Process(target=_train_apart, args=(method, place, threads, said))
        process.start()
        live.add(process)
        process.join()
        live.remove(process)
        if process.exitcode != 0:
            stopped.set()
            raise UserError(
                f"{place.name}: {method}: ended with code {process.exitcode}" if said.empty() else said.get()
            )

    with ThreadPoolExecutor(jobs) as pool:
        try:
            for each in [pool.submit(one, method, place) for method, place in missing]:
                each.result()
        except KeyboardInterrupt:  # they have had it, too; a second signal would stop them without a checkpoint
            stopped.set()
            raise
        except UserError:
            for process in tuple(live):
                process.terminate()
            raise


def _train_apart(method: str, place: Place, threads: int, said: SimpleQueue[str]) -> None:
    torch.set_num_threads(threads)
    try:
        train(method, place, progress=False)
    except UserError as error:
        said.put(str(error))
        sys.exit(2)
