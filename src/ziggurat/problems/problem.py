"""The record of a problem: what a rung's reading stands for, how answers are judged, and how they are written.

A *reading* is a rung's output for one input: a row of numbers of fixed width, whose meaning only the problem knows. A
*prediction* is the answer that a reading stands for. Code that has readings calls the record; no other code
depends on the kind of problem. `classes`, `labels`, `number` and `spans` are one file of this shape each.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

import numpy as np

from ziggurat.data.labels import names_same
from ziggurat.data.packing import PackedBatch
from ziggurat.data.tokenizer import Encoded, Piece, TextTokenizer, speakable
from ziggurat.errors import UserError
from ziggurat.policies.exits import FAMILIES
from ziggurat.recipe import Recipe, SpanConfig
from ziggurat.types import Answer, AnyAnswers, Label, ProblemType, Trace

if TYPE_CHECKING:
    from ziggurat.data.dataset import Dataset

Json = dict[str, Any]
# Losses of training, see `ziggurat.training.losses` and, of small models, `ziggurat.small`.
CROSS_ENTROPY, BINARY_CROSS_ENTROPY = "cross-entropy", "binary-cross-entropy"
MEAN_SQUARE, SPAN_CROSS_ENTROPY = "mean-square", "span-cross-entropy"
# Parts of a recipe, or of a command that trains by it, that not every problem can have; kinds of stages are others.
SMALL, TIERS, SEARCH, TEMPERATURES, TEACHER = "[small]", "tiers", "[search]", "temperatures", "--teacher"
Figures = dict[str, float]


@dataclass(frozen=True)
class Loss:
    """The distance of two answers, or of an answer and its label."""

    of: Callable[[np.ndarray, np.ndarray], np.ndarray]  # (n, …) each → (n) in [0, 1]
    binary: bool = False  # every loss is 0 or 1

    def __call__(self, predictions: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """(n) float64 in [0, 1]."""
        return self.of(predictions, labels)


class Reader(Protocol):
    """Reduces a rung's outputs for all tokens of an input's sequences to its reading."""

    @property
    def width(self) -> int:
        """Numbers in a reading."""
        ...

    @property
    def dtype(self) -> Any:
        """Numpy's data type of readings."""
        ...

    def read(self, logits: np.ndarray, marks: PackedBatch) -> np.ndarray:
        """Outputs (n_tokens, n_outputs) of whole sequences → (n, width).

        A pruned token's outputs are of its last state. The states (n_tokens) of `marks` are the third column of the
        token table; its `rows` say which input each sequence is of, whose sequences stand together.
        """
        ...


@dataclass(frozen=True)
class Problem(ABC):
    """What one model answers. Arrays of readings are (…, width), of predictions (…) or (…, n_labels)."""

    names: tuple[Label, ...] = ()  # of the model's outputs

    kind: ClassVar[ProblemType]
    scores: ClassVar[tuple[str, ...]]  # exit scores, and families of them; the first is the default
    compared_scores: ClassVar[tuple[str, ...]]  # of these, those that calibration compares
    measures: ClassVar[tuple[str, ...]]  # names of `metrics.MEASURES` that may be asked for beside the figures
    training_loss: ClassVar[str]
    head: ClassVar[str] = "ForSequenceClassification"  # how transformers' classes end that have its outputs
    counted: ClassVar[str] = "texts"  # what inputs are called
    pair: ClassVar[str] = "pairs of texts"  # what those with a second text are called
    lengths_are: ClassVar[str] = "Lengths are tokens as full depth reads them, special ones included."
    texts_per_input: ClassVar[int] = 1  # where so many texts are timed, this many times fewer inputs are
    lacks: ClassVar[frozenset[str]] = frozenset({SEARCH, TEMPERATURES})  # parts of recipes that know other problems
    surrogate: ClassVar[str | None] = None  # a usual measure that is no mean of losses; None = there is none
    dtype: ClassVar[type[np.floating[Any]]] = np.float32  # of readings

    @property
    def width(self) -> int:
        """Numbers in a reading."""
        return len(self.names)

    @property
    def reader(self) -> Reader | None:
        """What makes readings; None = an input is one sequence, and its reading the outputs for it."""
        return None

    # Answers.

    @abstractmethod
    def predictions(
        self, readings: np.ndarray, inputs: Encoded | None = None, rungs: np.ndarray | None = None
    ) -> np.ndarray:
        """What readings (n, …, width) answer.

        Answers that are parts of texts need the n `inputs`. `rungs` are those that the readings are of, in the shape of
        the axes between the first and the last, or (n) where there are none; None = every rung, on the second axis.
        """

    def probabilities(self, readings: np.ndarray) -> np.ndarray | None:
        """Of each output, (…, width) → (…, width); None = the problem has none."""
        return None

    @abstractmethod
    def label(self, prediction: Any) -> Any:
        """One prediction as a label column holds it."""

    def labels(self, predictions: np.ndarray) -> np.ndarray:
        """Predictions (n, …) as a label column holds them, (n)."""
        found = np.empty(len(predictions), dtype=object)
        for row, prediction in enumerate(predictions):
            found[row] = self.label(prediction)
        return found

    def predicted(self, predictions: np.ndarray) -> np.ndarray:
        """Predictions (n, …) as scikit-learn's `predict` returns them, (n) or (n, n_labels)."""
        return self.labels(predictions)

    def true_label(self, truth: Any) -> Any:
        """One entry of the labels of rows as a label column holds it."""
        return self.label(truth)

    def answers(
        self, readings: np.ndarray, inputs: Encoded | None, rungs: np.ndarray, traces: Sequence[Trace]
    ) -> AnyAnswers:
        """Readings (n, width) of the rungs (n) that answered n inputs, as an object each."""
        predictions, shares = self.predictions(readings, inputs, rungs), self.probabilities(readings)
        rows_of_shares: Sequence[np.ndarray | None] = [None] * len(traces) if shares is None else list(shares)
        rows = zip(predictions, rows_of_shares, traces, strict=True)
        return [Answer(self.label(prediction), share, trace) for prediction, share, trace in rows]

    def fields(self, prediction: Any, probabilities: np.ndarray | None) -> Json:
        """One prediction as JSON fields, with the probabilities of the outputs (n_outputs) where there are some."""
        return self.label_fields(self.label(prediction), probabilities)

    def label_fields(self, label: Any, probabilities: np.ndarray | None) -> Json:
        """A label as JSON fields, with the probabilities of the outputs (n_outputs) where there are some."""
        if probabilities is None:
            return {"label": label}
        shares = {str(name): float(share) for name, share in zip(self.names, probabilities, strict=True)}
        return {"label": label, "probabilities": shares}

    def answer_fields(self, answer: Any) -> Json:
        """An answer as JSON fields, without its trace."""
        return self.label_fields(answer.label, answer.probabilities)

    def input_fields(self, text: str, pair: str | None, identity: str | None) -> Json:
        """The input of an answer as JSON fields."""
        return {"text": text if pair is None else [text, pair]}

    def broken(self, readings: np.ndarray) -> np.ndarray:
        """Where readings are no numbers that a model can give, (…, width) bool."""
        return ~np.isfinite(readings)

    # Inputs.

    def encode(self, tokenizer: TextTokenizer, texts: Sequence[str], pairs: Sequence[str] | None) -> Encoded:
        """The tokens of n texts, or pairs of texts; UserError for what cannot be read."""
        return tokenizer.encode(texts, pairs)

    def lengths(self, encoded: Encoded) -> np.ndarray:
        """Tokens by which inputs count as short or long, (n) int64."""
        return encoded.lengths

    def longest(self, max_length: int) -> int:
        """Tokens of a text that is not cut at most, of a model that reads so many."""
        return max_length

    def sequence_shown(self, reading: np.ndarray) -> int:
        """Which of an input's sequences, from 0, a reading (width) is best explained by."""
        return 0

    def shown_fields(self, encoded: Encoded, sequence: int, sides: Sequence[str]) -> Json:
        """What people see of one input, whose texts are `sides`, as JSON fields."""
        return {"text": speakable(sides[0]) if len(sides) == 1 else [speakable(side) for side in sides]}

    def pieces(self, tokenizer: TextTokenizer, encoded: Encoded, sequence: int, sides: Sequence[str]) -> list[Piece]:
        """The tokens of that sequence as people read them."""
        return tokenizer.pieces(*sides)

    def targets(self, rows: Dataset, encoded: Encoded) -> np.ndarray:
        """What training compares the outputs for each sequence of `encoded` with; `rows` are its inputs."""
        return rows.labels_or_none

    def label_targets(self, labels: np.ndarray) -> np.ndarray:
        """What outputs for one sequence per input learn from labels (n, …): (n, n_outputs) float64."""
        raise ValueError(f"{self.kind} has no outputs for a whole input")

    def taught_targets(self, outputs: np.ndarray, temperature: float = 1.0) -> np.ndarray:
        """The same from a teacher's outputs (n, n_outputs), probabilities at a temperature above 0 (Hinton 2015)."""
        found = self.probabilities(outputs / np.float64(temperature))
        return outputs.astype(np.float64) if found is None else found

    # Losses.

    @property
    @abstractmethod
    def losses(self) -> Mapping[str, Loss]:
        """By name; the first is what is lost unless another is asked for."""

    @property
    @abstractmethod
    def differs(self) -> Loss:
        """The distance of two models' predictions."""

    @property
    def loss(self) -> Loss:
        """The loss that is meant unless another is asked for."""
        return next(iter(self.losses.values()))

    @property
    def unit(self) -> str:
        """Of a loss times 100."""
        return "points"

    def unit_of(self, criterion: str | None) -> str:
        """What 100 times this loss is counted in; None = the default loss."""
        return self.unit

    def apart(self, label: Any, other: Any) -> float:
        """The distance of two models' labels of one input, in [0, 1], as `differs` has it for predictions."""
        return float(not self.same(label, other))

    def same(self, label: Any, other: Any) -> bool:
        """Whether two labels are the same answer."""
        return bool(label == other)

    def right(self, predictions: np.ndarray, truth: np.ndarray) -> np.ndarray:
        """Which of n predictions are the label itself, (n) bool."""
        found: np.ndarray = self.differs(predictions, truth) == 0
        return found

    def keeps(self, predictions: np.ndarray, truth: np.ndarray | None) -> np.ndarray:
        """How much an exit's answer is worth keeping, (n, n_rungs - 1) in [0, 1]: what the learned score learns.

        `predictions` (n, n_rungs, …) of all rungs; `truth` (n, …), None = the last rung's. An answer is worth keeping
        where the last rung's would not be better.
        """
        wanted = predictions[:, -1] if truth is None else truth
        right = np.stack([self.right(predictions[:, rung], wanted) for rung in range(predictions.shape[1])], axis=1)
        keeping: np.ndarray = (right[:, :-1] | ~right[:, -1:]).astype(np.float64)
        return keeping

    # Figures.

    @abstractmethod
    def figures(self, predictions: np.ndarray, truth: np.ndarray, rows: np.ndarray | slice = slice(None)) -> Figures:
        """How good predictions (n, …) are, in the usual measures, the first being the most usual; of `rows` alone."""

    def beside_full(self, adaptive: np.ndarray, full: np.ndarray, truth: np.ndarray) -> dict[str, float | None]:
        """Figures of predictions (n, …), and of full depth's with "full_" before their names.

        "agreement" is 1 - the mean distance of the two.
        """
        full_figures = {f"full_{name}": value for name, value in self.figures(full, truth).items()}
        return {
            **self.figures(adaptive, truth),
            **full_figures,
            "agreement": 1 - float(self.differs(adaptive, full).mean()),
        }

    # Settings.

    def check_score(self, score: str) -> None:
        """UserError for an exit score that reads other outputs."""
        if score.partition("@")[0] not in self.scores:
            known = ", ".join(
                f"{name}@{FAMILIES[name].parameter}" if name in FAMILIES else name for name in self.scores
            )
            raise UserError(f"exit score {score!r} is not for a model of {self.kind}; it can have: {known}")

    def distinct(self, scores: Sequence[str], width: int) -> list[str]:
        """Those of some exit scores that order readings of this width in different ways."""
        return list(scores)

    def check_certifying(self, rows: Dataset) -> None:
        """UserError for rows without labels, or on which a promise would say nothing about some of the labels."""
        rows.truth  # noqa: B018 - it raises

    def check_labels(self, labels: np.ndarray) -> None:
        """UserError for labels (n, …) of which no loss is bounded, or where no label's is."""
        return None

    def fitted_recipe(self, recipe: Recipe, max_length: int | None) -> Recipe:
        """The recipe as it is for this problem; `max_length` tokens are read of an input, None = as the recipe says."""
        return recipe if max_length is None else replace(recipe, max_length=max_length)

    @property
    def learns_certainty(self) -> bool:
        """Whether a model with exits learns, when it is trained, how certain each is: the learned score."""
        return False

    def keeps_head(self, known: Sequence[Label] | None) -> bool:
        """Whether a checkpoint's outputs, named `known`, are this problem's; None = it has none, or no names."""
        return known is not None and names_same(known, self.names)

    @property
    def span_config(self) -> SpanConfig | None:
        """How texts are read in windows; None = they are not."""
        return None

    def range_of(
        self, stated: tuple[float, float] | None, numbers: Sequence[np.ndarray], source: str
    ) -> tuple[float, float] | None:
        """In which numbers losses are counted: as the user states it, else the least and largest of `numbers`.

        None = the problem needs none. UserError, which names `source`, for no range, or numbers outside of it.
        """
        return None

    def with_offsets(self, offsets: tuple[float, ...] | None) -> Self:
        """The same with other `rung_offsets`."""
        return self

    def rung_offsets(
        self, run: Callable[[], np.ndarray], inputs: Encoded, truth: np.ndarray
    ) -> tuple[float, ...] | None:
        """A number for each rung that its answers depend on, fitted to select rows; None = they depend on none.

        `run` gives readings (n, n_rungs, width) without pruning and takes long; `truth` are the labels (n, …).
        """
        return None


def main_figure(figures: Figures) -> Json:
    """The first figure, under names that the tables of all problems share; accuracy has columns of its own."""
    first = next(iter(figures))
    return {} if first == "accuracy" else {"metric": first, "quality": figures[first]}


def check_every_label(rows: Dataset, occurs: np.ndarray) -> None:
    """UserError for the first label that does not occur, (n_labels) bool, among rows that would certify."""
    missing = [str(name) for name, found in zip(rows.label_names, occurs, strict=True) if not found]
    if missing:
        raise UserError(
            f"{rows.source}: none of the {len(rows):,} rows that would certify has label {missing[0]!r}; a promise "
            "about data without it says nothing about data with it: add such rows"
        )
