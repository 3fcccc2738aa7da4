"""Training stages as settings: which kinds there are, and which keys each reads."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any

from ziggurat.config import require

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
