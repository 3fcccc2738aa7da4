"""Questions in, spans of their contexts out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from ziggurat.data.windows import Windows, windows_of
from ziggurat.engine.backend import Outcomes
from ziggurat.engine.opened import OpenedModel
from ziggurat.errors import UserError
from ziggurat.policies.rules import ExitRule
from ziggurat.policies.spans import ENTROPIES, NULL_SCORE, PLACE, SCORE
from ziggurat.recipe import SpanConfig
from ziggurat.types import OperatingPoint, SpanAnswer, Trace


class QuestionAnswerer(OpenedModel):
    """A model folder, ready to answer questions about texts. Make it with `from_pretrained`."""

    spans = True

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
        size = self.batch_sizes(operating_point) if batch_size is None else batch_size
        return self.answers(windows, self.run(windows, rule, size, progress), rule)

    def encode(self, questions: Sequence[str], contexts: Sequence[str]) -> Windows:
        """N questions, each with its context, in windows; UserError names the first that is empty."""
        if isinstance(questions, str) or isinstance(contexts, str):
            raise UserError("questions and contexts: one string was given; give a list of each")
        if len(questions) != len(contexts):
            raise UserError(f"{len(questions)} questions about {len(contexts)} contexts; give each its own")
        return windows_of(self.tokenizer, questions, contexts, self.config)

    def texts(self, windows: Windows, readings: np.ndarray, rungs: np.ndarray) -> list[tuple[str, int, int]]:
        """What rungs (n) answer to n questions, by their readings (n, 7): the text and its characters in the context.

        "" = no answer there.
        """
        missing = self.missing(readings, rungs)
        places = readings[:, PLACE].astype(np.int64)
        places[:, 0] += windows.edges[:-1]
        return [
            ("", 0, 0) if none else windows.text(*place)
            for none, place in zip(missing.tolist(), places.tolist(), strict=True)
        ]

    def missing(self, readings: np.ndarray, rungs: np.ndarray) -> np.ndarray:
        """Whether n questions have no answer, (n) bool: "none" scores higher by more than the rung's (n) threshold.

        A model of questions that all have answers says so only where a context has no words.
        """
        none = np.isneginf(readings[:, SCORE])
        if self.manifest.no_answer is None:
            return none
        lead = readings[:, NULL_SCORE] - readings[:, SCORE]
        found: np.ndarray = none | (lead > np.array(self.manifest.no_answer)[rungs])
        return found

    def answers(self, windows: Windows, outcomes: Outcomes, rule: ExitRule) -> list[SpanAnswer]:
        """Outcomes under a rule, as what `predict` returns."""
        readings, counts = outcomes.readings, np.diff(windows.edges)
        flops = self.spent(windows, outcomes.kept, rule)[np.arange(len(windows)), outcomes.rungs]
        left = np.add.reduceat(outcomes.kept[:, self.layer_columns], windows.edges[:-1], axis=0)
        texts = self.texts(windows, readings, outcomes.rungs)
        return [
            SpanAnswer(
                text=text,
                start=start,
                end=end,
                score=float(readings[row, SCORE]),
                null_score=float(readings[row, NULL_SCORE]),
                doubt=float(readings[row, ENTROPIES].max()),
                windows=int(counts[row]),
                trace=Trace(
                    rung=int(outcomes.rungs[row]),
                    read=int(windows.read[row]),
                    tokens=tuple(int(count) for count in left[row] if count),
                    flops=int(flops[row]),
                    microseconds=float(outcomes.seconds[row] * 1e6),
                    truncated=bool(windows.truncated[row]),
                ),
            )
            for row, (text, start, end) in enumerate(texts)
        ]

    def with_no_answer(self, thresholds: tuple[float, ...] | None) -> QuestionAnswerer:
        """The same model with other thresholds, one per rung, beyond which a question has no answer."""
        manifest = replace(self.manifest, no_answer=thresholds)
        return QuestionAnswerer([*self.tiers[:-1], replace(self.tiers[-1], manifest=manifest)])
