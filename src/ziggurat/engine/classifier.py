"""The front door: texts in, answers with their traces out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ziggurat.data.packing import PackedBatch
from ziggurat.data.tokenize import Encoded, TextTokenizer, limit_threads, pack_rows
from ziggurat.encoder.flops import full_flops, rung_flops
from ziggurat.encoder.folder import Manifest, read_json, read_manifest, read_point
from ziggurat.encoder.hub import local_folder
from ziggurat.encoder.spec import EncoderSpec, read_spec
from ziggurat.engine import rules
from ziggurat.engine.backend import Backend
from ziggurat.engine.choice import open_backend
from ziggurat.engine.rules import ExitRule
from ziggurat.engine.runner import AllRungs, Outcomes, run, run_every_rung
from ziggurat.engine.scheduler import by_length
from ziggurat.errors import UserError
from ziggurat.policies.exits import softmax
from ziggurat.policies.prune import PREDICTED, TokenRule, scaled
from ziggurat.types import Answer, OperatingPoint, Rung, Trace

Text = str | tuple[str, str]
FULL = "full"  # the operating point that never leaves early; every model has it


class AdaptiveClassifier:
    """A model folder, ready to classify. Make it with `from_pretrained`."""

    def __init__(self, backend: Backend, manifest: Manifest, spec: EncoderSpec, tokenizer: TextTokenizer) -> None:
        self.backend = backend
        self.manifest = manifest
        self.spec = spec
        self.tokenizer = tokenizer

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path,
        device: str = "auto",
        dtype: str = "float32",
        threads: int | None = None,
        engine: str = "auto",
    ) -> AdaptiveClassifier:
        """Loads a folder made by `ziggurat train` or `adapt`, or a hub name; UserError says what is wrong with it.

        `device` is auto, cpu or cuda; `dtype` float32, bfloat16 or (compiled engine) int8; `threads` of the CPU, None =
        all cores; `engine` native (compiled, CPUs), torch, or auto: native on CPUs where it is installed.
        """
        folder = local_folder(str(model))
        manifest = read_manifest(folder)
        spec = read_spec(read_json(folder / "config.json", f"{folder}: no config.json; copy the model again"))
        tokenizer = TextTokenizer(folder, manifest.max_length)
        backend = open_backend(folder, engine, device, dtype, threads)
        limit_threads(backend.threads)
        return cls(backend, manifest, spec, tokenizer)

    @property
    def rungs(self) -> tuple[Rung, ...]:
        """Where it can answer, from cheap to dear; the last is the full model."""
        return tuple(Rung(layer) for layer in self.backend.rung_layers)

    def predict(
        self,
        texts: Sequence[Text],
        operating_point: str | OperatingPoint | ExitRule = "balanced",
        batch_size: int = 32,
        progress: bool = False,
    ) -> list[Answer]:
        """Classifies texts, or pairs of texts for a model of pairs; answers come in the order of the texts.

        `operating_point` is the name of one of the model's points ("full" never leaves early and prunes nothing), a
        point, or an exit rule made for this call with `rule`. UserError for an empty text (its index is named) or an
        unknown point.
        """
        rule = self.rule_of(operating_point)
        encoded = self.encode(texts)
        outcomes = self.run(encoded, rule, batch_size, progress)
        flops = self.flops(outcomes.kept, rule)[np.arange(len(encoded.tokens)), outcomes.rungs]
        probabilities = softmax(outcomes.logits)
        return [
            Answer(
                label=self.manifest.labels[int(probabilities[row].argmax())],
                probabilities=probabilities[row],
                trace=Trace(
                    rung=int(outcomes.rungs[row]),
                    read=int(encoded.lengths[row]),
                    tokens=tuple(int(count) for count in outcomes.kept[row, 1:] if count),
                    flops=int(flops[row]),
                    microseconds=float(outcomes.seconds[row] * 1e6),
                    truncated=bool(encoded.truncated[row]),
                ),
            )
            for row in range(len(encoded.tokens))
        ]

    @property
    def token_rule(self) -> TokenRule | None:
        """The pruning that the model was trained for, None if it does not prune."""
        return self.backend.token_rule

    def rule(self, score: str, threshold: float | Sequence[float], prune: bool = True) -> ExitRule:
        """A rule for one call: the same threshold at every rung, one number or one for each input.

        The model's own pruning, if it has any, stays on unless `prune` is false.
        """
        rule = rules.shared(score, threshold, len(self.rungs))
        return replace(rule, tokens=self.token_rule) if prune else rule

    def rule_of(self, operating_point: str | OperatingPoint | ExitRule) -> ExitRule:
        """The exit rule that an argument of `predict` stands for; UserError if it is not this model's."""
        if isinstance(operating_point, ExitRule):
            rule = operating_point
        elif operating_point == FULL:
            rule = rules.never(len(self.rungs))
        else:
            point = operating_point
            if isinstance(point, str):
                point = self.point(point)
            if point.fingerprint != self.manifest.fingerprint:
                raise UserError(f"operating point {point.name!r} was chosen for other weights; choose it again")
            rule = replace(rules.of_point(point), tokens=scaled(self.token_rule, point.pruning))
        if rule.thresholds.shape[-1] != len(self.rungs) - 1:
            raise UserError(f"exit rule: {rule.thresholds.shape[-1]} thresholds, the model needs {len(self.rungs) - 1}")
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

    def run(self, encoded: Encoded, rule: ExitRule, batch_size: int = 32, progress: bool = False) -> Outcomes:
        """Answers encoded inputs, like lengths together."""
        if rule.thresholds.ndim == 2 and len(rule.thresholds) != len(encoded.tokens):
            raise UserError(
                f"exit rule: thresholds for {len(rule.thresholds)} inputs, but there are {len(encoded.tokens)}"
            )
        return run(self.backend, self.batches(encoded, batch_size, progress), rule, len(encoded.tokens))

    def every_rung(
        self, encoded: Encoded, batch_size: int = 32, progress: bool = False, tokens: TokenRule | None = None
    ) -> AllRungs:
        """What every rung says to every input under a pruning rule (None = without), for replay and calibration."""
        batches = self.batches(encoded, batch_size, progress)
        return run_every_rung(self.backend, batches, len(encoded.tokens), tokens)

    def batches(self, encoded: Encoded, batch_size: int, progress: bool = False) -> Iterator[PackedBatch]:
        """Packed batches, like lengths together, with a progress bar over inputs if asked."""
        if batch_size < 1:
            raise UserError(f"batch size {batch_size}: must be at least 1")
        with tqdm(total=len(encoded.tokens), unit=" texts", disable=not progress, leave=False) as bar:
            for indices in by_length(encoded.lengths, batch_size):
                yield pack_rows(encoded, indices)
                bar.update(len(indices))

    def flops(self, tokens: np.ndarray, rule: ExitRule) -> np.ndarray:
        """Cost of leaving at each rung, (n, n_rungs) int64, from lengths (n) or `Outcomes.kept` (n, L + 1)."""
        kind, n_classes = self.manifest.head_kind, len(self.manifest.labels)
        pruning = rule.tokens
        guessed = None
        if pruning is not None and pruning.score == PREDICTED:
            guessed = [pruning.prunes(layer) for layer in range(1, self.spec.layers + 1)]
        return rung_flops(self.spec, kind, n_classes, tokens, self.backend.rung_layers, rule.asked, guessed)

    def full_flops(self, lengths: np.ndarray) -> np.ndarray:
        """Cost of the full model without exits: lengths (n) → (n) int64."""
        return full_flops(self.spec, len(self.manifest.labels), lengths)


def _check_text(text: object, index: int, pairs: bool) -> None:
    kind = "pairs of texts (a, b)" if pairs else "single texts"
    parts = text if isinstance(text, tuple | list) else (text,)
    if len(parts) != (2 if pairs else 1) or not all(isinstance(part, str) for part in parts):
        raise UserError(f"texts: number {index} is not what the model reads: {kind}")
    if not all(part.strip() for part in parts):
        raise UserError(f"texts: number {index} is empty; remove it or give it words")
