"""`info`: what a model folder is and where it may run."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from ziggurat import native
from ziggurat.encoder.flops import full_flops
from ziggurat.encoder.folder import CONFIG, MANIFEST, read_json, read_manifest
from ziggurat.encoder.hub import local_folder
from ziggurat.encoder.spec import read_spec
from ziggurat.engine.choice import DTYPES, choose_engine
from ziggurat.errors import UserError

_TYPICAL_LENGTH = 64  # tokens, for a FLOPs figure that needs no data


def info(model: str) -> dict[str, Any]:
    """Architecture, labels, heads, operating points and origin of a model folder; loads no weights."""
    folder = local_folder(model)
    manifest = read_manifest(folder)
    spec = read_spec(read_json(folder / CONFIG, f"{folder}: no {CONFIG}; copy the model again"))
    flops = full_flops(spec, len(manifest.labels), np.array([_TYPICAL_LENGTH]))[0]
    return {
        "model": str(folder),
        "architecture": spec.model_type,
        "layers": spec.layers,
        "hidden": spec.hidden,
        "labels": list(manifest.labels),
        "pairs": manifest.pairs,
        "max_length": manifest.max_length,
        "heads": {"kind": manifest.head_kind, "after_layers": list(manifest.head_layers)},
        "pruning": None if manifest.pruning is None else dataclasses.asdict(manifest.pruning),
        "int8": manifest.int8,
        "gflops_at_64_tokens": float(flops / 1e9),
        "operating_points": [point.to_dict() for point in manifest.operating_points],
        "fingerprint": manifest.fingerprint,
        "training": dict(manifest.training),
        "format": f"{MANIFEST} + {CONFIG}",
        "engine": _engine(),
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
