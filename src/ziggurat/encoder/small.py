"""Folders of small models, which answer from token ids without layers: a `ziggurat.json`, weights, a tokenizer."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from ziggurat.encoder import folder as layout
from ziggurat.encoder.bilstm_tier import BilstmTier, load_bilstm_tier
from ziggurat.encoder.folder import Manifest
from ziggurat.encoder.static_tier import StaticTier, load_static_tier
from ziggurat.errors import UserError
from ziggurat.files import whole_folder

SmallTier = StaticTier | BilstmTier
_LOADERS: Mapping[str, Callable[[Path], SmallTier]] = {"static": load_static_tier, "bilstm": load_bilstm_tier}
KINDS = tuple(_LOADERS)


def load_small(folder: Path, kind: str) -> SmallTier:
    """The weights of a small model of this kind; UserError if they are missing, broken or newer."""
    if kind not in _LOADERS:
        raise UserError(f"{folder}: kind {kind!r} is not known; known: {', '.join(KINDS)}; upgrade ziggurat")
    return _LOADERS[kind](folder / layout.WEIGHTS)


def save_small(tier: SmallTier, manifest: Manifest, trained_rows: np.ndarray, source: Path, out: Path) -> Manifest:
    """Writes a small model's folder at `out`, the tokenizer taken from the folder `source`; returns its manifest.

    `trained_rows` (n) are the content hashes of all rows that trained it, its teacher, or chose anything for them.
    """
    with whole_folder(out) as made:
        tier.save(made / layout.WEIGHTS)
        save_file({layout.TRAINED_ROWS: np.sort(trained_rows.view(np.int64))}, made / layout.EXTRAS)
        layout.copy_files(source, made, [layout.TOKENIZER])
        manifest = dataclasses.replace(manifest, fingerprint=layout.fingerprint(made, manifest))
        layout.write_manifest(manifest, made)
    return manifest
