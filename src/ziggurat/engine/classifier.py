"""The front door: texts in, answers with their traces out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from operator import index

import numpy as np

from ziggurat.data.dataset import Dataset
from ziggurat.data.tokenizer import Encoded
from ziggurat.encoder.folder import Manifest
from ziggurat.engine.escalation import Escalation
from ziggurat.engine.ladder import run_every_rung_of, run_ladder
from ziggurat.engine.opened import BATCH, OpenedModel, refuse_no_numbers
from ziggurat.engine.rules import ExitRule
from ziggurat.engine.runner import AllRungs, Outcomes
from ziggurat.engine.span_runner import all_rungs_of_sequences, run_sequences
from ziggurat.engine.streaming import streamed
from ziggurat.engine.tiers import places
from ziggurat.errors import UserError
from ziggurat.policies.prune import TokenRule
from ziggurat.system import bar
from ziggurat.types import FULL as FULL
from ziggurat.types import Answer, AnyAnswers, OperatingPoint, SpanAnswer, Trace

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
        """Classifies texts, or pairs of texts for a model of pairs; answers come in the order of the texts.

        `operating_point` is the name of one of the model's points ("full" never leaves early and prunes nothing), a
        point, or an exit rule made for this call with `rule`. `batch_size` None: what the point was measured to be
        fastest with, else 32. UserError for an empty text (its index is named) or an unknown point.
        """
        rule = self.rule_of(operating_point)
        encoded = self.encode(texts if isinstance(texts, str) else list(texts))
        if not len(encoded):
            return []
        sizes = self.batch_sizes(operating_point) if batch_size is None else batch_size
        return self.answers(encoded, self.run(encoded, rule, sizes, progress), rule)

    def stream(
        self,
        arrivals: Iterable[Sequence[Text]],
        operating_point: str | OperatingPoint | ExitRule = "balanced",
        deadline: float = 0.05,
        batch_sizes: Sequence[int] | None = None,
    ) -> Iterator[tuple[int, Answer | SpanAnswer]]:
        """Classifies texts as they arrive, some at a time; yields the number of each text, from 0, with its answer.

        What a cascade's tier is unsure of waits, `deadline` seconds at most, until the next tier has a full batch; so
        answers may come in another order. They are the same as `predict`'s; a trace's microseconds count from arrival.
        `batch_sizes` has one for each tier, None = as `predict`. Deadlines are looked at when texts arrive.
        """
        rule = self.rule_of(operating_point)
        sizes = self.batch_sizes(operating_point) if batch_sizes is None else batch_sizes
        return streamed(self, arrivals, Escalation(self.tiers, rule, sizes, deadline))

    def answers(self, encoded: Encoded, outcomes: Outcomes, rule: ExitRule) -> AnyAnswers:
        """Outcomes of inputs under a rule, as what `predict` returns."""
        flops = self.spent(encoded, outcomes.kept, rule)[np.arange(len(encoded)), outcomes.rungs]
        kept = encoded.summed(outcomes.kept[:, self.layer_columns])
        # As Python's own numbers all at once: one by one that takes longer than a small model's answer.
        traces = zip(
            outcomes.rungs.tolist(),
            encoded.read.tolist(),
            (tuple(filter(None, counts)) for counts in kept.tolist()),
            flops.tolist(),
            (outcomes.seconds * 1e6).tolist(),
            encoded.truncated.tolist(),
            strict=True,
        )
        return self.problem.answers(outcomes.readings, encoded, outcomes.rungs, [Trace(*trace) for trace in traces])

    def predictions(self, encoded: Encoded, outcomes: Outcomes) -> np.ndarray:
        """What outcomes of n inputs answer, (n, …), as the problem has it."""
        return self.problem.predictions(outcomes.readings, encoded, outcomes.rungs)

    def encode(self, texts: Sequence[Text]) -> Encoded:
        """Token ids of texts or pairs; UserError names the first that is of the wrong kind."""
        if isinstance(texts, str):
            raise UserError("texts: one string was given; give a list of texts")
        for number, text in enumerate(texts):
            _check_text(text, number, self.manifest.pairs)
        firsts = [text if isinstance(text, str) else text[0] for text in texts]
        seconds = [text[1] for text in texts] if self.manifest.pairs else None
        return self.problem.encode(self.tokenizer, firsts, seconds)

    def encode_rows(self, rows: Dataset) -> Encoded:
        """Token ids of the texts of rows."""
        return self.problem.encode(self.tokenizer, rows.texts, rows.pairs)

    def run(
        self, encoded: Encoded, rule: ExitRule, batch_size: int | Sequence[int] = BATCH, progress: bool = False
    ) -> Outcomes:
        """Answers encoded inputs, like lengths together; `batch_size` for all tiers, or one for each.

        Of inputs of several sequences it counts these; an input's stay together.
        """
        self.refuse_other_inputs(rule, len(encoded))
        sizes, reader = _sizes(batch_size, len(self.tiers)), self.problem.reader
        if reader is not None:
            batches = _batches(encoded, sizes[0], progress, self.problem.counted)
            outcomes = run_sequences(self.backend, reader, encoded, batches, rule)  # type: ignore[arg-type]
        else:
            outcomes = run_ladder(self.tiers, encoded, rule, sizes, progress)
        refuse_no_numbers(self.problem.broken(outcomes.readings))
        return outcomes

    def every_rung(
        self, encoded: Encoded, batch_size: int = 32, progress: bool = False, tokens: TokenRule | None = None
    ) -> AllRungs:
        """What every rung reads of every input under a pruning rule (None = without), for replay and calibration."""
        if (reader := self.problem.reader) is not None:
            batches = _batches(encoded, batch_size, progress, self.problem.counted)
            every = all_rungs_of_sequences(self.backend, reader, encoded, batches, tokens)  # type: ignore[arg-type]
        else:
            every = run_every_rung_of(self.tiers, encoded, [batch_size] * len(self.tiers), progress, tokens)
        refuse_no_numbers(self.problem.broken(every.readings))
        return every

    def spent(self, encoded: Encoded, kept: np.ndarray, rule: ExitRule) -> np.ndarray:
        """Cost of leaving at each rung, (n, n_rungs) int64, from `Outcomes.kept`; every tier that ran is charged."""
        spent: np.ndarray = np.zeros((len(kept), 1), dtype=np.int64)
        costs = []
        for place in places(self.tiers):
            tokens = place.pruning(rule.tokens)
            own = place.tier.flops(encoded.lengths, kept[:, place.columns], rule.asked[place.rungs], tokens)
            costs.append(spent + own)
            last = place.last_asked(rule.asked)
            if last is not None:  # those who go on have come that far
                spent = costs[-1][:, [last]]
        return encoded.summed(np.concatenate(costs, axis=1))

    def whole(self, encoded: Encoded) -> np.ndarray:
        """Cost of the last tier's layers without exits and pruning, (n) int64."""
        return encoded.summed(self.tiers[-1].full_flops(encoded.lengths))

    def ran(self, encoded: Encoded, kept: np.ndarray, rungs: np.ndarray, rule: ExitRule) -> np.ndarray:
        """`kept` of a run without exits, (s, columns), without what inputs that exit at `rungs` (n) never see."""
        rungs = rungs if encoded.owners is None else rungs[encoded.owners]
        ran = np.zeros(kept.shape, dtype=bool)
        for place in places(self.tiers):
            last = place.last_asked(rule.asked)
            if last is not None:
                layers = np.array(place.tier.backend.rung_layers)
                depth = layers[np.clip(rungs - place.rungs.start, 0, last)]
                came = (rungs >= place.rungs.start)[:, None]
                ran[:, place.columns] = came & (np.arange(place.tier.columns) <= depth[:, None])
        return np.where(ran, kept, 0)

    def with_manifest(self, manifest: Manifest) -> AdaptiveClassifier:
        """The same layers under another manifest."""
        return AdaptiveClassifier([*self.tiers[:-1], replace(self.tiers[-1], manifest=manifest)])


def _batches(encoded: Encoded, size: int, progress: bool, counted: str) -> Iterator[np.ndarray]:
    """Indices of the inputs of each batch: about `size` sequences, like lengths together, longest first."""
    if size < 1:
        raise UserError(f"batch size {size}: must be at least 1")
    order = np.argsort(-encoded.longest, kind="stable")
    batch_of = (np.cumsum(np.diff(encoded.edges)[order]) - 1) // size
    groups = np.split(order, np.flatnonzero(np.diff(batch_of)) + 1) if len(order) else []
    with bar(None, len(order), counted, progress) as shown:
        for rows in groups:
            yield rows
            shown.update(len(rows))


def _sizes(batch_size: int | Sequence[int], n_tiers: int) -> list[int]:
    """Texts per batch of each tier; UserError for what is no whole number, or not one for each."""
    try:
        sizes = [index(size) for size in (batch_size if isinstance(batch_size, Sequence) else [batch_size] * n_tiers)]
    except TypeError:
        sizes = []
    if len(sizes) != n_tiers:
        raise UserError(f"batch size {batch_size!r}: must be a whole number, or {n_tiers} of them, one for each tier")
    return sizes


def _check_text(text: object, number: int, pairs: bool) -> None:
    """UserError for what is no text. A blank one is read as transformers reads it: its special tokens alone."""
    kind = "pairs of texts (a, b)" if pairs else "single texts"
    parts = text if isinstance(text, tuple | list) else (text,)
    if len(parts) != (2 if pairs else 1) or not all(isinstance(part, str) for part in parts):
        raise UserError(f"texts: number {number} is not what the model reads: {kind}")
