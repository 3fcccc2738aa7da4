"""The front door: texts in, answers with their traces out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain

import numpy as np

from ziggurat.data.dataset import Dataset
from ziggurat.data.tokenizer import Encoded
from ziggurat.encoder.folder import Manifest
from ziggurat.engine.backend import Outcomes
from ziggurat.engine.engine import Engine
from ziggurat.engine.opened import OpenedModel
from ziggurat.errors import UserError
from ziggurat.policies.rules import ExitRule
from ziggurat.problems.answers import Answers
from ziggurat.types import FULL as FULL
from ziggurat.types import Answer, AnyAnswers, OperatingPoint, SpanAnswer

Text = str | tuple[str, str]


class AdaptiveClassifier(OpenedModel):
    """A model folder, ready to classify. Make it with `from_pretrained`."""

    def predict(
        self,
        texts: Iterable[Text],
        operating_point: str | OperatingPoint | ExitRule = "balanced",
        batch_size: int | None = None,
        progress: bool = False,
    ) -> AnyAnswers:
        """As `answer`, in a list of objects."""
        return list(self.answer(texts, operating_point, batch_size, progress))

    def answer(
        self,
        texts: Iterable[Text],
        operating_point: str | OperatingPoint | ExitRule = "balanced",
        batch_size: int | None = None,
        progress: bool = False,
    ) -> Answers:
        """Classifies texts, or pairs of texts for a model of pairs; answers come in the order of the texts.

        `operating_point` is the name of one of the model's points ("full" never leaves early and prunes nothing), a
        point, or an exit rule made for this call with `rule`. `batch_size` None: what the point was measured to be
        fastest with, else 32. UserError for an empty text (its index is named) or an unknown point.
        """
        rule = self.rule_of(operating_point)
        encoded = self.encode(texts if isinstance(texts, str) else list(texts))
        sizes = self.batch_sizes(operating_point) if batch_size is None else batch_size
        return self.answers(encoded, self.run(encoded, rule, sizes, progress), rule)

    def stream(
        self,
        arrivals: Iterable[Sequence[Text]],
        operating_point: str | OperatingPoint | ExitRule = "balanced",
        linger: float = 0.05,
        batch_sizes: Sequence[int] | None = None,
    ) -> Iterator[tuple[int, Answer | SpanAnswer]]:
        """Classifies texts as they arrive, some at a time; yields the number of each text, from 0, with its answer.

        What a cascade's tier is unsure of waits, `linger` seconds at most, until the next tier has a full batch; so
        answers may come in another order. They are the same as `predict`'s; a trace's microseconds count from arrival.
        `batch_sizes` has one for each tier, None = as `predict`. The clock is looked at when texts arrive.
        """
        rule = self.rule_of(operating_point)
        if rule.thresholds.ndim != 1:
            raise UserError("exit rule: in a stream all inputs have the same thresholds")
        sizes = self.batch_sizes(operating_point) if batch_sizes is None else batch_sizes
        return self._streamed(arrivals, rule, Engine(self.ladder, sizes, linger))

    def _streamed(
        self, arrivals: Iterable[Sequence[Text]], rule: ExitRule, engine: Engine
    ) -> Iterator[tuple[int, Answer | SpanAnswer]]:
        inputs: dict[int, Encoded] = {}  # by their tickets, which count from 0
        for texts in chain(arrivals, [None]):
            if texts is None:  # nothing more comes
                engine.flush()
            else:
                encoded = self.encode(texts)
                tickets = engine.submit(encoded, rule)
                inputs |= {ticket: encoded.take(np.array([row])) for row, ticket in enumerate(tickets)}
            while engine.wait() == 0:
                for result in engine.step():
                    outcomes = replace(result.get(), seconds=np.array([result.seconds]))
                    self.refuse_no_numbers(outcomes.readings)
                    yield result.ticket, self.answers(inputs.pop(result.ticket), outcomes, rule)[0]

    def answers(self, encoded: Encoded, outcomes: Outcomes, rule: ExitRule) -> Answers:
        """Outcomes of n inputs under a rule, as what `answer` returns."""
        return Answers(
            self.problem,
            outcomes.readings,
            outcomes.rungs,
            encoded.read,
            encoded.summed(outcomes.kept[:, self.layer_columns]),
            self.spent(encoded, outcomes.kept, rule)[np.arange(len(encoded)), outcomes.rungs],
            outcomes.seconds,
            encoded.truncated,
            None if self.problem.reader is None else encoded,
        )

    def predictions(self, encoded: Encoded, outcomes: Outcomes) -> np.ndarray:
        """What outcomes of n inputs answer, (n, …), as the problem has it."""
        return self.problem.predictions(outcomes.readings, encoded, outcomes.rungs)

    def encode(self, texts: Sequence[Text]) -> Encoded:
        """Token ids of texts or pairs; UserError names the first that is of the wrong kind."""
        if isinstance(texts, str):
            raise UserError("texts: one string was given; give a list of texts")
        if not self.manifest.pairs and set(map(type, texts)) <= {str}:  # looked at all at once: this takes no time
            return self.problem.encode(self.tokenizer, texts, None)  # type: ignore[arg-type]
        for number, text in enumerate(texts):
            _check_text(text, number, self.manifest.pairs)
        firsts = [text if isinstance(text, str) else text[0] for text in texts]
        seconds = [text[1] for text in texts] if self.manifest.pairs else None
        return self.problem.encode(self.tokenizer, firsts, seconds)

    def encode_rows(self, rows: Dataset) -> Encoded:
        """Token ids of the texts of rows."""
        return self.problem.encode(self.tokenizer, rows.texts, rows.pairs)

    def ran(self, encoded: Encoded, kept: np.ndarray, rungs: np.ndarray, rule: ExitRule) -> np.ndarray:
        """`kept` of a run without exits, (s, columns), without what inputs that exit at `rungs` (n) never see."""
        rungs = rungs if encoded.owners is None else rungs[encoded.owners]
        ran = np.zeros(kept.shape, dtype=bool)
        for part in self.ladder.slices:
            last = part.last_asked(rule.asked)
            if last is not None:
                layers = np.array(part.tier.backend.rung_layers)
                depth = layers[np.clip(rungs - part.rungs.start, 0, last)]
                came = (rungs >= part.rungs.start)[:, None]
                ran[:, part.columns] = came & (np.arange(part.tier.columns) <= depth[:, None])
        return np.where(ran, kept, 0)

    def with_manifest(self, manifest: Manifest) -> AdaptiveClassifier:
        """The same layers under another manifest."""
        return AdaptiveClassifier([*self.tiers[:-1], replace(self.tiers[-1], manifest=manifest)])


def _check_text(text: object, number: int, pairs: bool) -> None:
    """UserError for what is no text. A blank one is read as transformers reads it: its special tokens alone."""
    kind = "pairs of texts (a, b)" if pairs else "single texts"
    parts = text if isinstance(text, tuple | list) else (text,)
    if len(parts) != (2 if pairs else 1) or not all(isinstance(part, str) for part in parts):
        raise UserError(f"texts: number {number} is not what the model reads: {kind}")
