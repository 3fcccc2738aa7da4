"""Answers to many inputs, column by column: an object is made only of those that are looked at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, overload

import numpy as np

from ziggurat.data.tokenizer import Encoded
from ziggurat.problems.problem import Problem
from ziggurat.system import cached_property
from ziggurat.types import Answer, SpanAnswer, Trace

_SHOWN = 3  # labels that `repr` names


@dataclass(frozen=True, eq=False, repr=False)
class Answers(Sequence[Answer | SpanAnswer]):
    """The answers to n inputs, in their order: arrays by name, and a list of `Answer` (of spans `SpanAnswer`).

    A list has an object for each text, which costs more time than a small model's answer; arrays do not.

    >>> answers = model.answer(["a fine day", "grey again"])
    >>> answers.labels
    array(['sun', 'rain'], dtype='<U4')
    >>> answers[1].trace.layers
    6
    >>> [answer.label for answer in answers[:1]]
    ['sun']

    Two of them are equal where all is but their times.
    """

    problem: Problem  # what the readings stand for
    readings: np.ndarray  # (n, width): the logits of the rung that answered, or what the problem makes of them
    rungs: np.ndarray  # (n) int64: which rung answered; 0 is the first, the last is the full model
    tokens: np.ndarray  # (n) int64: tokens of the text, special ones included
    tokens_left: np.ndarray  # (n, layers of all tiers) int64: how many of them each layer left; 0 = it did not run
    flops: np.ndarray  # (n) int64: 2 x multiply-adds, heads that were asked included
    seconds: np.ndarray  # (n) float64, from the start of its batch to the answer, without reading the text
    truncated: np.ndarray  # (n) bool: the text was longer than the model reads
    inputs: Encoded | None = None  # of answers that are parts of texts; None = others

    @cached_property
    def predictions(self) -> np.ndarray:
        """What the problem calls predictions, (n, …): of classes their indices, of several labels which apply."""
        return self.problem.predictions(self.readings, self.inputs, self.rungs)

    @cached_property
    def labels(self) -> np.ndarray:
        """The label of each, (n): a class, a number, a tuple of the labels that apply, or a span's text."""
        return self.problem.labels(self.predictions)

    @cached_property
    def probabilities(self) -> np.ndarray | None:
        """Of each class or label, in the order of the model's, (n, n_labels) float32; None = numbers and spans."""
        return self.problem.probabilities(self.readings)

    @property
    def layers(self) -> np.ndarray:
        """How many encoder layers ran for each, (n) int64."""
        return np.count_nonzero(self.tokens_left, axis=1)

    @property
    def traces(self) -> list[Trace]:
        """What each cost, as an object each."""
        # As Python's own numbers all at once: one by one that takes longer than a small model's answer.
        columns = zip(
            self.rungs.tolist(),
            self.tokens.tolist(),
            (tuple(filter(None, counts)) for counts in self.tokens_left.tolist()),
            self.flops.tolist(),
            (self.seconds * 1e6).tolist(),
            self.truncated.tolist(),
            strict=True,
        )
        return [Trace(*values) for values in columns]

    def take(self, rows: np.ndarray) -> Answers:
        """Only these, (m) indices or (n) bool, in this order."""
        names = ("readings", "rungs", "tokens", "tokens_left", "flops", "seconds", "truncated")
        columns: dict[str, Any] = {name: getattr(self, name)[rows] for name in names}
        inputs = None if self.inputs is None else self.inputs.take(np.arange(len(self))[rows])
        return replace(self, **columns, inputs=inputs)

    def __len__(self) -> int:
        return len(self.rungs)

    @overload
    def __getitem__(self, index: int) -> Answer | SpanAnswer: ...
    @overload
    def __getitem__(self, index: slice) -> Answers: ...
    def __getitem__(self, index: int | slice) -> Answer | SpanAnswer | Answers:
        """An answer as an object; of a slice the columns."""
        if isinstance(index, slice):
            return self.take(np.arange(len(self))[index])
        row = range(len(self))[index]  # IndexError, TypeError and negative indices as lists have them
        return self.take(np.array([row]))._objects()[0]

    def __iter__(self) -> Iterator[Answer | SpanAnswer]:
        return iter(self._objects())

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Answers):
            names = ("readings", "rungs", "tokens", "tokens_left", "flops", "truncated")
            same = (np.array_equal(getattr(self, name), getattr(other, name), equal_nan=True) for name in names)
            return self.problem == other.problem and all(same) and np.array_equal(self.labels, other.labels)
        return list(self) == other if isinstance(other, list) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # as a list's

    def __repr__(self) -> str:
        labels = [repr(label) for label in self[:_SHOWN].labels.tolist()] + ["…"] * (len(self) > _SHOWN)
        return f"Answers({len(self)}: {', '.join(labels)})" if len(self) else "Answers(0)"

    def _objects(self) -> list[Any]:
        """As a list of objects."""
        return self.problem.answers(self.readings, self.inputs, self.rungs, self.traces)
