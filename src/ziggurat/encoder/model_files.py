"""Reads a model's folder: each file once, and checked against the manifest's digest. No torch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ziggurat.contents import parse_json, read_bytes, read_json
from ziggurat.encoder import folder as layout
from ziggurat.encoder.flops import HEADS
from ziggurat.encoder.folder import Manifest
from ziggurat.encoder.spec import EncoderSpec, read_spec
from ziggurat.encoder.weights import TensorFile, from_hf, map_tensors, read_tensors
from ziggurat.errors import UserError, brief


@dataclass(frozen=True, eq=False)
class ModelFiles:
    """The content of one model folder in memory: later changes of the folder do not affect the model."""

    folder: Path  # for messages
    manifest: Manifest
    spec: EncoderSpec | None  # None = a small model, without layers
    weights: TensorFile
    extras: TensorFile
    tokenizer: bytes  # a `tokenizer.json`

    @property
    def encoder(self) -> EncoderSpec:
        """The architecture; UserError for a small model, which has none."""
        if self.spec is None:
            raise UserError(f"{self.folder}: a {self.manifest.kind} model has no layers; give an encoder or a cascade")
        return self.spec


def read_model(folder: Path) -> ModelFiles:
    """Reads the model of a folder, of a cascade the last tier; UserError for a missing, broken or changed file."""
    manifest = layout.read_manifest(folder)
    return _read(folder, manifest, layout.tier_fingerprints(folder, manifest))


def read_tiers(folder: Path, manifest: Manifest) -> Iterator[ModelFiles]:
    """Reads the tiers of a folder, from cheap to expensive; one if it is no cascade. UserError as in `read_model`.

    `manifest` is the folder's manifest; the files must match it. Tiers are yielded one by one, so that only one is in
    memory.
    """
    before = [(tier, layout.read_manifest(tier)) for tier in layout.tier_folders(folder, manifest)]
    for tier, stated in before:
        if stated.labels != manifest.labels or stated.pairs != manifest.pairs or stated.tiers:
            raise UserError(f"{tier}: its labels or inputs are not those of {folder}; make the cascade again")
        yield _read(tier, stated, [])
    yield _read(folder, manifest, [stated.fingerprint for _, stated in before])


def _read(folder: Path, manifest: Manifest, tiers: list[str]) -> ModelFiles:
    names = [name for name in layout.file_names(manifest) if name in (layout.CONFIG, layout.TOKENIZER)]
    texts = {name: read_bytes(folder / name, layout.missing_file(folder, name)) for name in names}
    found = {name: hashlib.sha256(text).hexdigest() for name, text in texts.items()}
    # Changed files are found before anything is built from them, and small files are checked first.
    layout.refuse_others(folder, {name: digest for name, digest in manifest.files.items() if name in texts}, found)
    tensors = {}
    for name in (layout.EXTRAS, layout.WEIGHTS):
        tensors[name] = read_tensors(folder / name)
        found[name] = tensors[name].digest
    layout.refuse_others(folder, manifest.files, found)
    spec = read_spec(parse_json(texts[layout.CONFIG], folder / layout.CONFIG)) if layout.CONFIG in texts else None
    layout.refuse_other_fingerprint(folder, manifest, spec, found, tiers)
    manifest = replace(manifest, files=found)  # an older manifest has no digests of single files
    if spec is not None:
        _check_fit(folder / layout.MANIFEST, manifest, spec)
    return ModelFiles(folder, manifest, spec, tensors[layout.WEIGHTS], tensors[layout.EXTRAS], texts[layout.TOKENIZER])


def _check_fit(path: Path, manifest: Manifest, spec: EncoderSpec) -> None:
    """UserError if inputs are longer than the encoder's maximum, or a head is at an impossible layer."""
    longest = manifest.max_length if manifest.spans is None else manifest.spans.window
    if longest > spec.positions:
        raise UserError(
            f"{path}: inputs of {longest} tokens, but the encoder reads {spec.positions}; train or adapt it again"
        )
    layers = manifest.head_layers
    if list(layers) != sorted({layer for layer in layers if 1 <= layer < spec.layers}):
        raise UserError(f"{path}: head_layers {brief(list(layers))}: must rise within 1 … {spec.layers - 1}")
    if layers and not manifest.answers_spans and manifest.head_kind not in HEADS:
        known = ", ".join(HEADS)
        raise UserError(f"{path}: head kind {brief(manifest.head_kind)} is not known; known: {known}; upgrade ziggurat")


def word_embeddings(folder: Path) -> np.ndarray:
    """Word embeddings (V, d) of a model folder's encoder; UserError for a model without layers."""
    config = folder / layout.CONFIG
    spec = read_spec(read_json(config, f"{folder}: no {layout.CONFIG}; give a model that has layers"))
    tensors = from_hf(map_tensors(folder / layout.WEIGHTS), spec, np.concatenate)
    found: np.ndarray = tensors["encoder.embeddings.word.weight"]
    return found.astype(np.float32)
