"""Questions in, spans of their contexts out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from ziggurat.data.windows import Windows, windows_of
from ziggurat.encoder.flops import span_full_flops, span_rung_flops
from ziggurat.engine.backend import SpanBackend
from ziggurat.engine.opened import OpenedModel, refuse_no_numbers
from ziggurat.engine.rules import ExitRule
from ziggurat.engine.span_runner import EverySpan, SpanOutcomes, Spans, run_every_span, run_questions
from ziggurat.errors import UserError
from ziggurat.policies.prune import PREDICTED, TokenRule
from ziggurat.recipe import SpanConfig
from ziggurat.system import bar
from ziggurat.types import OperatingPoint, SpanAnswer, Trace


class QuestionAnswerer(OpenedModel):
    """A model folder, ready to answer questions about texts. Make it with `from_pretrained`."""

    spans = True
    backend: SpanBackend

    @property
    def config(self) -> SpanConfig:
        """How it reads."""
        return self.manifest.spans or SpanConfig()

    def predict(
        self,
        questions: Iterable[str],
        contexts: Iterable[str],
        operating_point: str | OperatingPoint | ExitRule = "balanced",
        batch_size: int | None = None,
        progress: bool = False,
    ) -> list[SpanAnswer]:
        """Answers n questions, each from its own context, in their order.

        `operating_point` as in `AdaptiveClassifier.predict`; `batch_size` counts windows, and a question's stay
        together. UserError names an empty question or context, or an unknown point.
        """
        rule = self.rule_of(operating_point)
        windows = self.encode(*(texts if isinstance(texts, str) else list(texts) for texts in (questions, contexts)))
        if not len(windows):
            return []
        size = self.batch_sizes(operating_point)[0] if batch_size is None else batch_size
        return self.answers(windows, self.run(windows, rule, size, progress), rule)

    def encode(self, questions: Sequence[str], contexts: Sequence[str]) -> Windows:
        """N questions, each with its context, in windows; UserError names the first that is empty."""
        if isinstance(questions, str) or isinstance(contexts, str):
            raise UserError("questions and contexts: one string was given; give a list of each")
        if len(questions) != len(contexts):
            raise UserError(f"{len(questions)} questions about {len(contexts)} contexts; give each its own")
        return windows_of(self.tokenizer, questions, contexts, self.config)

    def run(self, windows: Windows, rule: ExitRule, batch_size: int = 32, progress: bool = False) -> SpanOutcomes:
        """Answers questions in windows, like lengths together."""
        self.refuse_other_inputs(rule, len(windows))
        batches = _batches(windows, batch_size, progress)
        outcomes = run_questions(self.backend, windows, batches, rule, self.config.answer)
        refuse_no_numbers(np.isnan(outcomes.spans.scores))
        return outcomes

    def every_rung(
        self, windows: Windows, batch_size: int = 32, progress: bool = False, tokens: TokenRule | None = None
    ) -> EverySpan:
        """What every rung says to every question under a pruning rule, for replay and calibration."""
        batches = _batches(windows, batch_size, progress)
        every = run_every_span(self.backend, windows, batches, tokens, self.config.answer)
        refuse_no_numbers(np.isnan(every.spans.scores))
        return every

    def texts(self, windows: Windows, spans: Spans, rungs: np.ndarray) -> list[tuple[str, int, int]]:
        """What rungs (n) answer to n questions: the text and its characters in the context; "" = no answer there."""
        missing = self.missing(spans, rungs)
        return [
            ("", 0, 0) if none else windows.text(*place)
            for none, place in zip(missing.tolist(), spans.places.tolist(), strict=True)
        ]

    def missing(self, spans: Spans, rungs: np.ndarray) -> np.ndarray:
        """Whether n questions have no answer, (n) bool: "none" scores higher by more than the rung's (n) threshold.

        A model of questions that all have answers says so only where a context has no words.
        """
        none = np.isneginf(spans.scores[..., 0])
        if self.manifest.no_answer is None:
            return none
        lead = spans.scores[..., 1] - spans.scores[..., 0]
        found: np.ndarray = none | (lead > np.array(self.manifest.no_answer)[rungs])
        return found

    def answers(self, windows: Windows, outcomes: SpanOutcomes, rule: ExitRule) -> list[SpanAnswer]:
        """Outcomes under a rule, as what `predict` returns."""
        flops = self.spent(windows, outcomes.kept, rule)[np.arange(len(windows)), outcomes.rungs]
        left = np.add.reduceat(outcomes.kept[:, 1:], windows.edges[:-1], axis=0)
        texts = self.texts(windows, outcomes.spans, outcomes.rungs)
        return [
            SpanAnswer(
                text=text,
                start=start,
                end=end,
                score=float(outcomes.spans.scores[row, 0]),
                null_score=float(outcomes.spans.scores[row, 1]),
                doubt=float(outcomes.spans.doubts[row].max()),
                windows=int(np.diff(windows.edges)[row]),
                trace=Trace(
                    rung=int(outcomes.rungs[row]),
                    read=int(windows.read[row]),
                    tokens=tuple(int(count) for count in left[row] if count),
                    flops=int(flops[row]),
                    microseconds=float(outcomes.seconds[row] * 1e6),
                    truncated=bool(windows.cut[row]),
                ),
            )
            for row, (text, start, end) in enumerate(texts)
        ]

    def spent(self, windows: Windows, kept: np.ndarray, rule: ExitRule) -> np.ndarray:
        """Cost of leaving at each rung, all windows of a question together: kept (w, L + 1) → (n, n_rungs) int64."""
        tokens, guessed = rule.tokens, None
        if tokens is not None and tokens.score == PREDICTED:
            guessed = [tokens.prunes(layer) for layer in range(1, self.spec.layers + 1)]
        layers = self.backend.rung_layers
        each = span_rung_flops(self.spec, windows.lengths, kept, layers, rule.asked, guessed)
        flops: np.ndarray = np.add.reduceat(each, windows.edges[:-1], axis=0)
        return flops

    def whole(self, windows: Windows) -> np.ndarray:
        """Cost of all layers without exits and pruning, (n) int64."""
        flops: np.ndarray = np.add.reduceat(span_full_flops(self.spec, windows.lengths), windows.edges[:-1])
        return flops

    def with_no_answer(self, thresholds: tuple[float, ...] | None) -> QuestionAnswerer:
        """The same model with other thresholds, one per rung, beyond which a question has no answer."""
        manifest = replace(self.manifest, no_answer=thresholds)
        return QuestionAnswerer([replace(self.tiers[0], manifest=manifest)])


def _batches(windows: Windows, size: int, progress: bool) -> Iterator[np.ndarray]:
    """Indices of the questions of each batch: about `size` windows, like lengths together, longest first."""
    if size < 1:
        raise UserError(f"batch size {size}: must be at least 1")
    longest = np.maximum.reduceat(windows.lengths, windows.edges[:-1])
    order = np.argsort(-longest, kind="stable")
    batch_of = (np.cumsum(np.diff(windows.edges)[order]) - 1) // size
    groups = np.split(order, np.flatnonzero(np.diff(batch_of)) + 1)
    with bar(None, len(order), "questions", progress) as shown:
        for rows in groups:
            yield rows
            shown.update(len(rows))
