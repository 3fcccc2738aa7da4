"""The models of a ladder, each with its tokenizer, backend and costs. A cascade has several."""

from __future__ import annotations

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain
from pathlib import Path

import numpy as np

from ziggurat import native
from ziggurat.config import DEVICES
from ziggurat.data.encoded import Encoded
from ziggurat.data.packing import by_length
from ziggurat.data.tokenizer import TextTokenizer
from ziggurat.encoder.flops import (
    FLOAT_BITS,
    answer_flops,
    bit_operations,
    head_token_flops,
    linear_flops,
    whole_flops,
)
from ziggurat.encoder.folder import DEFERRAL, EXTRAS, MANIFEST, TOKENIZER, Manifest
from ziggurat.encoder.model_files import ModelFiles, read_tiers
from ziggurat.encoder.spec import EncoderSpec
from ziggurat.engine.backend import Backend, Outcomes
from ziggurat.engine.backends.small import SmallBackend
from ziggurat.errors import UserError, install
from ziggurat.policies.prune import PREDICTED, TokenRule
from ziggurat.policies.rules import ExitRule
from ziggurat.small.folder import SEGMENTS, small_of
from ziggurat.system import cached_property
from ziggurat.types import Rung

SMALL_BATCH = 1024  # texts per call of a small model: its calls are short, so overhead counts, and its states are small
ENGINES = ("auto", "native", "torch")
DTYPES = {"native": ("float32", "bfloat16", "int8"), "torch": ("float32", "bfloat16")}


@dataclass(frozen=True, eq=False)
class Tier(ABC):
    """A model that is open."""

    backend: Backend
    manifest: Manifest
    tokenizer: TextTokenizer

    @property
    def n_rungs(self) -> int:
        """Number of rungs, at which it can answer."""
        return len(self.backend.rung_layers)

    @property
    def columns(self) -> int:
        """Number of its columns in `Outcomes.token_counts`."""
        return self.backend.n_layers + 1

    @property
    @abstractmethod
    def depths(self) -> np.ndarray:
        """The share of the tier that has run at each rung, (n_rungs) float64."""

    @abstractmethod
    def rungs(self, index: int | None = None) -> tuple[Rung, ...]:
        """Its rungs from cheap to expensive. `index` counts the tiers of a cascade; None = the last or only one."""

    def batch_size(self, wanted: int) -> int:
        """Sequences per batch where `wanted` are requested. UserError for less than one."""
        if wanted < 1:
            raise UserError(f"batch size {wanted}: must be at least 1")
        return wanted

    def batches(self, encoded: Encoded, wanted: int) -> Iterator[np.ndarray]:
        """Indices of the inputs of each batch; inputs of similar length share a batch."""
        counts = None if encoded.owners is None else np.diff(encoded.edges)
        return by_length(encoded.longest, self.batch_size(wanted), counts)

    @abstractmethod
    def flops(
        self, token_counts: np.ndarray, lengths: np.ndarray, active: Sequence[bool], tokens: TokenRule | None
    ) -> np.ndarray:
        """FLOPs of exiting at each of its rungs, (s, n_rungs) int64, from its columns of `token_counts`, the tokens
        before pruning (s), and its active rungs.
        """

    @abstractmethod
    def full_flops(self, lengths: np.ndarray) -> np.ndarray:
        """FLOPs of all its layers without exits: lengths (s) → (s) int64."""

    @abstractmethod
    def bit_operations(
        self, token_counts: np.ndarray, lengths: np.ndarray, active: Sequence[bool], tokens: TokenRule | None
    ) -> int:
        """Bit operations for all sequences (s) that it read: INT8 as INT8, the rest as FP16 (LTP 4.6). See `flops`."""


@dataclass(frozen=True, eq=False)
class EncoderTier(Tier):
    """An encoder with exits."""

    spec: EncoderSpec
    deferral: np.ndarray | None = None  # of the ladder, see `policies.rules.ExitRule`; saved with a cascade's last tier

    @property
    def depths(self) -> np.ndarray:
        """Number of layers that have run, over the number of all layers."""
        return np.array(self.backend.rung_layers) / self.backend.n_layers

    def rungs(self, index: int | None = None) -> tuple[Rung, ...]:
        """A rung for each exit and for the full model."""
        name = "" if index is None else f"tier {index + 1}"
        return tuple(Rung(layer, name) for layer in self.backend.rung_layers)

    def flops(
        self, token_counts: np.ndarray, lengths: np.ndarray, active: Sequence[bool], tokens: TokenRule | None
    ) -> np.ndarray:
        """FLOPs of layers, heads and predicted pruning scores."""
        spec, manifest, layers, guessed = self.spec, self.manifest, self.backend.rung_layers, None
        if tokens is not None and tokens.score == PREDICTED:
            guessed = [tokens.prunes(layer) for layer in range(1, spec.layers + 1)]
        return answer_flops(
            spec, manifest.head_kind, len(manifest.labels), lengths, token_counts, layers, active, guessed
        )

    def full_flops(self, lengths: np.ndarray) -> np.ndarray:
        """FLOPs of all layers and the last head."""
        return whole_flops(self.spec, self.manifest.head_kind, len(self.manifest.labels), lengths)

    def bit_operations(
        self, token_counts: np.ndarray, lengths: np.ndarray, active: Sequence[bool], tokens: TokenRule | None
    ) -> int:
        """Bit operations of layers, heads and predicted pruning scores."""
        spec, layers = self.spec, self.backend.rung_layers
        ran = token_counts[:, 1:] > 0
        rungs = np.searchsorted(layers, ran.sum(axis=1))
        total = self.flops(token_counts, lengths, active, tokens)[np.arange(len(token_counts)), rungs]
        linear = int((linear_flops(spec, token_counts[:, :-1], token_counts[:, 1:]) * ran).sum())
        heads = [layer for layer, yes in zip(layers, active, strict=True) if yes and layer < spec.layers]
        linear += sum(
            int(head_token_flops(self.manifest.head_kind, spec, token_counts[:, layer]).sum()) for layer in heads
        )
        bits = 8 if self.manifest.int8 or self.backend.dtype == "int8" else FLOAT_BITS
        rest = int(total.sum()) - linear
        return bit_operations(linear, bits, bits) + bit_operations(rest, FLOAT_BITS, FLOAT_BITS)


@dataclass(frozen=True, eq=False)
class SmallTier(Tier):
    """A model without layers, with a single rung."""

    cost: Callable[[np.ndarray], np.ndarray]  # FLOPs per text: lengths (n) → (n) int64

    @property
    def depths(self) -> np.ndarray:
        """1: at its rung the whole model has run."""
        return np.ones(1)

    def rungs(self, index: int | None = None) -> tuple[Rung, ...]:
        """Its single rung, named after the kind of model."""
        return (Rung(0, self.manifest.kind),)

    def batch_size(self, wanted: int) -> int:
        """1 where 1 is wanted, otherwise `SMALL_BATCH`: small models are fastest in large batches."""
        return SMALL_BATCH if super().batch_size(wanted) > 1 else 1

    def flops(
        self, token_counts: np.ndarray, lengths: np.ndarray, active: Sequence[bool], tokens: TokenRule | None
    ) -> np.ndarray:
        """FLOPs for the tokens that it read."""
        return self.cost(token_counts[:, 0])[:, None]

    def full_flops(self, lengths: np.ndarray) -> np.ndarray:
        """FLOPs for texts of these lengths."""
        return self.cost(lengths)

    def bit_operations(
        self, token_counts: np.ndarray, lengths: np.ndarray, active: Sequence[bool], tokens: TokenRule | None
    ) -> int:
        """Bit operations in FP16."""
        return bit_operations(int(self.cost(token_counts[:, 0]).sum()), FLOAT_BITS, FLOAT_BITS)


@dataclass(frozen=True, eq=False)
class TierSlice:
    """A tier and its place in the ladder."""

    tier: Tier
    rungs: slice  # its rungs among those of the ladder
    columns: slice  # its columns of `Outcomes.token_counts`
    last: bool  # the last tier: its tokenizer and pruning are used for the whole model

    def last_active(self, active: Sequence[bool]) -> int | None:
        """Its last active rung, counted from its first, by the flags of all rungs; None = it does not run."""
        first, stop = self.rungs.start, self.rungs.stop
        return next((rung - first for rung in range(stop - 1, first - 1, -1) if active[rung]), None)

    def pruning(self, tokens: TokenRule | None) -> TokenRule | None:
        """Its pruning under a rule with pruning `tokens`: tiers before the last prune as they were trained."""
        return tokens if self.last else self.tier.backend.token_rule


class Ladder:
    """Tiers from cheap to expensive: those of a cascade, or a single model."""

    def __init__(self, tiers: Sequence[Tier]) -> None:
        self.tiers = tuple(tiers)
        rungs = [0, *accumulate(tier.n_rungs for tier in tiers)]
        columns = [0, *accumulate(tier.columns for tier in tiers)]
        self.slices = tuple(
            TierSlice(tier, slice(*rungs[index : index + 2]), slice(*columns[index : index + 2]), tier is tiers[-1])
            for index, tier in enumerate(tiers)
        )
        self.n_rungs, self.columns = rungs[-1], columns[-1]

    @cached_property
    def rungs(self) -> tuple[Rung, ...]:
        """All rungs from cheap to expensive; the last is the full model."""
        before = (tier.rungs(index) for index, tier in enumerate(self.tiers[:-1]))
        return tuple(chain(*before, self.tiers[-1].rungs()))

    def check_rule(self, rule: ExitRule, n_inputs: int) -> None:
        """UserError for a rule with another number of rungs, or with thresholds for another number of inputs."""
        limits = rule.thresholds
        if limits.shape[-1] != self.n_rungs - 1:
            raise UserError(f"exit rule: {limits.shape[-1]} thresholds, the model needs {self.n_rungs - 1}")
        if limits.ndim == 2 and len(limits) != n_inputs:
            raise UserError(f"exit rule: thresholds for {len(limits)} inputs, but there are {n_inputs}")

    def no_outcomes(self, n_inputs: int, n_sequences: int) -> Outcomes:
        """Outcomes of inputs without answers, to be filled in."""
        backend = self.tiers[-1].backend
        return Outcomes(
            np.full((n_inputs, backend.width), np.nan, dtype=backend.reading_dtype),
            np.full(n_inputs, -1, dtype=np.int64),
            np.zeros(n_inputs),
            np.zeros((n_sequences, self.columns), dtype=np.int64),
        )

    def inputs_of(self, tier: Tier, encoded: Encoded) -> Encoded:
        """The same inputs in a tier's tokens; `encoded` comes from the last tier's tokenizer."""
        if tier.tokenizer is self.tiers[-1].tokenizer:
            return encoded
        if encoded.texts is None or encoded.owners is not None:
            raise ValueError("a tier with a tokenizer of its own needs the texts; encode them with the classifier")
        return tier.tokenizer.encode(encoded.texts, encoded.pairs)

    def flops(
        self, token_counts: np.ndarray, lengths: np.ndarray, active: Sequence[bool], tokens: TokenRule | None
    ) -> np.ndarray:
        """FLOPs of exiting at each rung, (s, n_rungs) int64, from `Outcomes.token_counts`, of all tiers that ran.

        `lengths` (s) are all tokens of the sequences, `active` are the rule's active rungs, `tokens` is its pruning.
        """
        before: np.ndarray = np.zeros((len(token_counts), 1), dtype=np.int64)
        costs = []
        for part in self.slices:
            flops = part.tier.flops(token_counts[:, part.columns], lengths, active[part.rungs], part.pruning(tokens))
            costs.append(before + flops)
            last = part.last_active(active)
            if last is not None:  # inputs that continue have run up to this rung
                before = costs[-1][:, [last]]
        return np.concatenate(costs, axis=1)


def open_tiers(
    folder: Path, manifest: Manifest, device: str, dtype: str, threads: int | None, engine: str
) -> tuple[Tier, ...]:
    """The models of a folder from cheap to expensive; equal tokenizers are a single object.

    `manifest` is the folder's, read before; UserError if the folder has changed since then.
    """
    refuse_unknown(engine, device, dtype, threads)  # also for small models, which ignore these options: catches typos
    made: dict[tuple[str, int], TextTokenizer] = {}
    tiers: list[Tier] = []
    for model in read_tiers(folder, manifest):
        tier = model.manifest
        key = tier.files[TOKENIZER], tier.max_length
        opened = TextTokenizer(model.folder, tier.max_length, model.tokenizer)  # checks the folder's other files, too
        tokenizer = made.setdefault(key, opened)
        if model.spec is not None:
            _refuse_other_ids(model.folder, tokenizer, model.spec.vocabulary, model.spec.segments)
            backend = open_backend(model, engine, device, dtype, threads)
            tiers.append(EncoderTier(backend, tier, tokenizer, model.spec, model.extras.tensors.get(DEFERRAL)))
        else:
            small = small_of(model)
            _refuse_other_ids(model.folder, tokenizer, small.n_ids, SEGMENTS)
            tiers.append(SmallTier(SmallBackend(small), tier, tokenizer, small.flops))
        _refuse_other_outputs(model.folder, tiers[-1])
    _refuse_other_reading(folder, tiers)
    _refuse_other_score(folder, tiers)
    return tuple(tiers)


def _refuse_other_ids(folder: Path, tokenizer: TextTokenizer, entries: int, segments: int) -> None:
    """UserError for a tokenizer with ids beyond the model's embeddings; a single segment needs no id."""
    tokenizer.check_fit(entries)
    frames = [tokenizer.frame(sides) for sides in (1, 2)]
    special = np.concatenate([block for frame in frames for block in frame.blocks]).max(axis=0)
    segment = max(special[1], *(max(frame.segments) for frame in frames))
    for kind, largest, n in (("special tokens", special[0], entries), ("segments", segment, segments)):
        if largest >= n > 1:
            raise UserError(
                f"{folder / TOKENIZER}: the tokenizer has {kind} up to {largest}, the model only {n}: it is another "
                "model's; copy the one that the checkpoint was trained with"
            )


def _refuse_other_outputs(folder: Path, tier: Tier) -> None:
    """UserError if the number of labels differs from the outputs of the weights: answers would get wrong names."""
    names, outputs = len(tier.manifest.labels), tier.backend.n_classes
    if names != outputs:
        raise UserError(
            f"{folder / MANIFEST}: names {names} labels, the weights have {outputs} outputs; copy the folder again"
        )


def _refuse_other_reading(folder: Path, tiers: Sequence[Tier]) -> None:
    """UserError if the tiers of a cascade differ in their problem, or tiers that answer questions in their windows."""
    last = tiers[-1]
    for tier in tiers[:-1]:
        if tier.manifest.problem_type != last.manifest.problem_type:
            raise UserError(
                f"{folder}: a tier answers {tier.manifest.problem_type}, the last {last.manifest.problem_type}"
            )
        if last.manifest.problem.reader is not None and tier.tokenizer is not last.tokenizer:
            raise UserError(f"{folder}: its tiers read questions with other tokenizers; give models of one vocabulary")


def _refuse_other_score(folder: Path, tiers: Sequence[Tier]) -> None:
    """UserError if the learned exit score was fitted to another ladder."""
    last, backend = tiers[-1], tiers[-1].backend
    weights = last.deferral if isinstance(last, EncoderTier) else None
    wanted = sum(tier.n_rungs for tier in tiers) - 1, 4 + backend.n_classes
    if weights is not None and (weights.shape != wanted or not np.isfinite(weights).all()):
        raise UserError(f"{folder / EXTRAS}: {DEFERRAL} is no score of this model; copy the folder again")


def refuse_unknown(engine: str, device: str, dtype: str, threads: int | None = None) -> None:
    """UserError for options that are invalid for all models."""
    options = ((engine, ENGINES, "backend"), (device, DEVICES, "device"), (dtype, DTYPES["native"], "dtype"))
    for value, known, option in options:
        if value not in known:
            raise UserError(f"{option} {value!r} is not known; known: {', '.join(known)}")
    if threads is not None and threads < 1:
        raise UserError(f"threads {threads}: must be at least 1")


def choose_engine(engine: str = "auto", device: str = "auto", dtype: str = "float32") -> str:
    """`native` or `torch`. UserError for an unknown option, a missing engine, or one without this dtype or device."""
    refuse_unknown(engine, device, dtype)
    chosen = engine if engine != "auto" else _fitting(device, dtype)
    if chosen == "native" and device == "cuda":
        raise UserError("device 'cuda': the compiled engine runs on CPUs; use --backend torch")
    if chosen == "native" and (reason := native.why_missing()):
        raise UserError(f"no compiled engine: {reason}")
    if dtype not in DTYPES[chosen]:
        reason = native.why_missing() or "drop --backend and --device"
        raise UserError(f"dtype {dtype!r} needs the compiled engine ({reason}); or use float32")
    if chosen == "torch" and not _has_torch():
        reason = native.why_missing()
        other = f" ({reason})" if reason else ", or drop --backend and --device"
        raise UserError(f"no engine: torch is not installed; {install('torch')}{other}")
    return chosen


def _fitting(device: str, dtype: str) -> str:
    """Torch on GPUs; on CPUs the compiled engine, which is faster, unless it is missing."""
    gpu = device == "cuda" or (device == "auto" and dtype != "int8" and _sees_gpu())
    return "torch" if gpu or native.why_missing() else "native"


def _sees_gpu() -> bool:
    """Whether torch finds a GPU. Importing torch takes seconds, so machines without a driver skip it."""
    if not any(Path("/dev", name).exists() for name in ("nvidia0", "dxg", "kfd")) or not _has_torch():
        return False
    import torch

    return bool(torch.cuda.is_available())


def _has_torch() -> bool:
    return importlib.util.find_spec("torch") is not None


def open_backend(model: ModelFiles, engine: str, device: str, dtype: str, threads: int | None) -> Backend:
    """The backend for the files of a model folder; UserError if they do not fit together."""
    if choose_engine(engine, device, dtype) == "native":
        from ziggurat.engine.backends import native as native_backend

        return native_backend.backend_of(model, dtype, threads)
    from ziggurat.engine.backends import torch as torch_backend

    return torch_backend.backend_of(model, device, dtype, threads)
