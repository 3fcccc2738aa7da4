"""Recipes in TOML, which say how a model is trained: stages, pruning, students, small models, tiers of a cascade."""

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

BACKBONE_STAGES = ("regular", "soft", "hard", "lengthdrop", "int8", "joint", "distil", "theseus")  # change the encoder
LABEL_FREE_STAGES = ("guess", "heads", "distil")  # also train on rows without labels
KINDS = tuple(dict.fromkeys([*BACKBONE_STAGES, *LABEL_FREE_STAGES]))
STUDENT_STAGES = ("distil", "theseus")  # train a student, see Recipe.student
PATIENT_LAYERS = ("skip", "last")


def _of(default: Any, *kinds: str) -> Any:
    """A key that only stages of these kinds read."""
    return field(default=default, metadata={"kinds": kinds})


@dataclass(frozen=True)
class StageConfig:
    """One training stage. A key that its kind does not read is an error."""

    kind: str  # regular, guess, soft, hard, lengthdrop, int8, heads, joint, distil or theseus: ziggurat.training.stages
    epochs: float  # passes over the train rows
    learning_rate: float  # peak of the linear schedule
    batch_size: int = 32  # rows per process and step
    accumulate: int = 1  # steps per update of the weights
    warmup: float = 0.1  # share of the updates during which the rate rises
    weight_decay: float = 0.01  # of AdamW; not applied to biases and LayerNorms
    max_gradient: float = 1.0  # norm to which gradients are clipped
    evaluations: int = 2  # per epoch: evaluations on the select rows, each with a checkpoint
    # Stop after this many evaluations without a lower loss; None = run all `epochs`.
    patience: int | None = _of(None, "heads", "joint")
    label_weight: float = _of(0.0, "heads", "distil")  # share of cross-entropy against labels beside the KL divergence
    threshold_learning_rate: float = _of(5e-3, "soft")  # for thresholds, in the unit of relative scores
    vocabulary_learning_rate: float = _of(2e-2, "soft")  # for scores of vocabulary entries
    regularisation: float = _of(
        0.1, "soft"
    )  # λ, weight of the mean share of tokens that remain (LTP eq. 3.11, MP eq. 9)
    temperature: float = _of(0.1, "soft")  # T of the mask, for relative scores; falls linearly to `final_temperature`
    final_temperature: float | None = _of(None, "soft")  # T at the end; None = constant
    fade_attention: bool = _of(
        True, "soft"
    )  # masks also weaken a token in the next attention; false = as in the papers
    # Undo pruning that loses more accuracy than it saves time, see train.trials; false = as in the papers.
    trial: bool = _of(True, "soft")
    reverse_kl: bool = _of(False, "heads")  # KL(student ‖ teacher) as MP eq. 3 is printed, not KL(teacher ‖ student)
    head_learning_rate: float | None = _of(None, "joint")  # for exit heads; None = `learning_rate`
    depth_weight: float = _of(1.0, "joint")  # weight of the k-th rung's loss: k to this power; 1 = PABEE, 0 = equal
    length_drop: float = _of(0.2, "lengthdrop")  # p, the largest share of tokens that one layer drops
    # Weight of the loss against the plain fine-tuned model. Heads: 1 = that model is the teacher, 0 = the last rung is.
    distillation: float = _of(0.0, "soft", "hard", "int8", "heads", "joint")
    sandwich: int = _of(2, "lengthdrop")  # random sub-models per step, between the full and the smallest model
    logit_temperature: float = _of(1.0, "distil")  # T: logits are divided by it before they are compared
    answer_weight: float = _of(1.0, "distil")  # weight of the loss on logits and labels; 0 = only states
    hidden_weight: float = _of(
        0.0, "distil"
    )  # of the mean squared error of states, embeddings included (TinyBERT eq. 8)
    attention_weight: float = _of(0.0, "distil")  # of the mean squared error of attention scores (TinyBERT eq. 7)
    cosine_weight: float = _of(0.0, "distil")  # of 1 - cosine of the last hidden states (DistilBERT)
    patient_weight: float = _of(0.0, "distil")  # of the mean squared error of first tokens' normalised states (PKD)
    patient_layers: str = _of("skip", "distil")  # the teacher's layers for that loss: skip (evenly spread) or last
    replacing: float = _of(
        0.5, "theseus"
    )  # probability that a student's layer replaces the teacher's, at the first step
    replacing_growth: float = _of(0.0, "theseus")  # increase of that probability over the stage; the sum is capped at 1

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
        head_rate = self.head_learning_rate
        require(head_rate is None or head_rate > 0, "head_learning_rate", head_rate, "more than 0")
        require(self.depth_weight >= 0, "depth_weight", self.depth_weight, "at least 0")
        require(0 < self.length_drop < 1, "length_drop", self.length_drop, "in (0, 1)")
        require(0 <= self.distillation <= 1, "distillation", self.distillation, "in [0, 1]")
        fits = self.kind != "heads" or self.distillation in (0, 1)
        require(fits, "distillation", self.distillation, "0 or 1 in stage 'heads'")
        require(self.sandwich >= 0, "sandwich", self.sandwich, "at least 0")
        self._check_student()

    def _refuse_unread(self) -> None:
        if self.kind not in KINDS:
            return  # an unknown kind is reported elsewhere
        for key in fields(self):
            kinds = key.metadata.get("kinds", KINDS)
            value = getattr(self, key.name)
            unread = self.kind not in kinds and value != key.default
            require(not unread, key.name, value, f"left out: stage {self.kind!r} does not read it")

    def _check_student(self) -> None:
        require(self.logit_temperature > 0, "logit_temperature", self.logit_temperature, "more than 0")
        for name in ("answer_weight", "hidden_weight", "attention_weight", "cosine_weight", "patient_weight"):
            require(getattr(self, name) >= 0, name, getattr(self, name), "at least 0")
        # The other losses do not reach the whole last layer: parts of it would get no gradient.
        deep = self.answer_weight + self.hidden_weight + self.cosine_weight
        require(deep > 0, "answer_weight", self.answer_weight, "more than 0, or hidden_weight or cosine_weight is")
        known = ", ".join(PATIENT_LAYERS)
        require(self.patient_layers in PATIENT_LAYERS, "patient_layers", self.patient_layers, f"one of {known}")
        require(0 <= self.replacing <= 1, "replacing", self.replacing, "in [0, 1]")
        require(self.replacing_growth >= 0, "replacing_growth", self.replacing_growth, "at least 0")


STUDENT_STARTS = ("first", "skip", "last")
# The choices of ziggurat.policies.prune, which this file may not import; a test compares them.
PRUNING_KINDS = ("threshold", "share", "count")
PRUNING_SCORES = ("received", "received-from-others", "predicted")
PRUNING_SCALES = ("relative", "paper", "ltp-code")
SMALL_KINDS = ("static", "bilstm")  # of ziggurat.small
SCHEDULES = ("linear", "flat", "spatten", "geometric")
AUGMENTATIONS = ("tang", "tinybert")


@dataclass(frozen=True)
class PruningConfig:
    """Token pruning: a rule of ziggurat.policies.prune and the starting values of its numbers."""

    kind: str = "threshold"  # threshold, share (of the text's length) or count (of tokens)
    final: float = 1.0  # value at the last layer; thresholds in the unit of `scale`
    schedule: str = "linear"  # for the other layers: linear (final x l / L), flat, spatten (shares), or geometric
    per_layer: tuple[float | None, ...] | None = (
        None  # values of all layers, instead of a schedule; None = no pruning there
    )
    score: str = "received"  # received, received-from-others, or predicted
    scale: str = "relative"  # of thresholds: relative (mean received attention = 1), paper, or ltp-code
    vocabulary: float | None = None  # learn a score per vocabulary entry; this share of tokens is read at first
    first: float | None = None  # geometric: value at the first layer; each next layer multiplies by the same factor

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
    """Search for the share of tokens to keep at each layer, see ziggurat.training.lengths.evolution."""

    iterations: int = 30  # generations after the first
    population: int = 20  # constant ratios at the start
    mutations: int = 30  # new candidates per iteration
    crossovers: int = 30  # new candidates per iteration
    max_drop: float = 0.01  # accepted loss of accuracy on the select rows
    length_drop: float = 0.2  # share of tokens that the smallest starting candidate drops at each layer
    rows: int = 1024  # select rows for each candidate, at most

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
    """A small model without layers, trained on a teacher's answers or on labels: a cascade's first tier."""

    kind: str = "static"  # static (hashed n-grams) or bilstm
    temperature: float = 1.0  # the teacher's logits are divided by it
    label_weight: float = 0.0  # weight of the label in the target of a labelled row; 1 without a teacher
    epochs: int = 10  # bilstm: passes over the rows and their copies

    def __post_init__(self) -> None:
        require(self.kind in SMALL_KINDS, "kind", self.kind, f"one of {', '.join(SMALL_KINDS)}")
        require(self.epochs >= 1, "epochs", self.epochs, "at least 1")
        require(self.temperature > 0, "temperature", self.temperature, "more than 0")
        require(0 <= self.label_weight <= 1, "label_weight", self.label_weight, "in [0, 1]")


@dataclass(frozen=True)
class AugmentConfig:
    """Data augmentation for distillation, see ziggurat.data.augment; the defaults are the papers'."""

    kind: str = "tang"  # tang (Tang et al. 2019) or tinybert (Jiao et al. 2020)
    copies: int = 20  # of each text, before duplicates are dropped; Tang et al.: 10 or 20
    mask: float = 0.1  # tang: p_mask, probability that a word becomes the mask token
    replace: float | None = None  # probability that a word is replaced; None = 0.1 (tang: p_pos) or 0.4 (tinybert: p)
    ngram: float = 0.25  # tang: p_ng, probability that a text is cut to one n-gram
    longest: int = 5  # tang: the largest n of that n-gram; 1 … `longest` have equal probability
    neighbours: int = 15  # a word is replaced by one of this many nearest words; Jiao et al.: M
    cycle_sides: bool = (
        False  # pairs: change the first text, the second, both, in turn (Tang et al.); false = always both
    )
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
        """Probability that a word is replaced; by default the paper's."""
        if self.replace is not None:
            return self.replace
        return {"tang": 0.1, "tinybert": 0.4}[self.kind]


@dataclass(frozen=True)
class StudentConfig:
    """A smaller model that is initialised from its teacher, see ziggurat.training.students."""

    layers: int  # at most the teacher's
    start: str = "first"  # the teacher's layers that are copied: first, skip (every L/k-th) or last
    hidden: int | None = (
        None  # width of a token state, at most the teacher's and a multiple of its heads; None = the teacher's
    )
    intermediate: int | None = None  # width of the feed-forward layers, at most the teacher's; None = the teacher's
    checkpoint: str | None = None  # initialise from this encoder of the same sizes instead: a folder or a hub name

    def __post_init__(self) -> None:
        require(self.layers >= 1, "layers", self.layers, "at least 1")
        require(self.start in STUDENT_STARTS, "start", self.start, f"one of {', '.join(STUDENT_STARTS)}")
        for name in ("hidden", "intermediate"):
            width = getattr(self, name)
            require(width is None or width >= 1, name, width, "at least 1")


@dataclass(frozen=True)
class SpanConfig:
    """Question answering: a long context is split into windows, each read together with the question."""

    window: int = 384  # tokens of a window, special tokens included; at most the encoder's maximum
    stride: int = 128  # context tokens that consecutive windows share
    question: int = 64  # the question is cut to this many tokens
    answer: int = 30  # largest distance in tokens from an answer's first token to its last

    def __post_init__(self) -> None:
        require(self.stride >= 0, "stride", self.stride, "at least 0")
        require(self.question >= 1, "question", self.question, "at least 1")
        require(self.answer >= 0, "answer", self.answer, "at least 0")
        room = self.window - self.question - 3  # special tokens; an encoder may have more, see `data.windows`
        require(self.stride < room, "stride", self.stride, f"less than the {room} context tokens of a window")


@dataclass(frozen=True)
class Recipe:
    """How a model is trained from a backbone and data."""

    name: str
    description: str
    stages: tuple[StageConfig, ...] = ()
    max_length: int | None = None  # inputs are cut to this many tokens; None = the checkpoint's maximum
    head_kind: str = "fastbert"  # preset of ziggurat.encoder.torch.heads
    head_layers: tuple[int, ...] | None = None  # layers with an exit head; None = all but the last
    pruning: PruningConfig | None = None  # token pruning; None = none
    dropout: float | None = None  # share of activations dropped in training; None = the checkpoint's
    select: float = 0.1  # share of rows on which epochs and thresholds are chosen
    certify: float = 0.1  # share of rows that nothing uses before `ziggurat calibrate`
    grouped: bool = True  # rows that share text (phrases of one sentence) stay in one split
    exit_score: str | None = None  # for operating points, see ziggurat.policies.exits; None = the problem's default
    temperatures: bool = False  # fit one temperature per rung on the select rows
    seed: int = 0
    search: SearchConfig | None = None  # search for pruning shares after all stages; None = keep the stages' values
    spans: SpanConfig = SpanConfig()  # question answering only
    small: SmallConfig | None = None  # train a small model instead of running stages
    augment: AugmentConfig | None = None  # small models: augmented train rows, which the teacher answers too
    tiers: tuple[str, ...] = ()  # recipes of a cascade's first tiers; the stages' model is their teacher
    student: StudentConfig | None = None  # for stages distil and theseus; the model before them is the teacher

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
    """A recipe: one that Ziggurat ships, by name, or a TOML file."""
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
    return resources.files("ziggurat.training") / "recipes"
