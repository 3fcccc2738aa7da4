"""The layers and the complete adaptive forward pass in the compiled engine; no torch."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from ziggurat import native
from ziggurat.data.packing import PackedBatch
from ziggurat.encoder import folder as layout
from ziggurat.encoder.folder import Manifest
from ziggurat.encoder.model_files import ModelFiles, read_model
from ziggurat.encoder.spec import EncoderSpec
from ziggurat.encoder.weights import from_hf
from ziggurat.engine.backend import TOGETHER, Finished, Reader
from ziggurat.engine.backends.stepwise import StepwiseBackend, StepwiseWork
from ziggurat.errors import UserError
from ziggurat.policies.exits import LEARNED, unfitted
from ziggurat.policies.prune import FROM_OTHERS, KINDS, PREDICTED, TokenRule
from ziggurat.policies.rules import ExitRule
from ziggurat.recipe import PruningConfig
from ziggurat.system import default_threads
from ziggurat.types import ProblemType

if TYPE_CHECKING:
    CompiledRules: TypeAlias = tuple[native.ExitRule, native.TokenRule | None]

_MOST_THREADS = 1024  # limit of the compiled engine
_LARGEST = float(1 << 30)  # limit of the compiled rules for a score's parameter


class NativeBackend(StepwiseBackend):
    """A model in the compiled engine, which decides in C++; implements `engine.backend.Backend`.

    It runs step by step for custom rules in Python, for counts that continue from tier to tier, and for inputs with
    several sequences.
    """

    engine = "native"
    device = "cpu"
    together = TOGETHER

    def __init__(
        self,
        tensors: dict[str, np.ndarray],
        spec: EncoderSpec,
        manifest: Manifest,
        dtype: str,
        threads: int | None,
        instructions: str = "",
        reader: Reader | None = None,
    ) -> None:
        """`instructions` forces an instruction set of `native.instructions()`; "" = the fastest available one."""
        self.reader = reader
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
        self._latest_local: tuple[ExitRule | None, ExitRule | None] = (None, None)

    @property
    def threads(self) -> int:
        """Threads that compute: the requested number; after the first call, the number that the system granted.

        Answers are bit-identical for any number.
        """
        return self._core.threads

    def embed(self, batch: PackedBatch, tokens: TokenRule | None = None) -> PackedBatch:
        """Token and segment ids (n_tokens, 2) → token states (n_tokens, d) of the tokens that the rule reads."""
        read = None if tokens is None else tokens.reads(batch)
        batch = batch if read is None else batch.take_tokens(read)
        return batch.with_states(self._core.embed(batch.states, batch.positions))

    def layer(self, layer: int, batch: PackedBatch, tokens: TokenRule | None = None) -> PackedBatch:
        """Token states before → after layer `layer`, 1 … L, of the tokens that the rule keeps there."""
        prunes = tokens is not None and tokens.prunes(layer)
        scored = prunes and tokens is not None and tokens.score != PREDICTED
        from_others = tokens is not None and tokens.score == FROM_OTHERS
        context, scores = self._core.context(
            layer, batch.states, batch.positions, batch.cu_seqlens, scored, from_others
        )
        if prunes and tokens is not None:
            if not scored:
                scores = self._core.guess(layer, batch.states, batch.cu_seqlens)
            keep = tokens.keep_mask(layer, scores, batch)
            context = batch.with_states(context).take_tokens(keep).states
            batch = batch.take_tokens(keep)
        return batch.with_states(self._core.finish(layer, batch.states, context))

    def logits(self, rung: int, batch: PackedBatch) -> np.ndarray:
        """Logits of rung `rung`: (n_seqs, n_classes) float32, with a reader (n_tokens, n_classes)."""
        # The core applies heads to the first token of each sequence. Span heads need all tokens: each is a sequence.
        edges = batch.cu_seqlens if self.reader is None else np.arange(len(batch.states) + 1)
        return self._core.logits(rung, batch.states, edges)

    def advance(self, work: StepwiseWork, rule: ExitRule, to_layer: int) -> tuple[StepwiseWork, Finished]:
        """Runs layers up to `to_layer` and applies the rule at its active rungs; see `engine.backend.Backend`.

        New inputs that may run to the last active rung take a single call of the core. There, small remainders of
        batches after exits and pruning wait and are merged with later batches, up to the size of the largest batch.
        """
        if work.live is None or to_layer < 1 or work.layers == 0 or self.reader is not None:
            return super().advance(work, rule, to_layer)
        local = self._local(rule, work)
        known = None if local is None else self._rules(local, work.rows)
        if local is None or known is None:
            return super().advance(work, rule, to_layer)
        if work.layers < 0 and to_layer >= self._last_active(rule):
            return self._answered(work, known, rule)
        return self._advanced(work, known, rule, to_layer)

    def _answered(self, work: StepwiseWork, known: CompiledRules, rule: ExitRule) -> tuple[StepwiseWork, Finished]:
        """Runs all inputs to the last active rung."""
        batch = work.live
        assert batch is not None
        edges = np.array([0, batch.n_seqs]) if work.batches is None else work.batches
        where = batch.states, batch.positions, batch.cu_seqlens, batch.original
        done = Finished(work.rows, *self._core.answer(*where, edges, *known))
        return self._taken_back(work.emptied(), rule, done)

    def _advanced(
        self, work: StepwiseWork, known: CompiledRules, rule: ExitRule, to_layer: int
    ) -> tuple[StepwiseWork, Finished]:
        """Runs layers up to `to_layer` for all inputs."""
        begun, batch = time.perf_counter(), work.live
        assert batch is not None
        where = batch.states, batch.positions, batch.cu_seqlens, batch.original
        if work.layers < 0:
            found = self._core.run(*where, *known, to_layer)
        else:
            history = np.zeros((len(work.rows), len(self.rung_layers), self.n_classes), dtype=np.float32)
            history[:, : work.history.shape[1]] = work.history
            found = self._core.resume(*where, history, *known, work.layers + 1, to_layer)
        logits, rungs, seconds, token_counts, history, (states, positions, cu_seqlens, live_rows) = found
        token_counts += work.token_counts  # layers that did not run in this call have 0
        ended = np.flatnonzero(rungs >= 0)
        times = work.seconds[ended] + seconds[ended]
        done = Finished(work.rows[ended], logits[ended], rungs[ended], times, token_counts[ended])
        n_active = sum(layer <= to_layer for layer in rule.active_in(self.rung_layers))
        live = PackedBatch(states, cu_seqlens, positions, batch.rows[live_rows], batch.original[live_rows])
        times = work.seconds[live_rows] + (time.perf_counter() - begun)
        rows, history, token_counts = work.rows[live_rows], history[live_rows, :n_active], token_counts[live_rows]
        rest = StepwiseWork(to_layer, rows, history, times, token_counts, live)
        return self._taken_back(rest, rule, done) if to_layer >= self._last_active(rule) else (rest, done)

    def _taken_back(self, rest: StepwiseWork, rule: ExitRule, done: Finished) -> tuple[StepwiseWork, Finished]:
        """Moves unconfident answers at the last active rung back to the work, in a tier before the ladder's last.

        The compiled engine answers all inputs at that rung, for any score.
        """
        if rule.first + len(self.rung_layers) == len(rule.active):
            return rest, done
        last = max(rule.active_in(self.rung_layers).values())
        rows = np.flatnonzero(done.rungs >= last)  # beyond it are only inputs with NaN logits, which reach no threshold
        back = rows[~rule.exits(rule.first + last, done.readings[rows][:, None], done.rows[rows])]
        ended = np.ones(len(done.rows), dtype=bool)
        ended[back] = False
        none = np.empty((len(back), 0, self.n_classes), dtype=np.float32)
        rest = StepwiseWork(self.n_layers, done.rows[back], none, done.seconds[back], done.token_counts[back], None)
        return rest, done.take(ended)

    def _last_active(self, rule: ExitRule) -> int:
        """The layer of the last active rung."""
        return max(rule.active_in(self.rung_layers))

    def _local(self, rule: ExitRule, work: StepwiseWork) -> ExitRule | None:
        """The rule for this tier alone; None if the score reads the history of other tiers."""
        if len(rule.active) == len(self.rung_layers):
            return rule
        if rule.looks_back:
            return None
        latest = self._latest_local
        if latest[0] is not rule:
            latest = self._latest_local = rule, rule.of_rungs(rule.first, len(self.rung_layers))
        return latest[1]

    def _rules(self, rule: ExitRule, rows: np.ndarray) -> CompiledRules | None:
        """The compiled engine's exit and pruning rules; None if it does not know this rule."""
        if rule.thresholds.ndim == 1:  # the same for all batches, so it is cached
            latest = self._latest
            if latest[0] is not rule:  # a single read and a single write: other threads may call with another rule
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
        number = min(float(parameter or 0), _LARGEST)  # more classes than the model has means all
        try:
            return native.ExitRule(name, number, thresholds, rule.temperatures, weights), tokens
        except ValueError as error:
            if "is not known to the compiled engine" in str(error):  # a new score: numpy knows it
                return None
            raise

    def _deferral(self, rule: ExitRule) -> np.ndarray | None:
        """Weights of the learned score, None for other scores; UserError if it is needed and the model has none."""
        if rule.score != LEARNED:
            return None
        if rule.deferral is not None:
            return np.ascontiguousarray(rule.deferral, dtype=np.float64)
        if any(rule.active[:-1]):
            raise unfitted()
        return np.zeros((len(rule.active) - 1, 4 + self.n_classes))  # no active rung reads them


def _compiled_token_rule(kind: str, rule: TokenRule) -> native.TokenRule:
    values = np.ascontiguousarray(rule.values, dtype=np.float64)
    return native.TokenRule(kind, rule.score, rule.scale, values, rule.vocabulary)


def token_rule(config: PruningConfig | None, tensors: dict[str, np.ndarray]) -> TokenRule | None:
    """The pruning rule in the tensors of a model folder, as `encoder.pruning.TokenPruning.rule`; None = no pruning."""
    if config is None:
        return None
    values = tensors[layout.PRUNING_VALUES].astype(np.float64)
    read = tensors[f"{layout.PRUNING_PREFIX}vocabulary"] > 0 if config.vocabulary is not None else None
    return TokenRule(KINDS[config.kind], values, config.score, config.scale, read)


def load_backend(folder: Path, dtype: str, threads: int | None, instructions: str = "") -> NativeBackend:
    """The backend of a model folder; `instructions` as in `NativeBackend`.

    UserError if a file is missing, broken or from another model.
    """
    return backend_of(read_model(folder), dtype, threads, instructions)


def backend_of(model: ModelFiles, dtype: str, threads: int | None, instructions: str = "") -> NativeBackend:
    """The backend for the files of a model folder; UserError if they do not fit together."""
    manifest, spec = model.manifest, model.encoder
    tensors = from_hf(model.weights.tensors, spec, np.concatenate, ProblemType(manifest.problem_type))
    for name, tensor in model.extras.tensors.items():
        if name.startswith((layout.HEAD_PREFIX, layout.PRUNING_PREFIX)):
            tensors[name] = tensor
    dtype = "int8" if manifest.int8 else dtype
    return NativeBackend(tensors, spec, manifest, dtype, threads, instructions, manifest.problem.reader)
