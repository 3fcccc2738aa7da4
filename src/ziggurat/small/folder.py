"""Folders of small models (models without layers): a `ziggurat.json`, weights, a tokenizer."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from ziggurat.encoder import folder as layout
from ziggurat.encoder.folder import Manifest
from ziggurat.encoder.model_files import ModelFiles
from ziggurat.encoder.tokenizer_files import copy_tokenizer
from ziggurat.encoder.weights import TensorFile
from ziggurat.errors import UserError, brief
from ziggurat.files import whole_folder
from ziggurat.small.bilstm import BilstmTier, bilstm_tier_of
from ziggurat.small.static import StaticTier, static_tier_of

SmallTier = StaticTier | BilstmTier
_MAKERS: Mapping[str, Callable[[TensorFile, Path], SmallTier]] = {"static": static_tier_of, "bilstm": bilstm_tier_of}
KINDS = tuple(_MAKERS)
SEGMENTS = 2  # number of segment ids that small models support


def small_of(model: ModelFiles) -> SmallTier:
    """The small model of a folder; UserError if its kind is unknown, or its weights are invalid."""
    folder, kind = model.folder, model.manifest.kind
    if kind not in _MAKERS:
        raise UserError(f"{folder}: kind {brief(kind)} is not known; known: {', '.join(KINDS)}; upgrade ziggurat")
    return _MAKERS[kind](model.weights, folder / layout.WEIGHTS)


def save_small(tier: SmallTier, manifest: Manifest, trained_rows: np.ndarray, source: Path, out: Path) -> Manifest:
    """Writes a small model's folder at `out`, with the tokenizer of folder `source`; returns its manifest.

    `trained_rows` (n) are content hashes of all rows that were used to train it or its teacher, or for any choice.
    """
    with whole_folder(out) as made:
        tier.save(made / layout.WEIGHTS)
        save_file({layout.TRAINED_ROWS: np.sort(trained_rows.view(np.int64))}, made / layout.EXTRAS)
        copy_tokenizer(source, made, manifest.max_length)
        return layout.seal(made, dataclasses.replace(manifest, files={}))
