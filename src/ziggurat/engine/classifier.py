"""The front door: texts in, answers with their traces out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import chain
from pathlib import Path

import numpy as np

from ziggurat.data.packing import cumulate
from ziggurat.data.tokenize import Encoded, limit_threads
from ziggurat.encoder.folder import LABEL_RANGE, read_point
from ziggurat.encoder.hub import local_folder
from ziggurat.encoder.spec import EncoderSpec
from ziggurat.engine import rules
from ziggurat.engine.escalation import Escalation
from ziggurat.engine.ladder import run_every_rung_of, run_ladder
from ziggurat.engine.rules import ExitRule
from ziggurat.engine.runner import AllRungs, Outcomes
from ziggurat.engine.streaming import streamed
from ziggurat.engine.tiers import Tier, open_tiers, places
from ziggurat.errors import UserError
from ziggurat.policies.outputs import Output, output_of
from ziggurat.policies.prune import TokenRule, scaled
from ziggurat.types import Answer, OperatingPoint, Rung, Trace

Text = str | tuple[str, str]
BATCH = 32  # texts, where nobody says otherwise
FULL = "full"  # the operating point that never leaves early; every model has it


class AdaptiveClassifier:
    """A model folder, ready to classify. Make it with `from_pretrained`."""

    def __init__(self, tiers: Sequence[Tier]) -> None:
        """Models from cheap to dear, of a cascade several, else one. The last is "the model" in all that follows."""
        self.tiers = tuple(tiers)
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
        engine: str = "auto",
    ) -> AdaptiveClassifier:
        """Loads a folder made by `ziggurat train`, `adapt` or `cascade`, or a hub name; UserError says what is wrong.

        `device` is auto, cpu or cuda; `dtype` float32, bfloat16 or (compiled engine) int8; `threads` of the CPU, None =
        all cores; `engine` native (compiled, CPUs), torch, or auto: native on CPUs where it is installed.
        """
        folder = local_folder(str(model))
        classifier = cls(open_tiers(folder, device, dtype, threads, engine))
        limit_threads(classifier.backend.threads)
        return classifier

    @property
    def spec(self) -> EncoderSpec:
        """Of the last tier's layers; UserError for a small model, which has none."""
        if self.tiers[-1].spec is None:
            raise UserError(f"a {self.manifest.kind} model has no layers to look into; give an encoder or a cascade")
        return self.tiers[-1].spec

    @cached_property
    def output(self) -> Output:
        """What its logits stand for."""
        return output_of(self.manifest.problem_type, self.manifest.training.get(LABEL_RANGE))

    @cached_property
    def rungs(self) -> tuple[Rung, ...]:
        """Where it can answer, from cheap to dear; the last is the full model."""
        before = (tier.rungs(place) for place, tier in enumerate(self.tiers[:-1]))
        return tuple(chain(*before, self.tiers[-1].rungs()))

    @cached_property
    def depths(self) -> np.ndarray:
        """How many layers of all tiers have run at each rung, if every tier before was run to its end: (n_rungs)."""
        before = cumulate(np.array([tier.backend.n_layers for tier in self.tiers]))[:-1]
        return np.concatenate(
            [start + np.array(tier.backend.rung_layers) for start, tier in zip(before, self.tiers, strict=True)]
        )

    @cached_property
    def layer_columns(self) -> np.ndarray:
        """Which columns of `kept` are tokens that a layer left, not those that a tier read: bool."""
        return np.concatenate([np.arange(tier.columns) > 0 for tier in self.tiers])

    def predict(
        self,
        texts: Sequence[Text],
        operating_point: str | OperatingPoint | ExitRule = "balanced",
        batch_size: int | None = None,
        progress: bool = False,
    ) -> list[Answer]:
        """Classifies texts, or pairs of texts for a model of pairs; answers come in the order of the texts.

        `operating_point` is the name of one of the model's points ("full" never leaves early and prunes nothing), a
        point, or an exit rule made for this call with `rule`. `batch_size` None: what the point was measured to be
        fastest with, else 32. UserError for an empty text (its index is named) or an unknown point.
        """
        rule = self.rule_of(operating_point)
        encoded = self.encode(texts)
        sizes = self.batch_sizes(operating_point) if batch_size is None else batch_size
        return self.answers(encoded, self.run(encoded, rule, sizes, progress), rule)

    def batch_sizes(self, operating_point: str | OperatingPoint | ExitRule) -> tuple[int, ...]:
        """Texts per batch of each tier: those that the point was measured to be fastest with, else 32."""
        point = operating_point
        if isinstance(point, str) and point != FULL:
            point = self.point(point)
        measured = point.batch_sizes if isinstance(point, OperatingPoint) else None
        return measured or (BATCH,) * len(self.tiers)

    def stream(
        self,
        arrivals: Iterable[Sequence[Text]],
        operating_point: str | OperatingPoint | ExitRule = "balanced",
        deadline: float = 0.05,
        batch_sizes: Sequence[int] | None = None,
    ) -> Iterator[tuple[int, Answer]]:
        """Classifies texts as they arrive, some at a time; yields the number of each text, from 0, with its answer.

        What a cascade's tier is unsure of waits, `deadline` seconds at most, until the next tier has a full batch; so
        answers may come in another order. They are the same as `predict`'s; a trace's microseconds count from arrival.
        `batch_sizes` has one for each tier, None = as `predict`. Deadlines are looked at when texts arrive.
        """
        rule = self.rule_of(operating_point)
        sizes = self.batch_sizes(operating_point) if batch_sizes is None else batch_sizes
        return streamed(self, arrivals, Escalation(self.tiers, rule, sizes, deadline))

    def answers(self, encoded: Encoded, outcomes: Outcomes, rule: ExitRule) -> list[Answer]:
        """Outcomes of inputs under a rule, as what `predict` returns."""
        flops = self.flops(outcomes.kept, rule)[np.arange(len(encoded)), outcomes.rungs]
        predictions = self.output.predictions(outcomes.logits)
        shares = None if self.output.probabilities is None else self.output.probabilities(outcomes.logits)
        return [
            Answer(
                label=self.output.label(predictions[row], self.manifest.labels),
                probabilities=None if shares is None else shares[row],
                trace=Trace(
                    rung=int(outcomes.rungs[row]),
                    read=int(encoded.lengths[row]),
                    tokens=tuple(int(count) for count in outcomes.kept[row, self.layer_columns] if count),
                    flops=int(flops[row]),
                    microseconds=float(outcomes.seconds[row] * 1e6),
                    truncated=bool(encoded.truncated[row]),
                ),
            )
            for row in range(len(encoded))
        ]

    @property
    def deferral(self) -> np.ndarray | None:
        """Weights of the learned exit score, (n_rungs - 1, 4 + n_classes), None if it was not fitted."""
        return self.tiers[-1].deferral

    @property
    def token_rule(self) -> TokenRule | None:
        """The pruning that the model was trained for, None if it does not prune."""
        return self.backend.token_rule

    def rule(self, score: str, threshold: float | Sequence[float], prune: bool = True) -> ExitRule:
        """A rule for one call: the same threshold at every rung, one number or one for each input.

        The model's own pruning, if it has any, stays on unless `prune` is false.
        """
        rule = rules.shared(score, threshold, len(self.rungs))
        return replace(rule, tokens=self.token_rule if prune else None, deferral=self.deferral)

    def rule_of(self, operating_point: str | OperatingPoint | ExitRule) -> ExitRule:
        """The exit rule that an argument of `predict` stands for; UserError if it is not this model's."""
        if isinstance(operating_point, ExitRule):
            rule = operating_point
        elif operating_point == FULL:
            rule = rules.never(len(self.rungs), self.output.scores[0])
        else:
            point = operating_point
            if isinstance(point, str):
                point = self.point(point)
            if point.fingerprint != self.manifest.fingerprint:
                raise UserError(f"operating point {point.name!r} was chosen for other weights; choose it again")
            tokens = scaled(self.token_rule, point.pruning)
            rule = replace(rules.of_point(point), tokens=tokens, deferral=self.deferral)
        if rule.thresholds.shape[-1] != len(self.rungs) - 1:
            raise UserError(f"exit rule: {rule.thresholds.shape[-1]} thresholds, the model needs {len(self.rungs) - 1}")
        if any(rule.asked[:-1]):
            self.output.refuse_score(rule.score)
        rules.refuse_unreachable(rule)
        return rule

    def point(self, name: str) -> OperatingPoint:
        """The model's operating point of this name, or one from a file (`….json`); UserError where there is none."""
        return read_point(Path(name)) if name.endswith(".json") else self.manifest.operating_point(name)

    def encode(self, texts: Sequence[Text]) -> Encoded:
        """Token ids of texts or pairs; UserError names the first that is empty or of the wrong kind."""
        if isinstance(texts, str):
            raise UserError("texts: one string was given; give a list of texts")
        for index, text in enumerate(texts):
            _check_text(text, index, self.manifest.pairs)
        firsts = [text if isinstance(text, str) else text[0] for text in texts]
        seconds = [text[1] for text in texts] if self.manifest.pairs else None
        return self.tokenizer.encode(firsts, seconds)

    def run(
        self, encoded: Encoded, rule: ExitRule, batch_size: int | Sequence[int] = BATCH, progress: bool = False
    ) -> Outcomes:
        """Answers encoded inputs, like lengths together; `batch_size` for all tiers, or one for each."""
        if rule.thresholds.ndim == 2 and len(rule.thresholds) != len(encoded.tokens):
            raise UserError(
                f"exit rule: thresholds for {len(rule.thresholds)} inputs, but there are {len(encoded.tokens)}"
            )
        sizes = [batch_size] * len(self.tiers) if isinstance(batch_size, int) else batch_size
        return run_ladder(self.tiers, encoded, rule, sizes, progress)

    def every_rung(
        self, encoded: Encoded, batch_size: int = 32, progress: bool = False, tokens: TokenRule | None = None
    ) -> AllRungs:
        """What every rung says to every input under a pruning rule (None = without), for replay and calibration."""
        return run_every_rung_of(self.tiers, encoded, [batch_size] * len(self.tiers), progress, tokens)

    def flops(self, kept: np.ndarray, rule: ExitRule) -> np.ndarray:
        """Cost of leaving at each rung, (n, n_rungs) int64, from `Outcomes.kept`; every tier that ran is charged."""
        spent: np.ndarray = np.zeros((len(kept), 1), dtype=np.int64)
        costs = []
        for place in places(self.tiers):
            own = place.tier.flops(kept[:, place.columns], rule.asked[place.rungs], place.pruning(rule.tokens))
            costs.append(spent + own)
            last = place.last_asked(rule.asked)
            if last is not None:  # those who go on have come that far
                spent = costs[-1][:, [last]]
        return np.concatenate(costs, axis=1)

    def ran(self, kept: np.ndarray, rungs: np.ndarray, rule: ExitRule) -> np.ndarray:
        """`kept` of a run in which nobody left, (n, columns), without what those who leave at `rungs` (n) never see."""
        ran = np.zeros(kept.shape, dtype=bool)
        for place in places(self.tiers):
            last = place.last_asked(rule.asked)
            if last is not None:
                layers = np.array(place.tier.backend.rung_layers)
                depth = layers[np.clip(rungs - place.rungs.start, 0, last)]
                came = (rungs >= place.rungs.start)[:, None]
                ran[:, place.columns] = came & (np.arange(place.tier.columns) <= depth[:, None])
        return np.where(ran, kept, 0)

    def full_flops(self, lengths: np.ndarray) -> np.ndarray:
        """Cost of the last tier's layers without exits: lengths (n) → (n) int64."""
        return self.tiers[-1].full_flops(lengths)


def _check_text(text: object, index: int, pairs: bool) -> None:
    kind = "pairs of texts (a, b)" if pairs else "single texts"
    parts = text if isinstance(text, tuple | list) else (text,)
    if len(parts) != (2 if pairs else 1) or not all(isinstance(part, str) for part in parts):
        raise UserError(f"texts: number {index} is not what the model reads: {kind}")
    if not all(part.strip() for part in parts):
        raise UserError(f"texts: number {index} is empty; remove it or give it words")
