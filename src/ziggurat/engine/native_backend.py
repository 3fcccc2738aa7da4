"""The layers, and the whole adaptive forward, in the compiled engine: no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from ziggurat import native
from ziggurat.data.packing import PackedBatch, cumulate, join, slots_in
from ziggurat.encoder import folder as layout
from ziggurat.encoder.folder import Manifest
from ziggurat.encoder.model_files import ModelFiles, read_model
from ziggurat.encoder.spec import EncoderSpec
from ziggurat.encoder.weights import from_hf
from ziggurat.engine.backend import Answered
from ziggurat.engine.rules import ExitRule
from ziggurat.errors import UserError
from ziggurat.policies.exits import LEARNED, unfitted
from ziggurat.policies.prune import FROM_OTHERS, KINDS, PREDICTED, TokenRule
from ziggurat.recipe import PruningConfig
from ziggurat.system import default_threads
from ziggurat.types import ProblemType

if TYPE_CHECKING:
    CompiledRules: TypeAlias = tuple[native.ExitRule, native.TokenRule | None]

_MOST_THREADS = 1024  # that the compiled engine takes
_LARGEST = float(1 << 30)  # that the compiled rules take for a score's number


@dataclass(frozen=True)
class Underway:
    """Sequences that have run `layers` layers and have no answer yet."""

    batch: PackedBatch  # states (n_tokens, d); before layer 1 token and segment ids (n_tokens, 2)
    layers: int
    history: np.ndarray  # (n_seqs, n_rungs, n_classes) float32: what asked rungs have said, in their order

    def join(self, other: Underway) -> Underway:
        """Both, those of `other` behind; ValueError unless they have run as many layers."""
        if self.layers != other.layers:
            raise ValueError(f"sequences after {self.layers} and {other.layers} layers cannot go on together")
        history = np.concatenate([self.history, other.history])
        return Underway(join([self.batch, other.batch]), self.layers, history)


class NativeBackend:
    """A model in the compiled engine; implements `engine.backend.WholeForward`."""

    engine = "native"
    device = "cpu"

    def __init__(
        self,
        tensors: dict[str, np.ndarray],
        spec: EncoderSpec,
        manifest: Manifest,
        dtype: str,
        threads: int | None,
        instructions: str = "",
    ) -> None:
        """`instructions` forces an instruction set of `native.instructions()`; "" = the fastest that there is."""
        self.dtype = dtype
        wanted = threads or min(default_threads(), _MOST_THREADS)
        try:
            self._core = native.Engine(asdict(spec), tensors, list(manifest.head_layers), dtype, wanted, instructions)
        except ValueError as error:
            raise UserError(f"model: {error}") from None
        self.instructions = self._core.instructions
        self.n_layers = spec.layers
        self.n_classes = self._core.n_classes
        self.rung_layers = tuple(self._core.rung_layers)
        self.token_rule = token_rule(manifest.pruning, tensors)
        self._latest: tuple[ExitRule | None, CompiledRules | None] = (None, None)

    @property
    def threads(self) -> int:
        """Threads that compute: those that were asked for, or after the first call as many as the system gave.

        Answers are the same bits with any number.
        """
        return self._core.threads

    def embed(self, batch: PackedBatch, tokens: TokenRule | None = None) -> PackedBatch:
        """Token and segment ids (n_tokens, 2) → token states (n_tokens, d) of the tokens that the rule reads."""
        read = None if tokens is None else tokens.reads(batch)
        batch = batch if read is None else batch.take_tokens(read)
        return batch.with_states(self._core.embed(batch.states, batch.positions))

    def layer(self, layer: int, batch: PackedBatch, tokens: TokenRule | None = None) -> PackedBatch:
        """Token states before → after layer `layer`, 1 … L, of the tokens that the rule leaves there."""
        prunes = tokens is not None and tokens.prunes(layer)
        scored = prunes and tokens is not None and tokens.score != PREDICTED
        from_others = tokens is not None and tokens.score == FROM_OTHERS
        context, scores = self._core.context(
            layer, batch.states, batch.positions, batch.cu_seqlens, scored, from_others
        )
        if prunes and tokens is not None:
            if not scored:
                scores = self._core.guess(layer, batch.states, batch.cu_seqlens)
            keep = tokens.stays(layer, scores, batch)
            context = batch.with_states(context).take_tokens(keep).states
            batch = batch.take_tokens(keep)
        return batch.with_states(self._core.finish(layer, batch.states, context))

    def logits(self, rung: int, batch: PackedBatch) -> np.ndarray:
        """What rung `rung` says to each sequence, (n_seqs, n_classes) float32."""
        return self._core.logits(rung, batch.states, batch.cu_seqlens)

    def answer(self, batches: Sequence[PackedBatch], rule: ExitRule) -> Answered | None:
        """Runs whole inputs to their answers in one call; None for a rule that only Python knows.

        What is left of a batch after exits and pruning waits for what is left of the next, so that no layer runs for a
        few tokens, nor for more than the largest batch has.
        """
        batch = batches[0] if len(batches) == 1 else join(batches)
        known = self._rules(rule, batch.rows)
        if known is None:
            return None
        edges = cumulate(np.array([one.n_seqs for one in batches]))
        where = batch.states, batch.positions, batch.cu_seqlens, batch.original
        return Answered(*self._core.answer(*where, edges, *known))

    def begin(self, batch: PackedBatch) -> Underway:
        """Token ids (n_tokens, 2) of inputs that have not started."""
        return Underway(batch, 0, np.zeros((batch.n_seqs, len(self.rung_layers), self.n_classes), dtype=np.float32))

    def advance(self, underway: Underway, rule: ExitRule, last: int) -> tuple[Underway, Answered]:
        """Runs layers up to `last`, for schedulers: who is still underway, and what became of each input of the call.

        Those without an answer have rung -1 in `Answered`. UserError for a rule that only Python knows.
        """
        batch, known = underway.batch, self._rules(rule, underway.batch.rows)
        if known is None:
            raise UserError("rule: the compiled engine does not know it; use one of the built-in pruning rules")
        where = batch.states, batch.positions, batch.cu_seqlens, batch.original
        if underway.layers:
            done = self._core.resume(*where, underway.history, *known, underway.layers + 1, last)
        else:
            done = self._core.run(*where, *known, last)
        logits, rungs, seconds, kept, history, (states, positions, cu_seqlens, left) = done
        live = PackedBatch(states, cu_seqlens, positions, batch.rows[left], batch.original[left])
        return Underway(live, last, history[left]), Answered(logits, rungs, seconds, kept)

    def _rules(self, rule: ExitRule, rows: np.ndarray) -> CompiledRules | None:
        """The compiled engine's exit and pruning rules; None if it does not know this one."""
        if rule.thresholds.ndim == 1:  # the same for every batch: not made again for each
            latest = self._latest
            if latest[0] is not rule:  # read and set at once: other threads may call with another rule
                latest = self._latest = rule, self._compiled(rule, rule.thresholds[None])
            return latest[1]
        return self._compiled(rule, rule.thresholds[rows])

    def _compiled(self, rule: ExitRule, thresholds: np.ndarray) -> CompiledRules | None:
        tokens = None
        if rule.tokens is not None:
            kinds = [name for name, keep in KINDS.items() if keep is rule.tokens.keep]
            if not kinds:
                return None
            tokens = _compiled_token_rule(kinds[0], rule.tokens)
        name, _, parameter = rule.score.partition("@")
        thresholds = np.ascontiguousarray(thresholds)
        weights = self._deferral(rule)
        number = min(float(parameter or 0), _LARGEST)  # of a count of classes more than there are means all of them
        return native.ExitRule(name, number, thresholds, rule.temperatures, weights), tokens

    def _deferral(self, rule: ExitRule) -> np.ndarray | None:
        """Weights of the learned score, None for the others; UserError if it is asked and the model has none."""
        if rule.score != LEARNED:
            return None
        if rule.deferral is not None:
            return np.ascontiguousarray(rule.deferral, dtype=np.float64)
        if any(rule.asked[:-1]):
            raise unfitted()
        return np.zeros((len(rule.asked) - 1, 4 + self.n_classes))  # nobody reads them


class NativeSpanBackend(NativeBackend):
    """A model of spans, layer by layer; implements `engine.backend.SpanBackend`.

    Its heads are linear maps, which the compiled engine reads off each sequence's first token: here each token is one.
    """

    def logits(self, rung: int, batch: PackedBatch) -> np.ndarray:
        """What rung `rung` says to each token, (n_tokens, 2) float32."""
        return self._core.logits(rung, batch.states, np.arange(len(batch.states) + 1))

    def put_back(self, whole: PackedBatch, live: PackedBatch) -> None:
        """Writes the states of some tokens into those of all."""
        whole.states[slots_in(whole, live)] = live.states


def _compiled_token_rule(kind: str, rule: TokenRule) -> native.TokenRule:
    values = np.ascontiguousarray(rule.values, dtype=np.float64)
    return native.TokenRule(kind, rule.score, rule.scale, values, rule.vocabulary)


def token_rule(config: PruningConfig | None, tensors: dict[str, np.ndarray]) -> TokenRule | None:
    """The pruning rule that a model folder's tensors stand for, as `encoder.pruning.TokenPruning.rule` has it."""
    if config is None:
        return None
    values = tensors[layout.PRUNING_VALUES].astype(np.float64)
    read = tensors[f"{layout.PRUNING_PREFIX}vocabulary"] > 0 if config.vocabulary is not None else None
    return TokenRule(KINDS[config.kind], values, config.score, config.scale, read)


def load_backend(folder: Path, dtype: str, threads: int | None, instructions: str = "") -> NativeBackend:
    """The backend of a model folder, with `instructions` as `NativeBackend` has them.

    UserError if a file is missing, broken or not of these weights.
    """
    return backend_of(read_model(folder), dtype, threads, instructions)


def backend_of(model: ModelFiles, dtype: str, threads: int | None, instructions: str = "") -> NativeBackend:
    """The backend of what was read of a folder; UserError if its parts do not fit together."""
    manifest, spec = model.manifest, model.encoder
    tensors = from_hf(model.weights.tensors, spec, np.concatenate, ProblemType(manifest.problem_type))
    for name, tensor in model.extras.tensors.items():
        if name.startswith((layout.HEAD_PREFIX, layout.PRUNING_PREFIX)):
            tensors[name] = tensor
    kind = NativeSpanBackend if manifest.answers_spans else NativeBackend
    return kind(tensors, spec, manifest, "int8" if manifest.int8 else dtype, threads, instructions)
