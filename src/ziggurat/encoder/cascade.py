"""The folder of a cascade: the model folder of its last tier, with each earlier tier in a sub-folder.

So plain transformers loads the last tier from it. Without the sub-folders it is an ordinary model folder.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from ziggurat.encoder import folder as layout
from ziggurat.encoder.folder import ENCODER, Manifest
from ziggurat.encoder.weights import read_tensors
from ziggurat.errors import UserError
from ziggurat.files import changed_folder, refuse_full_folder, whole_folder


def write_cascade(models: Sequence[Path], out: Path) -> Manifest:
    """Writes a cascade of model folders, from cheap to expensive; returns its manifest.

    A cascade among the models contributes all its tiers. Operating points are dropped: they belong to other ladders.
    UserError for fewer than two tiers, tiers with different labels or inputs, or a last tier that is no encoder.
    """
    refuse_full_folder(out)
    folders = [tier for model in models for tier in _tiers_of(model)]
    if len(folders) < 2:
        raise UserError(f"a cascade needs at least two models, from cheap to expensive; {len(folders)} given")
    manifests = [layout.read_manifest(folder) for folder in folders]
    last, last_folder = manifests[-1], folders[-1]
    for folder, manifest in zip(folders, manifests, strict=True):
        _check(folder, manifest, last_folder, last)
    rows = np.unique(np.concatenate([layout.trained_rows(folder) for folder in folders]))
    with whole_folder(out) as made:
        layout.copy_model(last_folder, made)
        names = tuple(f"{layout.TIERS}/{number}" for number in range(1, len(folders)))
        for name, folder, manifest in zip(names, folders, manifests, strict=False):
            layout.copy_model(folder, made / name)
            layout.seal(made / name, dataclasses.replace(manifest, tiers=(), operating_points=()))
        extras = read_tensors(made / layout.EXTRAS).tensors | {layout.TRAINED_ROWS: np.sort(rows.view(np.int64))}
        extras.pop(layout.DEFERRAL, None)  # fitted to another ladder
        save_file(extras, made / layout.EXTRAS)
        offsets = [offset for manifest in manifests for offset in manifest.no_answer or ()]
        cascade = dataclasses.replace(last, tiers=names, operating_points=(), no_answer=tuple(offsets) or None)
        return layout.seal(made, cascade, changed=(layout.EXTRAS,))


def copy_whole(folder: Path, out: Path, manifest: Manifest) -> None:
    """Copies a model, a cascade with its first tiers, into an empty or new folder, under this manifest of it.

    UserError where a file is not the one that the manifest was written with.
    """
    with whole_folder(out) as made:
        layout.copy_model(folder, made)
        for name in manifest.tiers:
            layout.copy_model(folder / name, made / name)
        layout.seal(made, manifest)


def with_deferral(folder: Path, weights: np.ndarray, rows: np.ndarray) -> Manifest:
    """Stores a learned exit score in a model folder, with the content hashes (n) of the rows that it was fitted to.

    Operating points are dropped: they belong to other weights. Returns the manifest.
    """
    trained = np.union1d(layout.trained_rows(folder), rows)
    extras = read_tensors(folder / layout.EXTRAS).tensors | {
        layout.DEFERRAL: weights.astype(np.float64),
        layout.TRAINED_ROWS: np.sort(trained.view(np.int64)),
    }
    with changed_folder(folder) as made:
        save_file(extras, made / layout.EXTRAS)
        manifest = dataclasses.replace(layout.read_manifest(made), operating_points=())
        return layout.seal(made, manifest, changed=(layout.EXTRAS,))


def _tiers_of(model: Path) -> list[Path]:
    """The tiers of a model in order; the model's own folder is the last."""
    return [*layout.tier_folders(model, layout.read_manifest(model)), model]


def tokenizer_of(manifest: Manifest) -> tuple[str | None, int]:
    """Which tokenizer a model has, and how long its inputs are."""
    return manifest.files.get(layout.TOKENIZER), manifest.max_length


def _check(folder: Path, manifest: Manifest, last_folder: Path, last: Manifest) -> None:
    if last.kind != ENCODER:
        raise UserError(
            f"{last_folder}: a cascade's last tier must be an encoder, not a {last.kind} model; put it first"
        )
    if manifest.problem_type != last.problem_type:
        raise UserError(
            f"{folder}: answers {manifest.problem_type}, and {last_folder} {last.problem_type}; train it on its data"
        )
    if manifest.labels != last.labels:
        labels, wanted = (", ".join(map(str, tier.labels)) for tier in (manifest, last))
        raise UserError(
            f"{folder}: its labels ({labels}) are not those of {last_folder} ({wanted}); train it on the same data"
        )
    if manifest.pairs != last.pairs:
        reads, wanted = ("pairs of texts" if tier.pairs else "single texts" for tier in (manifest, last))
        raise UserError(f"{folder}: reads {reads}, {last_folder} reads {wanted}; train it on the same data")
    if manifest.spans != last.spans or (last.spans is not None and tokenizer_of(manifest) != tokenizer_of(last)):
        raise UserError(
            f"{folder}: reads other windows than {last_folder}; give models of one tokenizer and the same [spans]"
        )
    if (manifest.no_answer is None) != (last.no_answer is None):
        raise UserError(
            f"{folder}: one of it and {last_folder} may say that there is no answer, the other never does; train both "
            "on the same data"
        )
