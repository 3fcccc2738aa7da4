"""How models are made, as recipes in TOML: stages, pruning, students, small models, the tiers of a cascade."""

from __future__ import annotations

import math
import tomllib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from ziggurat.config import from_mapping, require
from ziggurat.errors import UserError
from ziggurat.files import is_file
from ziggurat.stage import StageConfig

STUDENT_STARTS = ("first", "skip", "last")
# What ziggurat.policies.prune offers; this file comes before it, and a test compares.
PRUNING_KINDS = ("threshold", "share", "count")
PRUNING_SCORES = ("received", "received-from-others", "predicted")
PRUNING_SCALES = ("relative", "paper", "ltp-code")
SMALL_KINDS = ("static", "bilstm")  # of ziggurat.encoder.small
SCHEDULES = ("linear", "flat", "spatten", "geometric")
AUGMENTATIONS = ("tang", "tinybert")


@dataclass(frozen=True)
class PruningConfig:
    """Which tokens leave: a rule of ziggurat.policies.prune and where its numbers start."""

    kind: str = "threshold"  # threshold, share (of the text's length) or count (of tokens)
    final: float = 1.0  # number of the last layer; thresholds in the unit of `scale`
    schedule: str = "linear"  # of the other layers: linear (final x l / L), flat, spatten (shares), or geometric
    per_layer: tuple[float | None, ...] | None = None  # numbers of all layers, instead; None = nobody leaves there
    score: str = "received"  # received, received-from-others, or predicted
    scale: str = "relative"  # of thresholds: relative (mean received attention = 1), paper, or ltp-code
    vocabulary: float | None = None  # a learned score per vocabulary entry: the share of tokens that is read at first
    first: float | None = None  # geometric: number of the first layer; the others fall from it by the same factor

    def __post_init__(self) -> None:
        require(self.kind in PRUNING_KINDS, "kind", self.kind, f"one of {', '.join(PRUNING_KINDS)}")
        require(self.schedule in SCHEDULES, "schedule", self.schedule, f"one of {', '.join(SCHEDULES)}")
        require(self.score in PRUNING_SCORES, "score", self.score, f"one of {', '.join(PRUNING_SCORES)}")
        require(self.scale in PRUNING_SCALES, "scale", self.scale, f"one of {', '.join(PRUNING_SCALES)}")
        require(self.kind == "share" or self.schedule != "spatten", "kind", self.kind, "share, as spatten's schedule")
        share = self.vocabulary
        require(share is None or 0 < share <= 1, "vocabulary", share, "in (0, 1]")
        values = (self.final,) if self.per_layer is None else [v for v in self.per_layer if v is not None]
        highest = {"threshold": 100.0, "share": 1.0, "count": math.inf}[self.kind]
        for value in values:
            require(0 <= value <= highest, "pruning value", value, f"in [0, {highest:g}]")
        geometric = self.schedule == "geometric" and self.per_layer is None
        require(geometric == (self.first is not None), "first", self.first, "given, with schedule 'geometric' alone")
        if self.first is not None:
            require(0 < self.final <= self.first <= highest, "first", self.first, f"in [final > 0, {highest:g}]")


@dataclass(frozen=True)
class SearchConfig:
    """How the shares of tokens that stay are searched for, see ziggurat.calibrate.evolution."""

    iterations: int = 30  # generations after the first
    population: int = 20  # constant ratios that the search starts from
    mutations: int = 30  # new candidates per iteration
    crossovers: int = 30  # new candidates per iteration
    max_drop: float = 0.01  # accuracy on select rows that the chosen shares may lose
    length_drop: float = 0.2  # the smallest candidate to start from drops this share of its tokens at each layer
    rows: int = 1024  # select rows that every candidate answers, at most

    def __post_init__(self) -> None:
        require(self.iterations >= 0, "iterations", self.iterations, "at least 0")
        require(self.population >= 2, "population", self.population, "at least 2")
        require(self.mutations >= 0, "mutations", self.mutations, "at least 0")
        require(self.crossovers >= 0, "crossovers", self.crossovers, "at least 0")
        require(0 <= self.max_drop <= 1, "max_drop", self.max_drop, "in [0, 1]")
        require(0 < self.length_drop < 1, "length_drop", self.length_drop, "in (0, 1)")
        require(self.rows >= 1, "rows", self.rows, "at least 1")


@dataclass(frozen=True)
class SmallConfig:
    """A small model without layers, trained towards a teacher or labels: a cascade's first tier."""

    kind: str = "static"  # static (hashed n-grams) or bilstm
    temperature: float = 1.0  # by which the teacher's logits are divided
    label_weight: float = 0.0  # share of the labels in the targets of rows that have one; without a teacher it is 1
    epochs: int = 10  # bilstm: passes over the rows and their copies

    def __post_init__(self) -> None:
        require(self.kind in SMALL_KINDS, "kind", self.kind, f"one of {', '.join(SMALL_KINDS)}")
        require(self.epochs >= 1, "epochs", self.epochs, "at least 1")
        require(self.temperature > 0, "temperature", self.temperature, "more than 0")
        require(0 <= self.label_weight <= 1, "label_weight", self.label_weight, "in [0, 1]")


@dataclass(frozen=True)
class AugmentConfig:
    """How texts are copied and changed for distillation, see ziggurat.data.augment; the defaults are the papers'."""

    kind: str = "tang"  # tang (Tang et al. 2019) or tinybert (Jiao et al. 2020)
    copies: int = 20  # of each text, before those that are alike are dropped; Tang et al.: 10 or 20
    mask: float = 0.1  # tang: p_mask, of a word to become the mask token
    replace: float | None = None  # of a word to become another one; None = 0.1 (tang: p_pos) or 0.4 (tinybert: p)
    ngram: float = 0.25  # tang: p_ng, of a text to lose all but a run of words
    longest: int = 5  # tang: words of such a run, 1 … so many with equal probability
    neighbours: int = 15  # how many nearest words one is replaced from; Jiao et al.: M
    cycle_sides: bool = False  # pairs: as Tang et al. change one text, the other, both in turn; false = both each time
    seed: int = 0

    def __post_init__(self) -> None:
        require(self.kind in AUGMENTATIONS, "kind", self.kind, f"one of {', '.join(AUGMENTATIONS)}")
        require(self.copies >= 1, "copies", self.copies, "at least 1")
        require(0 <= self.mask <= 1, "mask", self.mask, "in [0, 1]")
        require(self.replace is None or 0 <= self.replace <= 1, "replace", self.replace, "in [0, 1]")
        exclusive = self.kind != "tang" or self.mask + self.replaced <= 1
        require(exclusive, "mask", self.mask, "at most 1 together with replace")
        require(0 <= self.ngram <= 1, "ngram", self.ngram, "in [0, 1]")
        require(self.longest >= 1, "longest", self.longest, "at least 1")
        require(self.neighbours >= 1, "neighbours", self.neighbours, "at least 1")
        require(0 <= self.seed < 2**63, "seed", self.seed, "in [0, 2^63)")

    @property
    def replaced(self) -> float:
        """The probability of a word to be replaced, the paper's unless another is set."""
        if self.replace is not None:
            return self.replace
        return {"tang": 0.1, "tinybert": 0.4}[self.kind]


@dataclass(frozen=True)
class StudentConfig:
    """A smaller model that starts from parts of its teacher, see ziggurat.train.students."""

    layers: int  # how many; at most the teacher's
    start: str = "first"  # the teacher's layers that it starts from: first, skip (every L/k-th) or last
    hidden: int | None = None  # width of a token state, at most the teacher's and a multiple of its heads; None = its
    intermediate: int | None = None  # width of the feed-forward layers, at most the teacher's; None = its
    checkpoint: str | None = None  # an encoder of these sizes that it starts from instead: a folder or a hub name

    def __post_init__(self) -> None:
        require(self.layers >= 1, "layers", self.layers, "at least 1")
        require(self.start in STUDENT_STARTS, "start", self.start, f"one of {', '.join(STUDENT_STARTS)}")
        for name in ("hidden", "intermediate"):
            width = getattr(self, name)
            require(width is None or width >= 1, name, width, "at least 1")


@dataclass(frozen=True)
class SpanConfig:
    """How questions about longer texts are read, in windows of question and context, and answered with spans."""

    window: int = 384  # tokens of a window, special ones included; at most what the encoder reads
    stride: int = 128  # context tokens that a window shares with the one before
    question: int = 64  # tokens that are read of a question
    answer: int = 30  # an answer's last token is at most so many behind its first

    def __post_init__(self) -> None:
        require(self.stride >= 0, "stride", self.stride, "at least 0")
        require(self.question >= 1, "question", self.question, "at least 1")
        require(self.answer >= 0, "answer", self.answer, "at least 0")
        room = self.window - self.question - 3  # special tokens; an encoder may have more, see `data.windows`
        require(self.stride < room, "stride", self.stride, f"less than the {room} context tokens of a window")


@dataclass(frozen=True)
class Recipe:
    """How a model is made from a backbone and data."""

    name: str
    description: str
    stages: tuple[StageConfig, ...] = ()
    max_length: int | None = None  # tokens that are read of an input; None = as many as the checkpoint reads
    head_kind: str = "fastbert"  # preset of ziggurat.encoder.heads
    head_layers: tuple[int, ...] | None = None  # after which layers heads stand; None = after each but the last
    pruning: PruningConfig | None = None  # which tokens leave on the way; None = all stay
    dropout: float | None = None  # share of activations dropped in training; None = what the checkpoint says
    select: float = 0.1  # share of the rows that chooses epochs and thresholds
    certify: float = 0.1  # share of the rows that is kept out of everything until `ziggurat calibrate`
    grouped: bool = True  # rows that share text (phrases of one sentence) are shared out together
    exit_score: str | None = None  # of the operating points, see ziggurat.policies.exits; None = the problem's default
    temperatures: bool = False  # fit a temperature per rung on the select rows
    seed: int = 0
    search: SearchConfig | None = None  # of shares, after all stages; None = pruning stays as the stages leave it
    spans: SpanConfig = SpanConfig()  # of question answering
    small: SmallConfig | None = None  # instead of stages: a small model
    augment: AugmentConfig | None = None  # small models: copies of the train rows that the teacher answers too
    tiers: tuple[str, ...] = ()  # recipes of the first tiers of a cascade, which the stages' model then teaches
    student: StudentConfig | None = None  # what stages distil and theseus make of the model before them, their teacher

    def __post_init__(self) -> None:
        require(bool(self.stages) != (self.small is not None), "stages", self.stages, "given, unless there is [small]")
        for name in ("tiers", "pruning", "search", "student"):
            given = getattr(self, name)
            require(self.small is None or not given, name, given, "left out where there is [small]")
        require(self.small is not None or self.augment is None, "augment", self.augment, "left out without [small]")
        require(self.max_length is None or self.max_length >= 3, "max_length", self.max_length, "at least 3")
        require(0 <= self.seed < 2**31, "seed", self.seed, "in [0, 2^31)")
        require(self.dropout is None or 0 <= self.dropout < 1, "dropout", self.dropout, "in [0, 1)")
        require(self.select > 0, "select", self.select, "more than 0")
        require(0 <= self.certify < 1 - self.select, "certify", self.certify, "at least 0, and leave rows to train on")


def load_recipe(name: str) -> Recipe:
    """A recipe by the name under which Ziggurat ships it, or from a TOML file."""
    shipped = {
        path.name.removesuffix(".toml"): path for path in recipe_folder().iterdir() if path.name.endswith(".toml")
    }
    path = Path(name)
    if name not in shipped and not is_file(path):
        raise UserError(f"recipe {name!r}: neither a file nor one of {', '.join(sorted(shipped))}")
    try:
        values = tomllib.loads(shipped.get(name, path).read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{name}: not valid TOML ({error})") from None
    return from_mapping(Recipe, values, where=name)


def recipe_folder() -> Any:
    """The folder of the shipped recipes."""
    return resources.files("ziggurat.train") / "recipes"
