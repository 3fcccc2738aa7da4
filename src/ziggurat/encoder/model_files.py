"""What is read of a model's folder: each file once, and it is the one that the manifest was written with. No torch."""

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
    """All of one model, held in memory: whatever becomes of the folder, a model made of it stays what it was."""

    folder: Path  # where it was, for messages
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
    """The model of a folder, of a cascade the last tier; UserError says which file is missing, broken or another."""
    manifest = layout.read_manifest(folder)
    return _read(folder, manifest, layout.tier_fingerprints(folder, manifest))


def read_tiers(folder: Path, manifest: Manifest) -> Iterator[ModelFiles]:
    """The models of a folder from cheap to dear, of a cascade several, else one; UserError as `read_model`.

    `manifest` is what was read of the folder: its files must be those. One after the other, so that the files of one
    need not be in memory while the next is read.
    """
    before = [(tier, layout.read_manifest(tier)) for tier in layout.tier_folders(folder, manifest)]
    for tier, one in before:
        if one.labels != manifest.labels or one.pairs != manifest.pairs or one.tiers:
            raise UserError(f"{tier}: answers another question than {folder}; make the cascade again")
        yield _read(tier, one, [])
    yield _read(folder, manifest, [one.fingerprint for _, one in before])


def _read(folder: Path, manifest: Manifest, tiers: list[str]) -> ModelFiles:
    names = [name for name in layout.file_names(manifest) if name in (layout.CONFIG, layout.TOKENIZER)]
    texts = {name: read_bytes(folder / name, layout.missing_file(folder, name)) for name in names}
    found = {name: hashlib.sha256(text).hexdigest() for name, text in texts.items()}
    # What can be told apart is told apart before anything is made of it, the short files before the long ones.
    layout.refuse_others(folder, {name: digest for name, digest in manifest.files.items() if name in texts}, found)
    tensors = {}
    for name in (layout.EXTRAS, layout.WEIGHTS):
        tensors[name] = read_tensors(folder / name)
        found[name] = tensors[name].digest
    layout.refuse_others(folder, manifest.files, found)
    spec = read_spec(parse_json(texts[layout.CONFIG], folder / layout.CONFIG)) if layout.CONFIG in texts else None
    layout.refuse_other_fingerprint(folder, manifest, spec, found, tiers)
    manifest = replace(manifest, files=found)  # of an older manifest, which says nothing of single files
    if spec is not None:
        _check_fit(folder / layout.MANIFEST, manifest, spec)
    return ModelFiles(folder, manifest, spec, tensors[layout.WEIGHTS], tensors[layout.EXTRAS], texts[layout.TOKENIZER])


def _check_fit(path: Path, manifest: Manifest, spec: EncoderSpec) -> None:
    """UserError for inputs that are longer than what the encoder reads, and for heads where none can be."""
    longest = manifest.max_length if manifest.spans is None else manifest.spans.window
    if longest > spec.positions:
        raise UserError(
            f"{path}: inputs of {longest} tokens, but the encoder reads {spec.positions}; train or adapt it again"
        )
    places = manifest.head_layers
    if list(places) != sorted({place for place in places if 1 <= place < spec.layers}):
        raise UserError(f"{path}: head_layers {brief(list(places))}: must rise within 1 … {spec.layers - 1}")
    if places and not manifest.answers_spans and manifest.head_kind not in HEADS:
        known = ", ".join(HEADS)
        raise UserError(f"{path}: head kind {brief(manifest.head_kind)} is not known; known: {known}; upgrade ziggurat")


def word_embeddings(folder: Path) -> np.ndarray:
    """What a model folder's encoder knows of its vocabulary's entries, (V, d); UserError for a model without layers."""
    config = folder / layout.CONFIG
    spec = read_spec(read_json(config, f"{folder}: no {layout.CONFIG}; give a model that has layers"))
    tensors = from_hf(map_tensors(folder / layout.WEIGHTS), spec, np.concatenate)
    found: np.ndarray = tensors["encoder.embeddings.word.weight"]
    return found.astype(np.float32)
