"""A model folder, open: its tiers and rungs, the rules under which it may be run, and texts in, answers out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import copy
from dataclasses import replace
from itertools import chain
from operator import index
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np

from ziggurat.data.encoded import Encoded
from ziggurat.data.packing import cumulate
from ziggurat.encoder.folder import Manifest, read_manifest, read_point
from ziggurat.encoder.hub import local_folder
from ziggurat.encoder.spec import EncoderSpec
from ziggurat.engine.backend import AllRungs, Outcomes
from ziggurat.engine.engine import Engine
from ziggurat.engine.engine import answer as run_engine
from ziggurat.engine.replay import all_rungs
from ziggurat.engine.tiers import EncoderTier, Ladder, Tier, open_tiers
from ziggurat.errors import UserError
from ziggurat.policies.prune import TokenRule, scaled
from ziggurat.policies.rules import ExitRule
from ziggurat.problems.answers import Answers
from ziggurat.problems.problem import Problem
from ziggurat.system import cached_property
from ziggurat.types import FULL as FULL
from ziggurat.types import Answer, OperatingPoint, Rung, SpanAnswer

if TYPE_CHECKING:
    from ziggurat.data.dataset import Dataset

BATCH = 32  # texts, where nothing else is asked for
Text = str | tuple[str, str]
Point = str | OperatingPoint | ExitRule  # a point's name, a point, or a rule made for one call


class Origin(NamedTuple):
    """Where a model was opened, and how: the arguments of `OpenedModel.from_pretrained`."""

    folder: Path
    device: str
    dtype: str
    threads: int | None
    backend: str


class OpenedModel:
    """A model folder, ready to answer. Make it with `from_pretrained`."""

    origin: Origin | None = None  # None = not opened from a folder

    def __init__(self, tiers: Sequence[Tier]) -> None:
        """Models from cheap to dear, of a cascade several, else one. The last is "the model" in all that follows."""
        self.tiers = tuple(tiers)
        self.ladder = Ladder(tiers)
        self.backend = tiers[-1].backend
        self.manifest = tiers[-1].manifest
        self.tokenizer = tiers[-1].tokenizer

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path,
        device: str = "auto",
        dtype: str = "float32",
        threads: int | None = None,
        backend: str = "auto",
    ) -> Self:
        """Loads a folder made by `ziggurat train`, `adapt` or `cascade`, or a hub name; UserError says what is wrong.

        `device` is auto, cpu or cuda; `dtype` float32, bfloat16 or (compiled engine) int8; `threads` of the CPU, None =
        `OMP_NUM_THREADS`, else all cores; `backend` native (compiled, CPUs), torch, or auto: native on CPUs where it is
        installed.

        Pickling keeps the folder and these options, and opens it again.
        """
        folder = local_folder(str(model))
        manifest = read_manifest(folder)
        opened = cls(open_tiers(folder, manifest, device, dtype, threads, backend))
        opened.origin = Origin(folder.absolute(), device, dtype, threads, backend)
        return opened

    def __reduce__(self) -> tuple[Callable[..., OpenedModel], tuple[object, ...]]:
        """Where it was opened, how, and what was there; UserError for a model that no folder holds."""
        if self.origin is None:
            raise UserError("only a model that from_pretrained opened can be pickled; pickle its folder's name")
        return _opened_again, (type(self), self.origin, _identity(self.manifest))

    def __copy__(self) -> Self:
        """Another model of the same parts, which nothing changes."""
        copied = object.__new__(type(self))
        copied.__dict__.update(self.__dict__)
        return copied

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        """As `copy.copy`: weights need no second copy, for nothing changes them."""
        return copy(self)

    @property
    def spec(self) -> EncoderSpec:
        """Of the last tier's layers; UserError for a small model, which has none."""
        last = self.tiers[-1]
        if not isinstance(last, EncoderTier):
            raise UserError(f"a {self.manifest.kind} model has no layers to look into; give an encoder or a cascade")
        return last.spec

    @cached_property
    def problem(self) -> Problem:
        """What it answers."""
        return self.manifest.problem

    @property
    def rungs(self) -> tuple[Rung, ...]:
        """Where it can answer, from cheap to dear; the last is the full model."""
        return self.ladder.rungs

    @cached_property
    def depths(self) -> np.ndarray:
        """How many layers of all tiers have run at each rung, if every tier before was run to its end: (n_rungs)."""
        before = cumulate(np.array([tier.backend.n_layers for tier in self.tiers]))[:-1]
        return np.concatenate(
            [start + np.array(tier.backend.rung_layers) for start, tier in zip(before, self.tiers, strict=True)]
        )

    @cached_property
    def layer_columns(self) -> np.ndarray:
        """Which columns of `token_counts` are tokens that a layer left, not those that a tier read: bool."""
        return np.concatenate([np.arange(tier.columns) > 0 for tier in self.tiers])

    def batch_sizes(self, operating_point: Point) -> tuple[int, ...]:
        """Texts per batch of each tier: those that the point was measured to be fastest with, else 32."""
        point = operating_point
        if isinstance(point, str) and point != FULL:
            point = self.point(point)
        measured = point.batch_sizes if isinstance(point, OperatingPoint) else None
        return measured or (BATCH,) * len(self.tiers)

    @property
    def deferral(self) -> np.ndarray | None:
        """Weights of the learned exit score, (n_rungs - 1, 4 + n_classes), None if it was not fitted."""
        last = self.tiers[-1]
        return last.deferral if isinstance(last, EncoderTier) else None

    @property
    def token_rule(self) -> TokenRule | None:
        """The pruning that the model was trained for, None if it does not prune."""
        return self.backend.token_rule

    def rule(self, score: str, threshold: float | Sequence[float], prune: bool = True) -> ExitRule:
        """A rule for one call: the same threshold at every rung, one number or one for each input.

        The model's own pruning, if it has any, stays on unless `prune` is false.
        """
        rule = ExitRule.uniform(score, threshold, len(self.rungs))
        return replace(rule, tokens=self.token_rule if prune else None, deferral=self.deferral)

    def rule_of(self, operating_point: Point) -> ExitRule:
        """The exit rule that an argument of `answer` stands for; UserError if it is not this model's."""
        if isinstance(operating_point, ExitRule):
            rule = operating_point
        elif operating_point == FULL:
            rule = ExitRule.full_depth(len(self.rungs), self.problem.scores[0])
        else:
            point = operating_point
            if isinstance(point, str):
                point = self.point(point)
            if point.fingerprint != self.manifest.fingerprint:
                raise UserError(f"operating point {point.name!r} was chosen for other weights; choose it again")
            tokens = scaled(self.token_rule, point.pruning)
            rule = replace(ExitRule.from_point(point), tokens=tokens, deferral=self.deferral)
        if rule.thresholds.shape[-1] != len(self.rungs) - 1:
            raise UserError(f"exit rule: {rule.thresholds.shape[-1]} thresholds, the model needs {len(self.rungs) - 1}")
        if any(rule.active[:-1]):
            self.problem.check_score(rule.score)
        rule.check_reachable()
        return rule

    def answer(
        self,
        texts: Iterable[Text],
        at: Point = "balanced",
        batch_size: int | None = None,
        progress: bool = False,
    ) -> Answers:
        """Answers n texts, or pairs of texts for a model of pairs (of questions: question and context), in their order.

        Args:
            texts: n strings, or n pairs of strings.
            at: the name of one of the model's operating points ("full" never exits early and prunes nothing), a point,
                or an exit rule made for this call with `rule`.
            batch_size: texts per batch; None = what the point was measured to be fastest with, else 32.
            progress: whether a progress bar is shown.

        Raises:
            UserError: an input is no text (its index is named), or the point is not known.
        """
        rule = self.rule_of(at)
        encoded = self.encode(texts if isinstance(texts, str) else list(texts))
        sizes = self.batch_sizes(at) if batch_size is None else batch_size
        return self.answers(encoded, self.run(encoded, rule, sizes, progress), rule)

    def stream(
        self,
        arrivals: Iterable[Sequence[Text]],
        at: Point = "balanced",
        linger: float = 0.05,
        batch_sizes: Sequence[int] | None = None,
    ) -> Iterator[tuple[int, Answer | SpanAnswer]]:
        """Answers texts as they arrive, some at a time; yields the index of each text, from 0, with its answer.

        What a cascade's tier is unsure of waits, `linger` seconds at most, until the next tier has a full batch; so
        answers may come in another order. They are the same as `answer`'s; a trace's microseconds count from arrival.
        `batch_sizes` has one for each tier, None = as `answer`. The clock is looked at when texts arrive.
        """
        rule = self.rule_of(at)
        if rule.thresholds.ndim != 1:
            raise UserError("exit rule: in a stream all inputs have the same thresholds")
        sizes = self.batch_sizes(at) if batch_sizes is None else batch_sizes
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
            encoded.summed(outcomes.token_counts[:, self.layer_columns]),
            self.flops(encoded, outcomes.token_counts, rule)[np.arange(len(encoded)), outcomes.rungs],
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

    def ran(self, encoded: Encoded, token_counts: np.ndarray, rungs: np.ndarray, rule: ExitRule) -> np.ndarray:
        """`token_counts` of a run without exits, (s, columns), with 0 behind the exits of the inputs at `rungs` (n)."""
        rungs = rungs if encoded.owners is None else rungs[encoded.owners]
        ran = np.zeros(token_counts.shape, dtype=bool)
        for part in self.ladder.slices:
            last = part.last_active(rule.active)
            if last is not None:
                layers = np.array(part.tier.backend.rung_layers)
                depth = layers[np.clip(rungs - part.rungs.start, 0, last)]
                came = (rungs >= part.rungs.start)[:, None]
                ran[:, part.columns] = came & (np.arange(part.tier.columns) <= depth[:, None])
        return np.where(ran, token_counts, 0)

    def run(
        self, encoded: Encoded, rule: ExitRule, batch_size: int | Sequence[int] = BATCH, progress: bool = False
    ) -> Outcomes:
        """Answers encoded inputs, like lengths together; `batch_size` for all tiers, or one for each.

        A batch counts sequences, and those of an input stay together.
        """
        outcomes = run_engine(self.ladder, encoded, rule, self._sizes(batch_size), progress)
        self.refuse_no_numbers(outcomes.readings)
        return outcomes

    def every_rung(
        self, encoded: Encoded, batch_size: int = BATCH, progress: bool = False, tokens: TokenRule | None = None
    ) -> AllRungs:
        """What every rung reads of every input under a pruning rule (None = without), for replay and calibration."""
        found = all_rungs(self.ladder, encoded, self._sizes(batch_size), tokens, progress)
        self.refuse_no_numbers(found.readings)
        return found

    def flops(self, encoded: Encoded, token_counts: np.ndarray, rule: ExitRule) -> np.ndarray:
        """FLOPs of exiting at each rung, (n, n_rungs) int64, from `Outcomes.token_counts`, of all tiers that ran."""
        return encoded.summed(self.ladder.flops(token_counts, encoded.lengths, rule.active, rule.tokens))

    def full_flops(self, encoded: Encoded) -> np.ndarray:
        """Cost of the last tier's layers without exits and pruning, (n) int64."""
        return encoded.summed(self.tiers[-1].full_flops(encoded.lengths))

    def refuse_no_numbers(self, readings: np.ndarray) -> None:
        """UserError if what a model answered is no number: finite weights can be so large that sums are not.

        A look at what a call answers, which costs next to nothing, and not at each layer.
        """
        if self.problem.broken(readings).any():
            raise UserError(
                "the model's weights are broken: they give answers that are no numbers; copy its folder again, or "
                "train it again"
            )

    def _sizes(self, batch_size: int | Sequence[int]) -> list[int]:
        """Sequences per batch of each tier; UserError for what is no whole number, or not one for each."""
        n_tiers = len(self.tiers)
        try:
            wanted = batch_size if isinstance(batch_size, Sequence) else [batch_size] * n_tiers
            sizes = [index(size) for size in wanted]
        except TypeError:
            sizes = []
        if len(sizes) != n_tiers:
            raise UserError(
                f"batch size {batch_size!r}: must be a whole number, or {n_tiers} of them, one for each tier"
            )
        return sizes

    def with_manifest(self, manifest: Manifest) -> Self:
        """The same layers under another manifest."""
        changed = type(self)([*self.tiers[:-1], replace(self.tiers[-1], manifest=manifest)])
        changed.origin = self.origin
        return changed

    def point(self, name: str) -> OperatingPoint:
        """The model's operating point of this name, or one from a file (`….json`); UserError where there is none."""
        return read_point(Path(name)) if name.endswith(".json") else self.manifest.operating_point(name)


def _check_text(text: object, number: int, pairs: bool) -> None:
    """UserError for what is no text. A blank one is read as transformers reads it: its special tokens alone."""
    kind = "pairs of texts (a, b)" if pairs else "single texts"
    parts = text if isinstance(text, tuple | list) else (text,)
    if len(parts) != (2 if pairs else 1) or not all(isinstance(part, str) for part in parts):
        raise UserError(f"texts: number {number} is not what the model reads: {kind}")


def _identity(manifest: Manifest) -> tuple[object, ...]:
    """What another model differs in. Operating points may be chosen anew."""
    return manifest.fingerprint, manifest.labels


def _opened_again(kind: type[OpenedModel], origin: Origin, identity: tuple[object, ...]) -> OpenedModel:
    """A pickled model; UserError where its folder is gone, or holds another one by now."""
    if not origin.folder.is_dir():
        raise UserError(f"{origin.folder}: no such folder any more; put the pickled model back there")
    opened = kind.from_pretrained(*origin)
    if _identity(opened.manifest) != identity:
        raise UserError(f"{origin.folder}: no longer the model that was pickled; open it and pickle it again")
    return opened
