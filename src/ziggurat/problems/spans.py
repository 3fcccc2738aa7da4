"""A part of the second text: a reading is the best span of all windows of the text, and how unsure its ends are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ziggurat.data.packing import PackedBatch, padded_slots
from ziggurat.data.tokenizer import Piece, TextTokenizer, speakable
from ziggurat.data.windows import Windows, gold_tokens, window_pieces, windows_of
from ziggurat.policies.exits import SPAN_ENTROPY, log_softmax
from ziggurat.problems.metrics import accuracy_interval, grades, normalised
from ziggurat.problems.problem import (
    SEARCH,
    SMALL,
    SPAN_CROSS_ENTROPY,
    TEACHER,
    TEMPERATURES,
    TIERS,
    Figures,
    Json,
    Loss,
    Problem,
)
from ziggurat.recipe import Recipe, SpanConfig
from ziggurat.types import Label, ProblemType, SpanAnswer, Trace

if TYPE_CHECKING:
    from ziggurat.data.dataset import Dataset

# The numbers of a reading.
ENTROPIES = slice(0, 2)  # of start and end, of the least sure window, in [0, 1]
PLACE = slice(2, 5)  # of the best span: its window, from 0 of each input, its first and last token there
SCORE, NULL_SCORE = 5, 6  # start logit + end logit of the best span; the same of "no answer", the least of all windows
WIDTH = 7
_EPSILON = 1e-4  # beyond the smallest and largest lead
_DEFAULT = SpanConfig()


class Span(NamedTuple):
    """A prediction."""

    text: str  # "" = the text does not answer the question
    start: int  # its characters: from here …
    end: int  # … to before here


@dataclass(frozen=True)
class Spans(Problem):
    """Predictions are `Span`s, (…) object; labels are tuples of (text, start), none of which = not answerable."""

    windows: SpanConfig = _DEFAULT  # how texts are read
    offsets: tuple[float, ...] | None = None  # for each rung: "no answer" must lead by more; None = it never answers so

    kind = ProblemType.QUESTION_ANSWERING
    scores = (SPAN_ENTROPY,)
    compared_scores = (SPAN_ENTROPY,)
    measures = ()
    training_loss = SPAN_CROSS_ENTROPY
    lacks = frozenset(
        {SMALL, TIERS, SEARCH, TEMPERATURES, TEACHER, "lengthdrop", "int8", "distil", "theseus"}
    )  # stages that do not know spans among them
    head = "ForQuestionAnswering"
    counted = "questions"
    pair = "questions and their contexts"
    texts_per_input = 4
    lengths_are = "Lengths are tokens of contexts; the mean of tokens is of all windows, questions included."
    dtype = np.float64  # two float32 logits add up exactly: ties do not depend on rounding

    @property
    def width(self) -> int:
        """Numbers in a reading."""
        return WIDTH

    @property
    def reader(self) -> Spans:
        """Itself."""
        return self

    def read(self, logits: np.ndarray, marks: PackedBatch) -> np.ndarray:
        """Start and end logits (n_tokens, 2) of whole windows → (n, 7); see `Reader`.

        `marks` has 1 as the state of each token where a span may start or end.
        """
        lengths = marks.lengths
        shape, slots = (marks.n_seqs, int(lengths.max())), padded_slots(lengths)
        grid, possible = np.zeros((*shape, 2), dtype=np.float32), np.zeros(shape, dtype=bool)
        grid.reshape(-1, 2)[slots], possible.ravel()[slots] = logits, marks.states > 0
        first = np.flatnonzero(np.diff(marks.rows, prepend=-1))
        readings = np.empty((len(first), WIDTH))
        readings[:, ENTROPIES] = np.maximum.reduceat(end_entropies(grid, possible), first, axis=0)
        possible[:, 0] = False  # the first token stands for "no answer here"
        scores, tokens = best_spans(grid, possible, self.windows.answer)
        edges = zip(first.tolist(), [*first[1:].tolist(), len(scores)], strict=True)
        best = np.array([begin + int(scores[begin:stop].argmax()) for begin, stop in edges], dtype=np.int64)
        readings[:, PLACE] = np.concatenate([(best - first)[:, None], tokens[best]], axis=1)
        readings[:, SCORE], readings[:, NULL_SCORE] = scores[best], np.minimum.reduceat(null_scores(grid), first)
        return readings

    def predictions(self, readings: np.ndarray, inputs: Any = None, rungs: np.ndarray | None = None) -> np.ndarray:
        """The best span, or none where "no answer" leads by more than the rung's offset or there are no words."""
        found = np.full(readings.shape[:-1], None, dtype=object)
        missing, places = self._missing(readings, rungs), readings[..., PLACE].astype(np.int64)
        for index in np.ndindex(found.shape):
            none, row = missing[index], index[0]
            found[index] = Span("", 0, 0) if none else Span(*inputs.text(row, *places[index].tolist()))
        return found

    def _missing(self, readings: np.ndarray, rungs: np.ndarray | None) -> np.ndarray:
        none: np.ndarray = np.isneginf(readings[..., SCORE])
        if self.offsets is None:
            return none
        offsets = np.array(self.offsets)
        lead = readings[..., NULL_SCORE] - readings[..., SCORE]
        return none | (lead > (offsets if rungs is None else offsets[rungs]))

    def broken(self, readings: np.ndarray) -> np.ndarray:
        """The best span of a context without words has the score -inf."""
        return np.isnan(readings) | np.isposinf(readings)

    def label(self, prediction: Span) -> str:
        """The answer's text."""
        return prediction.text

    def true_label(self, truth: Sequence[tuple[str, int]]) -> str:
        """The first gold's text."""
        return truth[0][0] if truth else ""

    def answers(
        self, readings: np.ndarray, inputs: Any, rungs: np.ndarray, traces: Sequence[Trace]
    ) -> list[SpanAnswer]:
        """Readings (n, 7) of the rungs (n) that answered, as `predict` returns them."""
        windows = np.diff(inputs.edges).tolist()
        rows = zip(self.predictions(readings, inputs, rungs), readings.tolist(), windows, traces, strict=True)
        return [
            SpanAnswer(span.text, span.start, span.end, row[SCORE], row[NULL_SCORE], max(row[ENTROPIES]), n, trace)
            for span, row, n, trace in rows
        ]

    def fields(self, prediction: Span, probabilities: np.ndarray | None) -> Json:
        """The answer's text and its characters."""
        return {"label": prediction.text, "start": prediction.start, "end": prediction.end}

    def answer_fields(self, answer: SpanAnswer) -> Json:
        """The answer, its characters, scores and doubt."""
        return {
            "answer": answer.text,
            "start": answer.start,
            "end": answer.end,
            "score": answer.score,
            "null_score": answer.null_score,
            "doubt": answer.doubt,
            "windows": answer.windows,
        }

    def input_fields(self, text: str, pair: str | None, identity: str | None) -> Json:
        """The question, without its context."""
        return {"id": identity, "question": text}

    def encode(self, tokenizer: TextTokenizer, texts: Sequence[str], pairs: Sequence[str] | None) -> Windows:
        """Each question with its context, in windows."""
        return windows_of(tokenizer, texts, pairs or (), self.windows)

    def lengths(self, encoded: Any) -> np.ndarray:
        """Tokens of each question's context: what windows share counts once."""
        counts = np.array([len(places) for places in encoded.places], dtype=np.int64)
        lengths: np.ndarray = encoded.summed(counts) - self.windows.stride * (np.diff(encoded.edges) - 1)
        return lengths

    def longest(self, max_length: int) -> int:
        """Of a question; contexts are never cut."""
        return self.windows.question

    def sequence_shown(self, reading: np.ndarray) -> int:
        """The window that holds the best span."""
        return int(reading[PLACE][0])

    def shown_fields(self, encoded: Any, sequence: int, sides: Sequence[str]) -> Json:
        """The question and what the window holds of the context, and which window that is."""
        begin, stop = _extent(encoded, sequence)
        windows = {"shown": sequence + 1, "of": len(encoded.tokens), "start": begin, "end": stop}
        return {"text": [speakable(sides[0]), speakable(sides[1])[begin:stop]], "windows": windows}

    def pieces(self, tokenizer: TextTokenizer, encoded: Any, sequence: int, sides: Sequence[str]) -> list[Piece]:
        """The tokens of the window."""
        return window_pieces(tokenizer, encoded, sequence, sides[0], _extent(encoded, sequence)[0])

    def targets(self, rows: Dataset, encoded: Any) -> np.ndarray:
        """First and last token of each window's answer, (w, 2); -1 where rows have no labels."""
        if rows.labels is None:
            return np.full((len(encoded.tokens), 2), -1)
        return gold_tokens(encoded, rows.labels.tolist())

    @property
    def losses(self) -> Mapping[str, Loss]:
        """1 - F1 of the words, or whether no answer is matched exactly."""
        return _LOSSES

    @property
    def differs(self) -> Loss:
        """1 where two answers differ, articles, punctuation and case aside."""
        return _DIFFERS

    def same(self, label: str, other: str) -> bool:
        """Articles, punctuation and case aside."""
        return normalised(label) == normalised(other)

    def right(self, predictions: np.ndarray, truth: np.ndarray) -> np.ndarray:
        """Exact matches."""
        found: np.ndarray = _grades(predictions, truth)[0] > 0
        return found

    def figures(self, predictions: np.ndarray, truth: np.ndarray, rows: np.ndarray | slice = slice(None)) -> Figures:
        """SQuAD's F1 and exact match; which of its scripts they are of depends on all rows."""
        exact, f1 = _grades(predictions, truth)
        return {"f1": float(f1[rows].mean()), "exact_match": float(exact[rows].mean())}

    def beside_full(self, adaptive: np.ndarray, full: np.ndarray, truth: np.ndarray) -> dict[str, float | None]:
        """With Wilson's interval of the exact match, and F1 of questions with and without an answer."""
        exact, f1 = _grades(adaptive, truth)
        low, high = accuracy_interval(int(exact.sum()), len(exact))
        found = super().beside_full(adaptive, full, truth) | {"exact_match_low": low, "exact_match_high": high}
        answerable = np.array([bool(golds) for golds in truth])
        if not answerable.all():
            found |= {"f1_answerable": float(f1[answerable].mean()) if answerable.any() else None}
            found |= {"f1_unanswerable": float(f1[~answerable].mean())}
        return found

    def fitted_recipe(self, recipe: Recipe, max_length: int | None) -> Recipe:
        """Inputs are as long as its windows."""
        spans = recipe.spans if max_length is None else replace(recipe.spans, window=max_length)
        return replace(recipe, spans=spans, max_length=spans.window, exit_score=SPAN_ENTROPY)

    def keeps_head(self, known: Sequence[Label] | None) -> bool:
        """Every such checkpoint has the same two outputs."""
        return True

    @property
    def span_config(self) -> SpanConfig:
        """How texts are read."""
        return self.windows

    def with_offsets(self, offsets: tuple[float, ...] | None) -> Spans:
        """The same with other leads that "no answer" needs."""
        return replace(self, offsets=offsets)

    def rung_offsets(self, run: Callable[[], np.ndarray], inputs: Any, truth: np.ndarray) -> tuple[float, ...] | None:
        """For each rung the lead of "no answer" with the best F1; None where all questions have answers."""
        if all(truth):
            return None
        readings, always = run(), Spans(self.names, self.windows)
        silent = np.array([0.0 if golds else 1.0 for golds in truth])
        leads = readings[..., NULL_SCORE] - readings[..., SCORE]
        answers = always.predictions(readings, inputs)
        answered = [_grades(answers[:, rung], truth)[1] for rung in range(answers.shape[1])]
        return tuple(best_offset(leads[:, rung], f1, silent) for rung, f1 in enumerate(answered))


def _extent(encoded: Windows, sequence: int) -> tuple[int, int]:
    """The characters of the context that a window holds."""
    places = encoded.places[sequence]
    return (int(places[0, 0]), int(places[-1, 1])) if len(places) else (0, 0)


def _grades(predictions: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Exact match and F1 of n spans, (n) float64 each."""
    return grades([span.text for span in predictions], [[text for text, _ in golds] for golds in truth])


def _unequal(predictions: np.ndarray, other_predictions: np.ndarray) -> np.ndarray:
    pairs = zip(predictions, other_predictions, strict=True)
    return np.array([normalised(first.text) != normalised(second.text) for first, second in pairs], dtype=np.float64)


_LOSSES = MappingProxyType(
    {
        "f1": Loss(lambda predictions, truth: 1 - _grades(predictions, truth)[1]),
        "exact-match": Loss(lambda predictions, truth: 1 - _grades(predictions, truth)[0], binary=True),
    }
)
_DIFFERS = Loss(_unequal, binary=True)


def best_offset(leads: np.ndarray, answered: np.ndarray, silent: np.ndarray) -> float:
    """The offset with the best mean score: above it a question has no answer.

    `leads` (n): score of "no answer" minus that of the best span; `answered` and `silent` (n): what a question scores
    with that span, and without an answer. Of equally good ones the lowest; between leads that occur, never on one.
    """
    order = np.argsort(leads, kind="stable")
    sorted_leads = leads[order]
    totals = np.concatenate([[0.0], np.cumsum((answered - silent)[order])])  # of answering the first k alone
    cuts = np.flatnonzero(np.diff(sorted_leads) > 0) + 1  # equal leads are answered together
    counts = np.concatenate([[0], cuts, [len(leads)]])
    answers = int(counts[totals[counts].argmax()])
    if answers == 0:
        return float(sorted_leads[0] - _EPSILON)
    if answers == len(leads):
        return float(sorted_leads[-1] + _EPSILON)
    return float((sorted_leads[answers - 1] + sorted_leads[answers]) / 2)


def end_entropies(logits: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """Entropy of start and of end over the candidates, over the logarithm of their number: (n_windows, 2) in [0, 1].

    0 is sure, 1 is uniform, as MP eq. 5 has it of classes. 0 where there is one candidate.
    """
    masked = np.where(candidates[..., None], logits.astype(np.float64), -1e9)
    logs = log_softmax(masked.transpose(0, 2, 1))
    most = np.log(np.maximum(candidates.sum(axis=1), 2))
    return np.clip(-(np.exp(logs) * logs).sum(axis=-1) / most[:, None], 0.0, 1.0)


def best_spans(logits: np.ndarray, context: np.ndarray, longest: int) -> tuple[np.ndarray, np.ndarray]:
    """The best span of context tokens in each window: scores (n_windows) float64, first and last token (n_windows, 2).

    The largest start logit + end logit with start <= end <= start + `longest`; of equals the one that starts, then the
    one that ends first. -inf and (0, 0) in a window without context tokens.
    """
    start, end = (np.where(context, logits[..., side].astype(np.float64), -np.inf) for side in (0, 1))
    width = start.shape[1]
    ends, reach = np.full(start.shape, -np.inf), np.zeros(start.shape, dtype=np.int64)
    for further in range(min(longest + 1, width)):
        reached = end[:, further:]
        better = reached > ends[:, : width - further]
        ends[:, : width - further] = np.where(better, reached, ends[:, : width - further])
        reach[:, : width - further] = np.where(better, further, reach[:, : width - further])
    totals = start + ends
    first = totals.argmax(axis=1)
    everyone = np.arange(len(first))
    found = np.stack([first, first + reach[everyone, first]], axis=1)
    scores = totals[everyone, first]
    return scores, np.where(np.isfinite(scores)[:, None], found, 0)


def null_scores(logits: np.ndarray) -> np.ndarray:
    """Start logit + end logit of the first token, which stand for "no answer here": (n_windows) float64."""
    scores: np.ndarray = logits[:, 0].astype(np.float64).sum(axis=-1)
    return scores
