"""Describes a model folder without loading its weights, and the engine that would run it here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ziggurat import native
from ziggurat.contents import file_digest
from ziggurat.encoder.flops import whole_flops
from ziggurat.encoder.folder import (
    CONFIG,
    ENCODER,
    LABEL_RANGE,
    MANIFEST,
    WEIGHTS,
    Manifest,
    missing_file,
    read_manifest,
    refuse_others,
    spec_of,
    tier_folders,
)
from ziggurat.encoder.hub import local_folder
from ziggurat.engine.tiers import DTYPES, choose_engine
from ziggurat.errors import UserError
from ziggurat.recipe import PruningConfig, SpanConfig
from ziggurat.system import json_values
from ziggurat.types import Label, OperatingPoint

_TYPICAL_LENGTH = 64  # tokens, for a FLOPs figure that needs no data


@dataclass(frozen=True)
class Architecture:
    """The shape of one tier."""

    architecture: str  # model type of an encoder, else the kind of the small model
    layers: int  # 0 for a small model
    hidden: int | None  # width of a layer; None = no layers
    gflops_at_64_tokens: float | None  # of one text at full depth; None = no layers


@dataclass(frozen=True)
class Heads:
    """Exit heads."""

    kind: str
    after_layers: tuple[int, ...]  # numbers of layers, from 1


@dataclass(frozen=True)
class EngineHere:
    """The engine that runs a model on this machine by default."""

    name: str | None  # "native" or "torch"; None = none is available
    instructions: tuple[str, ...]  # instruction sets that the compiled engine can use here, best first
    dtypes: tuple[str, ...]
    why_not_native: str | None  # None = the compiled engine is available


@dataclass(frozen=True)
class Information:
    """A description of a model folder."""

    model: Path  # the folder
    architecture: Architecture  # of the model, or of a cascade's last tier
    tiers: tuple[Architecture, ...]  # of a cascade, those before the last, from cheap to expensive
    problem: str
    labels: tuple[Label, ...]
    spans: SpanConfig | None  # how questions are read; None = the model answers no questions
    no_answer: tuple[float, ...] | None  # offset of the score of no answer, by rung; None = there always is an answer
    label_range: tuple[float, float] | None  # range of labels of a regression, by which losses are scaled
    unit: str  # of losses
    pairs: bool  # whether inputs are pairs of texts
    max_length: int  # tokens
    heads: Heads
    pruning: PruningConfig | None
    int8: bool  # whether its layers were trained for INT8
    operating_points: tuple[OperatingPoint, ...]
    fingerprint: str  # of its weights
    training: Mapping[str, Any]  # JSON values that training wrote to the folder
    format: str  # its main files
    engine: EngineHere

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        values = json_values(self)
        return {**values.pop("architecture"), **values}


def information(model: str) -> Information:
    """Architecture, labels, heads, operating points and origin of a model folder.

    Needs no weights. UserError if the manifest or the configuration was changed after it was written.
    """
    folder = local_folder(model)
    manifest = read_manifest(folder)
    label_range = manifest.training.get(LABEL_RANGE)
    return Information(
        model=folder,
        architecture=_architecture(folder, manifest),
        tiers=tuple(_architecture(tier, read_manifest(tier)) for tier in tier_folders(folder, manifest)),
        problem=str(manifest.problem_type),
        labels=manifest.labels,
        spans=manifest.spans,
        no_answer=manifest.no_answer,
        label_range=None if label_range is None else tuple(label_range),
        unit=manifest.problem.unit,
        pairs=manifest.pairs,
        max_length=manifest.max_length,
        heads=Heads(manifest.head_kind, tuple(manifest.head_layers)),
        pruning=manifest.pruning,
        int8=manifest.int8,
        operating_points=manifest.operating_points,
        fingerprint=manifest.fingerprint,
        training=manifest.training,
        format=f"{MANIFEST} + {CONFIG if manifest.kind == ENCODER else WEIGHTS}",
        engine=_engine(),
    )


def _architecture(folder: Path, manifest: Manifest) -> Architecture:
    """The shape of one tier; a small model has no layers, and almost no cost."""
    if manifest.kind == ENCODER and manifest.files:
        digest = file_digest(folder / CONFIG, missing_file(folder, CONFIG))
        refuse_others(folder, {CONFIG: manifest.files.get(CONFIG, "")}, {CONFIG: digest})
    spec = spec_of(folder, manifest)
    if spec is None:
        return Architecture(manifest.kind, 0, None, None)
    length = np.array([_TYPICAL_LENGTH])
    flops = whole_flops(spec, manifest.head_kind, len(manifest.labels), length)[0]
    return Architecture(spec.model_type, spec.layers, spec.hidden, float(flops / 1e9))


def _engine() -> EngineHere:
    missing = native.why_missing()
    chosen: str | None
    try:
        chosen = choose_engine()
    except UserError:
        chosen = None
    sets = tuple(native.instructions()) if missing is None else ()
    return EngineHere(chosen, sets, tuple(DTYPES.get(chosen or "", ())), missing)
