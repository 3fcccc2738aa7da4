"""How models are made, as recipes in TOML: stages, pruning, students, small models, the tiers of a cascade."""

from __future__ import annotations

import math
import tomllib
from dataclasses import dataclass, field, fields
from importlib import resources
from pathlib import Path
from typing import Any

from ziggurat.config import from_mapping, require
from ziggurat.errors import UserError
from ziggurat.files import is_file

BACKBONE_STAGES = ("regular", "soft", "hard", "lengthdrop", "int8", "joint", "distil", "theseus")  # they change it
LABEL_FREE_STAGES = ("guess", "heads", "distil")  # they also learn where no row has a label
KINDS = tuple(dict.fromkeys([*BACKBONE_STAGES, *LABEL_FREE_STAGES]))
STUDENT_STAGES = ("distil", "theseus")  # they train a student, see Recipe.student
PATIENT_LAYERS = ("skip", "last")


def _of(default: Any, *kinds: str) -> Any:
    """A key that stages of these kinds read, and no others."""
    return field(default=default, metadata={"kinds": kinds})


@dataclass(frozen=True)
class StageConfig:
    """One training stage. A key that its kind does not read must be left out."""

    kind: str  # regular, guess, soft, hard, lengthdrop, int8, heads, joint, distil or theseus: ziggurat.train.stages
    epochs: float  # passes over the train rows
    learning_rate: float  # peak of the linear schedule
    batch_size: int = 32  # rows per process and step
    accumulate: int = 1  # steps per update of the weights
    warmup: float = 0.1  # share of the updates during which the rate rises
    weight_decay: float = 0.01  # AdamW, not on biases and LayerNorms
    max_gradient: float = 1.0  # norm to which gradients are clipped
    evaluations: int = 2  # how often per epoch the select rows are looked at, and a checkpoint kept
    # Looks at the select rows without a lower loss that end the stage, whose `epochs` are the most; None = never.
    patience: int | None = _of(None, "heads", "joint")
    label_weight: float = _of(0.0, "heads", "distil")  # share of cross-entropy against labels beside the KL divergence
    threshold_learning_rate: float = _of(5e-3, "soft")  # of the thresholds, in the unit of relative scores
    vocabulary_learning_rate: float = _of(2e-2, "soft")  # of the vocabulary's scores
    regularisation: float = _of(0.1, "soft")  # λ, weight of the mean share of tokens left (LTP eq. 3.11, MP eq. 9)
    temperature: float = _of(0.1, "soft")  # T of the mask, of relative scores; falls evenly to `final_temperature`
    final_temperature: float | None = _of(None, "soft")  # T at the end; None = it does not fall
    fade_attention: bool = _of(True, "soft")  # masks also fade a token in the next attention; false = as in the papers
    trial: bool = _of(
        True, "soft"
    )  # what costs more than it gives is taken back, see train.trials; false = as in the papers
    reverse_kl: bool = _of(False, "heads")  # KL(student ‖ teacher) as MP eq. 3 is printed, not KL(teacher ‖ student)
    head_learning_rate: float | None = _of(None, "joint")  # of the exit heads; None = as the rest
    depth_weight: float = _of(1.0, "joint")  # the k-th rung's loss weighs k to this power; 1 = PABEE, 0 = all alike
    length_drop: float = _of(0.2, "lengthdrop")  # p, the largest share of its tokens that a layer drops
    # Share of the loss against the plain fine-tuned model; heads: 1 = they learn from that one, 0 = from the last rung.
    distillation: float = _of(0.0, "soft", "hard", "int8", "heads", "joint")
    sandwich: int = _of(2, "lengthdrop")  # random sub-models per step, between the full model and the smallest
    logit_temperature: float = _of(1.0, "distil")  # T that logits are divided by before they are compared
    answer_weight: float = _of(1.0, "distil")  # of what is learned from logits and labels; 0 = from states alone
    hidden_weight: float = _of(0.0, "distil")  # of the mean square between states, embeddings included (TinyBERT eq. 8)
    attention_weight: float = _of(0.0, "distil")  # of the mean square between attention scores (TinyBERT eq. 7)
    cosine_weight: float = _of(0.0, "distil")  # of 1 - cosine of the last hidden states (DistilBERT)
    patient_weight: float = _of(0.0, "distil")  # of the mean square between normalised states of first tokens (PKD)
    patient_layers: str = _of("skip", "distil")  # of the teacher, for that: skip (spread over it) or last
    replacing: float = _of(0.5, "theseus")  # probability that the student's layer stands in, at the first step
    replacing_growth: float = _of(0.0, "theseus")  # what is added to it over the stage, up to 1 in all

    def __post_init__(self) -> None:
        for key in fields(self):
            value = getattr(self, key.name)
            require(not isinstance(value, float) or math.isfinite(value), key.name, value, "a finite number")
        require(self.epochs > 0, "epochs", self.epochs, "more than 0")
        require(self.learning_rate > 0, "learning_rate", self.learning_rate, "more than 0")
        require(self.batch_size >= 1, "batch_size", self.batch_size, "at least 1")
        require(self.accumulate >= 1, "accumulate", self.accumulate, "at least 1")
        require(0 <= self.warmup < 1, "warmup", self.warmup, "in [0, 1)")
        require(self.weight_decay >= 0, "weight_decay", self.weight_decay, "at least 0")
        require(self.max_gradient > 0, "max_gradient", self.max_gradient, "more than 0")
        require(self.evaluations >= 1, "evaluations", self.evaluations, "at least 1")
        self._refuse_unread()
        require(self.patience is None or self.patience >= 1, "patience", self.patience, "at least 1")
        require(0 <= self.label_weight <= 1, "label_weight", self.label_weight, "in [0, 1]")
        require(self.threshold_learning_rate >= 0, "threshold_learning_rate", self.threshold_learning_rate, "≥ 0")
        require(self.vocabulary_learning_rate >= 0, "vocabulary_learning_rate", self.vocabulary_learning_rate, "≥ 0")
        require(self.regularisation >= 0, "regularisation", self.regularisation, "at least 0")
        require(self.temperature > 0, "temperature", self.temperature, "more than 0")
        final = self.final_temperature
        require(final is None or 0 < final <= self.temperature, "final_temperature", final, "in (0, temperature]")
        own = self.head_learning_rate
        require(own is None or own > 0, "head_learning_rate", own, "more than 0")
        require(self.depth_weight >= 0, "depth_weight", self.depth_weight, "at least 0")
        require(0 < self.length_drop < 1, "length_drop", self.length_drop, "in (0, 1)")
        require(0 <= self.distillation <= 1, "distillation", self.distillation, "in [0, 1]")
        whole = self.kind != "heads" or self.distillation in (0, 1)
        require(whole, "distillation", self.distillation, "0 or 1 where heads learn")
        require(self.sandwich >= 0, "sandwich", self.sandwich, "at least 0")
        self._check_student()

    def _refuse_unread(self) -> None:
        if self.kind not in KINDS:
            return  # the kind is what is wrong then
        for key in fields(self):
            kinds = key.metadata.get("kinds", KINDS)
            value = getattr(self, key.name)
            unread = self.kind not in kinds and value != key.default
            require(not unread, key.name, value, f"left out: stage {self.kind!r} does not read it")

    def _check_student(self) -> None:
        require(self.logit_temperature > 0, "logit_temperature", self.logit_temperature, "more than 0")
        for name in ("answer_weight", "hidden_weight", "attention_weight", "cosine_weight", "patient_weight"):
            require(getattr(self, name) >= 0, name, getattr(self, name), "at least 0")
        # Of the others none reaches the whole last layer: part of it would never learn.
        deep = self.answer_weight + self.hidden_weight + self.cosine_weight
        require(deep > 0, "answer_weight", self.answer_weight, "more than 0, or hidden_weight or cosine_weight is")
        known = ", ".join(PATIENT_LAYERS)
        require(self.patient_layers in PATIENT_LAYERS, "patient_layers", self.patient_layers, f"one of {known}")
        require(0 <= self.replacing <= 1, "replacing", self.replacing, "in [0, 1]")
        require(self.replacing_growth >= 0, "replacing_growth", self.replacing_growth, "at least 0")


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
    """How the shares of tokens that stay are searched for, see ziggurat.train.lengths.evolution."""

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
