"""The records that the rooms exchange. Frozen, plain, no torch."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np

Label = int | str


class ProblemType(StrEnum):
    """What a model is asked; the names of Hugging Face's `problem_type`, and one of ours."""

    SINGLE_LABEL = "single_label_classification"  # one of several classes
    MULTI_LABEL = "multi_label_classification"  # any of several labels, each by itself
    REGRESSION = "regression"  # one number
    QUESTION_ANSWERING = "question_answering"  # a span of the second text


Problem = ProblemType  # its former name, as long as files use it


@dataclass(frozen=True)
class Rung:
    """A place where an answer can be given: after `layer` encoder layers of a tier."""

    layer: int  # of the tier's layers that have run, 1 … L; 0 = a small model, which has none
    tier: str = ""  # what the tier is called; "" = a model alone, or a cascade's last tier

    @property
    def name(self) -> str:
        """What tables and figures call it."""
        return f"{self.tier} layer {self.layer}".strip() if self.layer else self.tier


@dataclass(frozen=True)
class Trace:
    """What one answer cost."""

    rung: int  # which rung answered: 0 is the first, n_rungs - 1 the full model
    read: int  # tokens of the text, special ones included
    tokens: tuple[int, ...]  # how many of them each encoder layer that ran left over
    flops: int  # 2 x multiply-adds, heads that were asked included
    microseconds: float  # from the start of its batch to this answer
    truncated: bool  # the text was longer than the model reads

    @property
    def layers(self) -> int:
        """Encoder layers that ran."""
        return len(self.tokens)


@dataclass(frozen=True)
class Answer:
    """One input's answer."""

    label: Label | float | tuple[Label, ...]  # what a label column would hold: a class, a number, all labels that apply
    probabilities: np.ndarray | None  # (n_labels), in the order of the model's labels; None = a number has none
    trace: Trace


@dataclass(frozen=True)
class SpanAnswer:
    """One question's answer: a span of its context."""

    text: str  # as it stands in the context; "" = the context does not answer the question
    start: int  # its characters in the context: from here …
    end: int  # … to before here
    score: float  # start logit + end logit of the best span
    null_score: float  # the same of there being no answer: the least of all windows
    doubt: float  # normalised entropy of start or end, the larger, of the least sure window
    windows: int  # in which the context was read
    trace: Trace

    @property
    def label(self) -> str:
        """The answer's text, as `Answer.label` is that of other answers."""
        return self.text


AnyAnswers = list[Answer] | list[SpanAnswer]


@dataclass(frozen=True)
class Certificate:
    """What vouches for an operating point: the test that it passed, and what its speed was measured to be."""

    criterion: str  # which risk, see ziggurat.calibrate.risks
    estimate: float  # mean loss on the certifying rows, of each group one where they were drawn in groups
    rows: int  # that certified it
    data: str  # their content hash
    engine: str  # with which their answers were computed; it holds for no other dtype
    dtype: str
    threads: int  # the speeds below are of these, and of one machine
    batch_size: int
    profile: str | None  # key of the machine's profile, by which times were predicted
    predicted_ms: float  # per text
    measured_ms: float  # per text, model only
    full_ms: float  # the same of full depth, in the same run
    gain: float  # full depth's time over this one's, median of the rounds
    gain_low: float  # least and most of the rounds
    gain_high: float
    differs: (
        float  # upper bound, at the same confidence, of the share of answers that are not the model's at full depth
    )
    flops: float  # of all rows together, as a share of full depth's
    reference: str | None = None  # model that losses are counted from; None = the model itself at full depth
    groups: int | None = None  # that the rows were drawn in, by the text that they share; None = one by one
    cost: float | None = None  # mean of each row's share of its own full depth; None = older than this, see `flops`


FULL = "full"  # the operating point that never leaves early; every model has it


@dataclass(frozen=True)
class OperatingPoint:
    """Where on the speed-accuracy curve to run: made by `calibrate`, used by `engine`.

    `thresholds` has one entry per rung but the last, in the unit of `score`; None = no answer is given there (its head
    is not even computed). `confidence` is None as long as nothing but the select rows vouches for `target`.
    """

    name: str
    score: str  # which exit score, see ziggurat.policies.exits.exit_score
    thresholds: tuple[float | None, ...]
    fingerprint: str  # of the weights that it was chosen for
    target: float | None = None  # accuracy that it may lose against the full model, 0.01 = one point
    confidence: float | None = None  # probability that the target is kept; None = not certified
    data: str | None = None  # content hash of the rows that chose it
    temperatures: tuple[float, ...] | None = None  # one per rung, dividing its logits for the score; None = 1
    pruning: float = 1.0  # factor on the model's pruning thresholds; 0 = nothing is pruned
    certificate: Certificate | None = None  # None = chosen on rows, certified by none
    batch_sizes: tuple[int, ...] | None = None  # texts, for each tier of a cascade, at which it was fastest; None = 32

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        temperatures = None if self.temperatures is None else list(self.temperatures)
        sizes = None if self.batch_sizes is None else list(self.batch_sizes)
        lists = {"thresholds": list(self.thresholds), "temperatures": temperatures, "batch_sizes": sizes}
        return dataclasses.asdict(self) | lists
