"""Records that all rooms share: frozen, plain, without torch."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np

Label = int | str


class ProblemType(StrEnum):
    """What a model answers: Hugging Face's names of `problem_type`, and one more for questions."""

    SINGLE_LABEL = "single_label_classification"  # one of several classes
    MULTI_LABEL = "multi_label_classification"  # any of several labels, each by itself
    REGRESSION = "regression"  # one number
    QUESTION_ANSWERING = "question_answering"  # a span of the second text


@dataclass(frozen=True)
class Rung:
    """A point at which an input can exit: after `layer` encoder layers of a tier."""

    layer: int  # layers of the tier that have run, 1 … L; 0 = a small model, which has no layers
    tier: str = ""  # name of the tier; "" = a single model, or a cascade's last tier

    @property
    def name(self) -> str:
        """The name in tables and figures."""
        return f"{self.tier} layer {self.layer}".strip() if self.layer else self.tier


@dataclass(frozen=True)
class Trace:
    """The cost of one answer."""

    rung: int  # index of the rung that answered; n_rungs - 1 = the full model
    read: int  # tokens of the text, special tokens included
    tokens: tuple[int, ...]  # tokens that remain after each encoder layer that ran
    flops: int  # 2 x multiply-adds, all computed heads included
    microseconds: float  # from the start of its batch to this answer
    truncated: bool  # the text was longer than the model's maximum length

    @property
    def layers(self) -> int:
        """Encoder layers that ran."""
        return len(self.tokens)


@dataclass(frozen=True)
class Answer:
    """The answer to one input."""

    label: Label | float | tuple[Label, ...]  # as in a label column: a class, a number, or all labels that apply
    probabilities: np.ndarray | None  # (n_labels), in the order of the model's labels; None = regression
    trace: Trace

    def __eq__(self, other: object) -> bool:
        """Whether label, probabilities and trace are equal; the dataclass's own comparison fails on arrays."""
        if not isinstance(other, Answer):
            return NotImplemented
        same = self.label == other.label and self.trace == other.trace
        return same and np.array_equal(self.probabilities, other.probabilities)  # type: ignore[arg-type]


@dataclass(frozen=True)
class SpanAnswer:
    """The answer to one question: a span of its context."""

    text: str  # copied from the context; "" = the context has no answer
    start: int  # index of the span's first character in the context
    end: int  # index after its last character
    score: float  # start logit + end logit of the best span
    null_score: float  # start logit + end logit of "no answer": the minimum over windows
    doubt: float  # normalised entropy: the larger of start and end, the maximum over windows
    windows: int  # number of windows that the context was split into
    trace: Trace

    @property
    def label(self) -> str:
        """The answer's text, as `Answer.label` is that of other answers."""
        return self.text


AnyAnswers = list[Answer] | list[SpanAnswer]


@dataclass(frozen=True)
class Certificate:
    """The guarantee of an operating point: the test that it passed, and its measured speed."""

    criterion: str  # name of the risk, see ziggurat.calibrate.risks
    estimate: float  # mean loss on the certifying rows; of grouped rows, one row per group
    rows: int  # number of certifying rows
    data: str  # content hash of these rows
    engine: str  # backend that computed the answers; the certificate holds for this dtype only
    dtype: str
    threads: int  # the speeds below hold for these settings, on one machine
    batch_size: int
    profile: str | None  # key of the machine's profile, which predicted the times
    predicted_ms: float  # per text
    measured_ms: float  # per text, model only
    full_ms: float  # the same at full depth, in the same run
    gain: float  # time at full depth / time of this point: the median over rounds
    gain_low: float  # minimum over rounds
    gain_high: float  # maximum over rounds
    differs: float  # upper bound, at the same confidence, of the share of answers that differ from full depth
    flops: float  # total over rows, as a share of full depth
    reference: str | None = None  # model that losses are relative to; None = this model at full depth
    groups: int | None = None  # number of groups of rows that share text; None = rows were drawn one by one
    cost: float | None = None  # mean over rows of FLOPs / FLOPs at full depth; None = written by an older version


FULL = "full"  # the operating point without early exits; every model has it


@dataclass(frozen=True)
class OperatingPoint:
    """A setting on the speed-accuracy curve: `calibrate` makes it, `engine` runs it.

    `thresholds` has one entry for each rung but the last, in the unit of `score`; None = inputs never exit there, and
    the head is not computed. `confidence` is None while `target` was only checked on the select rows.
    """

    name: str
    score: str  # name of the exit score, see ziggurat.policies.exits.exit_score
    thresholds: tuple[float | None, ...]
    fingerprint: str  # of the weights that the point was chosen for
    target: float | None = None  # accepted loss of accuracy against the full model; 0.01 = one point
    confidence: float | None = None  # probability that the loss stays within the target; None = not certified
    data: str | None = None  # content hash of the rows that the point was chosen on
    temperatures: tuple[float, ...] | None = None  # one per rung; logits are divided by them before scoring; None = 1
    pruning: float = 1.0  # factor on the model's pruning thresholds; 0 = nothing is pruned
    certificate: Certificate | None = None  # None = chosen on rows, not certified
    batch_sizes: tuple[int, ...] | None = None  # fastest batch size in texts, for each tier; None = 32

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        temperatures = None if self.temperatures is None else list(self.temperatures)
        sizes = None if self.batch_sizes is None else list(self.batch_sizes)
        lists = {"thresholds": list(self.thresholds), "temperatures": temperatures, "batch_sizes": sizes}
        return dataclasses.asdict(self) | lists
