"""`info`: what a model folder is and where it may run."""

from __future__ import annotations

import dataclasses
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
from ziggurat.engine.choice import DTYPES, choose_engine
from ziggurat.errors import UserError

_TYPICAL_LENGTH = 64  # tokens, for a FLOPs figure that needs no data


def info(model: str) -> dict[str, Any]:
    """Architecture, labels, heads, operating points and origin of a model folder.

    Needs no weights. UserError if the manifest or the configuration is not as it was written.
    """
    folder = local_folder(model)
    manifest = read_manifest(folder)
    return {
        "model": str(folder),
        **_architecture(folder, manifest),
        "tiers": [_architecture(tier, read_manifest(tier)) for tier in tier_folders(folder, manifest)],
        "problem": str(manifest.problem_type),
        "labels": list(manifest.labels),
        "spans": None if manifest.spans is None else dataclasses.asdict(manifest.spans),
        "no_answer": None if manifest.no_answer is None else list(manifest.no_answer),
        "label_range": manifest.training.get(LABEL_RANGE),
        "unit": manifest.problem.unit,
        "pairs": manifest.pairs,
        "max_length": manifest.max_length,
        "heads": {"kind": manifest.head_kind, "after_layers": list(manifest.head_layers)},
        "pruning": None if manifest.pruning is None else dataclasses.asdict(manifest.pruning),
        "int8": manifest.int8,
        "operating_points": [point.to_dict() for point in manifest.operating_points],
        "fingerprint": manifest.fingerprint,
        "training": dict(manifest.training),
        "format": f"{MANIFEST} + {CONFIG if manifest.kind == ENCODER else WEIGHTS}",
        "engine": _engine(),
    }


def _architecture(folder: Path, manifest: Manifest) -> dict[str, Any]:
    """Of one tier; a small model has no layers, and costs next to nothing."""
    if manifest.kind == ENCODER and manifest.files:
        digest = file_digest(folder / CONFIG, missing_file(folder, CONFIG))
        refuse_others(folder, {CONFIG: manifest.files.get(CONFIG, "")}, {CONFIG: digest})
    spec = spec_of(folder, manifest)
    if spec is None:
        return {"architecture": manifest.kind, "layers": 0, "hidden": None, "gflops_at_64_tokens": None}
    length = np.array([_TYPICAL_LENGTH])
    flops = whole_flops(spec, manifest.head_kind, len(manifest.labels), length)[0]
    return {
        "architecture": spec.model_type,
        "layers": spec.layers,
        "hidden": spec.hidden,
        "gflops_at_64_tokens": float(flops / 1e9),
    }


def _engine() -> dict[str, Any]:
    """What would run a model here, by default."""
    missing = native.why_missing()
    chosen: str | None
    try:
        chosen = choose_engine()
    except UserError:
        chosen = None
    return {
        "name": chosen,
        "instructions": list(native.core().instructions()) if missing is None else [],
        "dtypes": list(DTYPES.get(chosen or "", ())),
        "why_not_native": missing,
    }
