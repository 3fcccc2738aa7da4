"""`cascade`: trained model folders, from cheap to dear, become one model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ziggurat.encoder.cascade import write_cascade
from ziggurat.encoder.folder import read_manifest
from ziggurat.encoder.hub import local_folder
from ziggurat.engine.classifier import AdaptiveClassifier
from ziggurat.errors import UserError


def build_cascade(models: Sequence[str], out: str | Path) -> dict[str, Any]:
    """Writes a cascade of these models into the folder `out`; returns what it is made of, as JSON values.

    It has no operating points but "full", its last tier alone, until it is calibrated. UserError for fewer than two
    models, other questions, or a folder that is not a model's.
    """
    if not models:
        raise UserError("a cascade needs at least two models, from cheap to dear; none given")
    out = Path(out)
    manifest = write_cascade([local_folder(model) for model in models], out)
    kinds = [read_manifest(out / tier).kind for tier in manifest.tiers]
    return {
        "out": str(out),
        "tiers": [*kinds, manifest.kind],
        "rungs": [rung.name for rung in AdaptiveClassifier.from_pretrained(out, "cpu").rungs],
        "labels": list(manifest.labels),
    }
