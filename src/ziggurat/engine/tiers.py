"""One model of a ladder: what it reads, what computes it, what its answers cost. A cascade has several."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import numpy as np

from ziggurat.data.packing import PackedBatch
from ziggurat.data.tokenizer import Encoded, TextTokenizer, pack_rows
from ziggurat.encoder.flops import answer_flops, whole_flops
from ziggurat.encoder.folder import DEFERRAL, EXTRAS, MANIFEST, TOKENIZER, Manifest
from ziggurat.encoder.model_files import read_tiers
from ziggurat.encoder.spec import EncoderSpec
from ziggurat.engine.backend import Backend
from ziggurat.engine.choice import open_backend, refuse_unknown
from ziggurat.engine.scheduler import by_length
from ziggurat.engine.small_backend import backend_of
from ziggurat.errors import UserError
from ziggurat.policies.prune import PREDICTED, TokenRule
from ziggurat.small.folder import SEGMENTS, small_of
from ziggurat.system import bar
from ziggurat.types import Rung

SMALL_BATCH = 1024  # texts per call of a small model: a call's own time counts, and its states are a few numbers


@dataclass(frozen=True, eq=False)
class Tier:
    """A model, open."""

    backend: Backend
    manifest: Manifest
    tokenizer: TextTokenizer
    spec: EncoderSpec | None  # None = a small model, without layers
    deferral: np.ndarray | None = None  # of its ladder, see `engine.rules.ExitRule`; kept with a cascade's last tier
    small_flops: Callable[[np.ndarray], np.ndarray] = np.zeros_like  # of a small model: lengths (n) → (n) int64

    @property
    def n_rungs(self) -> int:
        """Places where it can answer."""
        return len(self.backend.rung_layers)

    @property
    def columns(self) -> int:
        """How many of `Outcomes.kept` are about it."""
        return self.backend.n_layers + 1

    def rungs(self, place: int | None = None) -> tuple[Rung, ...]:
        """From cheap to dear; of the tier at this place of a cascade, None = of its last or of a model alone."""
        if self.spec is None:
            return (Rung(0, self.manifest.kind),)
        return tuple(Rung(layer, "" if place is None else f"tier {place + 1}") for layer in self.backend.rung_layers)

    def batches(self, encoded: Encoded, batch_size: int, progress: bool = False) -> Iterator[PackedBatch]:
        """Packed batches, like lengths together, with a progress bar over inputs if asked."""
        if batch_size < 1:
            raise UserError(f"batch size {batch_size}: must be at least 1")
        # One text at a time is one at a time; else a small model is fastest in large batches, whatever others need.
        size = SMALL_BATCH if self.spec is None and batch_size > 1 else batch_size
        groups = by_length(encoded.lengths, size)
        if not progress:  # not even a bar that is not shown: a call may take less than a tenth of a millisecond
            yield from (pack_rows(encoded, indices) for indices in groups)
            return
        with bar(None, len(encoded), "texts") as shown:
            for indices in groups:
                yield pack_rows(encoded, indices)
                shown.update(len(indices))

    def flops(
        self, lengths: np.ndarray, kept: np.ndarray, asked: Sequence[bool], tokens: TokenRule | None
    ) -> np.ndarray:
        """Cost of leaving at each of its rungs, (s, n_rungs) int64, from its part of `kept`; lengths (s) as encoded."""
        spec, kind = self.spec, self.manifest.head_kind
        if spec is None:
            return self.small_flops(kept[:, 0])[:, None]
        guessed = None
        if tokens is not None and tokens.score == PREDICTED:
            guessed = [tokens.prunes(layer) for layer in range(1, spec.layers + 1)]
        n_classes, layers = len(self.manifest.labels), self.backend.rung_layers
        return answer_flops(spec, kind, n_classes, lengths, kept, layers, asked, guessed)

    def full_flops(self, lengths: np.ndarray) -> np.ndarray:
        """Cost of all its layers without exits: lengths (n) → (n) int64."""
        if self.spec is None:
            return self.small_flops(lengths)
        return whole_flops(self.spec, self.manifest.head_kind, len(self.manifest.labels), lengths)


@dataclass(frozen=True, eq=False)
class Place:
    """Where a tier stands in its ladder."""

    tier: Tier
    rungs: slice  # its own among all rungs
    columns: slice  # its own of `Outcomes.kept`
    last: bool  # the last tier, whose tokenizer and pruning are the model's

    def last_asked(self, asked: Sequence[bool]) -> int | None:
        """The last of its rungs, from 0, that a rule asks (all rungs' flags); None = the tier is left out."""
        mine = np.flatnonzero(asked[self.rungs])
        return int(mine[-1]) if len(mine) else None

    def pruning(self, tokens: TokenRule | None) -> TokenRule | None:
        """What prunes in it where a rule prunes with `tokens`: tiers before the last prune as they were trained to."""
        return tokens if self.last else self.tier.backend.token_rule


def places(tiers: Sequence[Tier]) -> list[Place]:
    """All tiers' places, from cheap to dear."""
    rungs = [0, *accumulate(tier.n_rungs for tier in tiers)]
    columns = [0, *accumulate(tier.columns for tier in tiers)]
    return [
        Place(tier, slice(*rungs[place : place + 2]), slice(*columns[place : place + 2]), place == len(tiers) - 1)
        for place, tier in enumerate(tiers)
    ]


def open_tiers(
    folder: Path, manifest: Manifest, device: str, dtype: str, threads: int | None, engine: str
) -> tuple[Tier, ...]:
    """The models of a folder from cheap to dear: of a cascade several, else one. Equal tokenizers are one object.

    `manifest` is what was read of the folder; UserError if it is another one by now.
    """
    refuse_unknown(engine, device, dtype, threads)  # small models have no choice of engines, and typos are typos
    made: dict[tuple[str, int], TextTokenizer] = {}
    tiers = []
    for model in read_tiers(folder, manifest):
        mine = model.manifest
        key = mine.files[TOKENIZER], mine.max_length
        own = TextTokenizer(model.folder, mine.max_length, model.tokenizer)  # each folder's other files must agree
        tokenizer = made.setdefault(key, own)
        if model.spec is not None:
            _refuse_other_ids(model.folder, tokenizer, model.spec.vocabulary, model.spec.segments)
            backend = open_backend(model, engine, device, dtype, threads)
            tier = Tier(backend, mine, tokenizer, model.spec, model.extras.tensors.get(DEFERRAL))
        else:
            small = small_of(model)
            _refuse_other_ids(model.folder, tokenizer, small.n_ids, SEGMENTS)
            tier = Tier(backend_of(small), mine, tokenizer, None, small_flops=small.flops)
        _refuse_other_outputs(model.folder, tier)
        tiers.append(tier)
    _refuse_other_score(folder, tiers)
    return tuple(tiers)


def _refuse_other_ids(folder: Path, tokenizer: TextTokenizer, entries: int, segments: int) -> None:
    """UserError for a tokenizer that makes ids that the model has no rows for; a single segment needs no id."""
    tokenizer.check_fit(entries)
    frames = [tokenizer.frame(sides) for sides in (1, 2)]
    special = np.concatenate([block for frame in frames for block in frame.blocks]).max(axis=0)
    segment = max(special[1], *(max(frame.segments) for frame in frames))
    for what, largest, n in (("special tokens", special[0], entries), ("segments", segment, segments)):
        if largest >= n > 1:
            raise UserError(
                f"{folder / TOKENIZER}: the tokenizer has {what} up to {largest}, the model only {n}: it is another "
                "model's; copy the one that the checkpoint was trained with"
            )


def _refuse_other_outputs(folder: Path, tier: Tier) -> None:
    """UserError where a manifest does not name each output of the weights: answers would carry other names."""
    names, outputs = len(tier.manifest.labels), tier.backend.n_classes
    if names != outputs:
        raise UserError(
            f"{folder / MANIFEST}: names {names} labels, the weights have {outputs} outputs; copy the folder again"
        )


def _refuse_other_score(folder: Path, tiers: Sequence[Tier]) -> None:
    """UserError where the learned exit score was fitted to another ladder."""
    weights, backend = tiers[-1].deferral, tiers[-1].backend
    wanted = sum(tier.n_rungs for tier in tiers) - 1, 4 + backend.n_classes
    if weights is not None and (weights.shape != wanted or not np.isfinite(weights).all()):
        raise UserError(f"{folder / EXTRAS}: {DEFERRAL} is no score of this model; copy the folder again")
