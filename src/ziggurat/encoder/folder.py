"""The model folder: an ordinary Hugging Face folder plus `ziggurat.json` and `ziggurat.safetensors`. No torch."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import re
import shutil
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from ziggurat.config import from_mapping
from ziggurat.contents import digest_of, file_digest
from ziggurat.contents import read_json as read_json
from ziggurat.encoder.spec import EncoderSpec, read_spec
from ziggurat.encoder.weights import read_tensors
from ziggurat.errors import UserError, brief
from ziggurat.files import whole_file, whole_folder
from ziggurat.recipe import PruningConfig, SpanConfig
from ziggurat.system import json_text
from ziggurat.types import FULL, Label, OperatingPoint, Problem

FORMAT_VERSION = 2
UNSEALED_VERSION = 1  # manifests of this version have no digests
MANIFEST = "ziggurat.json"
CONFIG = "config.json"
WEIGHTS = "model.safetensors"  # tensors with Hugging Face's names, loadable by plain transformers
TOKENIZER = "tokenizer.json"
TIERS = "tiers"  # sub-folder of a cascade
ENCODER = "encoder"  # kind of a model with layers; other kinds are in ziggurat.small
# Ziggurat reads only the first; the other files are for transformers, of any version.
TOKENIZER_FILES = (
    *(TOKENIZER, "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.txt", "vocab.json", "merges.txt", "sentencepiece.bpe.model", "spiece.model"),
)
EXTRAS = "ziggurat.safetensors"  # exit heads, pruning, hashes of the training rows
HEAD_PREFIX = "exits."
PRUNING_PREFIX = "pruning."
PRUNING_VALUES = "pruning.values"  # (L) float32, the rule's value at each layer
# Keys of `training`:
REFERENCE = "regular_accuracy"  # of the plain fine-tuned model, on the select rows
PRUNED = "pruned_accuracy"  # of the last rung with pruning as trained, on the select rows
TRIALS = "trials"  # parts of the recipe's pruning that were tried and undone, see train.trials
CUT = "cut"  # number of train and select rows that were longer than the maximum length
LABEL_RANGE = "label_range"  # regression: least and largest label; losses are relative to this range
OTHER_SCALE = "other_scale"  # regression: scores are not on the scale of the labels (rerankers)
DEFERRAL = "defer.weights"
TRAINED_ROWS = "data.trained_rows"  # (n) int64, sorted


@dataclass(frozen=True)
class Manifest:
    """The content of `ziggurat.json`: everything that the Hugging Face files do not hold."""

    labels: tuple[Label, ...]  # the user's names of class 0, 1, …
    pairs: bool  # inputs are pairs of texts
    max_length: int  # inputs are cut to this many tokens, special tokens included
    head_kind: str  # preset of ziggurat.encoder.torch.heads
    head_layers: tuple[int, ...]  # layers (1 … L - 1) with an exit head
    fingerprint: str  # of everything that changes an answer, see `fingerprint_of`
    operating_points: tuple[OperatingPoint, ...] = ()
    training: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # recipe, data and splits of the training
    int8: bool = False  # linear maps of the layers are INT8; backends with floats simulate it
    pruning: PruningConfig | None = None  # token pruning; its values are in EXTRAS
    kind: str = ENCODER  # or a small model without layers: static, bilstm
    tiers: tuple[str, ...] = ()  # sub-folders of a cascade's first tiers, from cheap to expensive; empty = no cascade
    problem_type: str = Problem.SINGLE_LABEL  # a ziggurat.types.Problem
    spans: SpanConfig | None = None  # settings of question answering; None = a classifier
    no_answer: tuple[float, ...] | None = None  # per rung, offset of "no answer"; None = there always is an answer
    files: Mapping[str, str] = dataclasses.field(
        default_factory=dict
    )  # files of the folder: name → SHA-256, see `seal`

    @property
    def answers_spans(self) -> bool:
        """Whether answers are spans of a text, instead of labels."""
        return self.problem_type == Problem.QUESTION_ANSWERING

    def operating_point(self, name: str) -> OperatingPoint:
        """The operating point of this name; UserError lists the existing names."""
        for point in self.operating_points:
            if point.name == name:
                return point
        known = ", ".join((FULL, *(point.name for point in self.operating_points)))
        more = "choose one (--operating-point)" if self.operating_points else "make more with `ziggurat calibrate`"
        raise UserError(f"operating point {name!r} is not in the model; it has: {known}; {more}")


def write_manifest(manifest: Manifest, folder: Path) -> None:
    """Writes `ziggurat.json` with a digest of its content; `seal` also checks the other files."""
    values = {"format_version": FORMAT_VERSION} | json.loads(json.dumps(dataclasses.asdict(manifest)))
    values = {"digest": digest_of(values)} | values
    with whole_file(folder / MANIFEST) as path:
        path.write_text(json_text(values, indent=2) + "\n", "utf-8")


def read_manifest(folder: Path, edited: bool = False) -> Manifest:
    """Reads `ziggurat.json`; UserError if it is missing, broken, changed since it was written, or of a newer version.

    `edited` accepts a manifest that was changed by hand.
    """
    path = folder / MANIFEST
    values = read_json(path, f"{folder}: no {MANIFEST}; make one from a fine-tuned checkpoint with `ziggurat adapt`")
    version = values.get("format_version")
    if type(version) is not int or version < 1:
        raise UserError(f"{path}: no format_version; train or adapt the model again")
    if version > FORMAT_VERSION:
        raise UserError(f"{path}: format_version {brief(version)} is newer than {FORMAT_VERSION}; upgrade ziggurat")
    digest = values.pop("digest", None)
    unsealed = version <= UNSEALED_VERSION and digest is None and "files" not in values
    if not edited and not unsealed and digest != digest_of(values):
        raise UserError(f"{path}: is not as it was written; {_way_out(folder)}")
    del values["format_version"]
    manifest = from_mapping(Manifest, values, where=str(path))
    _check(manifest, path)
    return manifest


def _way_out(folder: Path) -> str:
    return f"copy the folder again, or keep what it is now, without its certificates: `ziggurat seal {folder}`"


def _check(manifest: Manifest, path: Path) -> None:
    """UserError for values that are invalid for every model."""
    if not 1 <= manifest.max_length < 2**31:
        raise UserError(f"{path}: max_length {manifest.max_length}: must be at least 1, and below 2^31")
    for name, count in Counter(map(str, manifest.labels)).items():
        if count > 1:
            raise UserError(f"{path}: labels: {brief(name)} stands for {count} classes; give each a name of its own")
    if manifest.problem_type not in list(Problem):
        known = ", ".join(Problem)
        raise UserError(f"{path}: problem_type {brief(manifest.problem_type)} is not known; known: {known}")
    if not all(re.fullmatch(rf"{TIERS}/[1-9][0-9]?", tier) for tier in manifest.tiers):
        raise UserError(f"{path}: tiers: must be {TIERS}/1, {TIERS}/2, …; make the cascade again")
    limits = manifest.training.get(LABEL_RANGE, [0.0, 1.0])
    if not (_numbers(limits) and len(limits) == 2 and limits[0] <= limits[1]):
        raise UserError(f"{path}: {LABEL_RANGE} {brief(limits)}: must be two numbers that rise; train the model again")
    if not _numbers(manifest.no_answer or ()):
        raise UserError(f"{path}: no_answer: must be finite numbers; train the model again")
    for point in manifest.operating_points:
        check_point(point, path)


def check_point(point: OperatingPoint, path: Path) -> None:
    """UserError for an operating point that is invalid for every model."""
    numbers = [*(t for t in point.thresholds if t is not None and math.isnan(t)), *(point.temperatures or ())]
    sizes = point.batch_sizes or (1,)
    if not (_numbers([*numbers, point.pruning]) and point.pruning >= 0 and min(sizes) >= 1):
        raise UserError(
            f"{path}: operating point {brief(point.name)}: a threshold, temperature, batch size or the pruning's "
            "factor is no number that can be one; calibrate again"
        )


def _numbers(values: Any) -> bool:
    """Whether `values` is a list of finite numbers."""
    return isinstance(values, Sequence) and all(type(v) in (int, float) and math.isfinite(v) for v in values)


def files_of(model: str | Path) -> list[Path]:
    """All files of a model folder and its tiers that are read; empty if it is no folder."""
    return [path for name in (CONFIG, MANIFEST, WEIGHTS, EXTRAS, TOKENIZER) for path in Path(model).rglob(name)]


def copy_model(folder: Path, out: Path) -> None:
    """Copies the files of a model to the folder `out`; without other files in its folder, and without first tiers."""
    out.mkdir(parents=True, exist_ok=True)
    copy_files(folder, out, (MANIFEST, CONFIG, WEIGHTS, EXTRAS, *TOKENIZER_FILES))


def copy_files(folder: Path, out: Path, names: Iterable[str]) -> None:
    """Copies those of the named files that exist in `folder`.

    UserError for a link out of the folder, since a copy would publish its target. Links in the hub's cache are fine.
    """
    for path in (folder / name for name in names):
        if path.is_symlink() and not _is_of_cache(path) and not path.resolve().is_relative_to(folder.resolve()):
            raise UserError(f"{path}: is a link out of the model's folder; put the file itself there")
        if path.is_file():
            shutil.copyfile(path, out / path.name)


def _is_of_cache(link: Path) -> bool:
    """Whether a link has the form of the hub's cache: from snapshots/COMMIT/NAME to the same model's blobs."""
    snapshot = link.parent.resolve()
    return snapshot.parent.name == "snapshots" and link.resolve().parent == snapshot.parent.parent / "blobs"


def write_point(point: OperatingPoint, path: Path) -> None:
    """Writes an operating point into its own file, with a digest of the content."""
    values = json.loads(json.dumps(point.to_dict()))
    with whole_file(path) as made:
        made.write_text(json_text(values | {"digest": digest_of(values)}, indent=2) + "\n", "utf-8")


def read_point(path: Path) -> OperatingPoint:
    """Reads a file of `write_point`; UserError if it is missing, broken, or changed since it was written.

    A file without a digest (written by hand or by an earlier version) must not claim a certificate.
    """
    values = read_json(path, f"{path}: no such file")
    digest = values.pop("digest", None)
    if digest is not None and digest != digest_of(values):
        raise UserError(f"{path}: is not as it was written; copy it again, or write the point anew")
    point = from_mapping(OperatingPoint, values, where=str(path))
    check_point(point, path)
    if digest is None and (point.certificate is not None or point.confidence is not None):
        raise UserError(f"{path}: has a certificate but no digest of it; write the point anew")
    return point


def tier_folders(folder: Path, manifest: Manifest) -> list[Path]:
    """Folders of a cascade's first tiers, from cheap to expensive; UserError if one is missing."""
    folders = [folder / name for name in manifest.tiers]
    for tier in folders:
        try:
            os.lstat(tier / MANIFEST)
        except (FileNotFoundError, NotADirectoryError):
            missing = f"{tier}: no {MANIFEST}; the cascade's tier is missing, copy the whole folder again"
            raise UserError(missing) from None
        except OSError:
            continue  # other errors are reported when the file is read
    return folders


def trained_rows(folder: Path) -> np.ndarray:
    """Content hashes (n) uint64 of all rows that were used for training or for any choice."""
    rows = read_tensors(folder / EXTRAS).tensors.get(TRAINED_ROWS)
    if rows is None or rows.dtype != np.int64 or rows.ndim != 1:
        raise UserError(f"{folder / EXTRAS}: has no {TRAINED_ROWS}; copy the folder again or train again")
    return rows.view(np.uint64)


def with_pruning_values(folder: Path, out: Path, values: np.ndarray, notes: Mapping[str, Any]) -> Manifest:
    """Copies the model folder `folder` to `out` with new pruning values (L); returns the manifest.

    `notes` are added to the manifest's `training`. Operating points are dropped: they belong to other weights.
    """
    manifest = read_manifest(folder)
    tensors = read_tensors(folder / EXTRAS).tensors
    if PRUNING_VALUES not in tensors or tensors[PRUNING_VALUES].shape != values.shape:
        raise UserError(f"{folder}: has no pruning of {len(values)} layers; train it with a [pruning] table")
    with whole_folder(out) as made:
        copy_model(folder, made)
        save_file(tensors | {PRUNING_VALUES: values.astype(np.float32)}, made / EXTRAS)
        training = {**manifest.training, **notes}
        return seal(made, dataclasses.replace(manifest, operating_points=(), training=training), changed=(EXTRAS,))


def seal(folder: Path, manifest: Manifest, changed: Collection[str] = ()) -> Manifest:
    """Writes the manifest with the digests of the folder's present files; returns it.

    UserError for a file whose digest differs from the manifest's, unless it is `changed` on purpose.
    """
    found = file_digests(folder, manifest)
    unchanged = {name: digest for name, digest in manifest.files.items() if name not in changed}
    refuse_others(folder, unchanged, {name: found[name] for name in unchanged if name in found})
    manifest = dataclasses.replace(manifest, files=found)
    fingerprint = fingerprint_of(manifest, spec_of(folder, manifest), found, tier_fingerprints(folder, manifest))
    manifest = dataclasses.replace(manifest, fingerprint=fingerprint)
    write_manifest(manifest, folder)
    return manifest


def check_fingerprint(folder: Path, manifest: Manifest) -> None:
    """UserError if a file of the folder has changed since the manifest was written."""
    found = file_digests(folder, manifest)
    refuse_others(folder, manifest.files, found)
    refuse_other_fingerprint(folder, manifest, spec_of(folder, manifest), found, tier_fingerprints(folder, manifest))


def refuse_others(folder: Path, stated: Mapping[str, str], found: Mapping[str, str]) -> None:
    """UserError for the first file whose digest differs from the stated one; old manifests state none."""
    for name in sorted({*stated, *found}) if stated else ():
        if stated.get(name) != found.get(name):
            raise UserError(f"{folder / name}: is not the one that {MANIFEST} was written with; {_way_out(folder)}")


def refuse_other_fingerprint(
    folder: Path, manifest: Manifest, spec: EncoderSpec | None, files: Mapping[str, str], tiers: Sequence[str]
) -> None:
    """UserError if the fingerprint differs from the manifest's."""
    if fingerprint_of(manifest, spec, files, tiers) != manifest.fingerprint:
        raise UserError(
            f"{folder}: a file or a tier is not the one that {MANIFEST} was written with; {_way_out(folder)}"
        )


def spec_of(folder: Path, manifest: Manifest) -> EncoderSpec | None:
    """The encoder's spec, from the folder's configuration; None = a small model, which has none."""
    if manifest.kind != ENCODER:
        return None
    return read_spec(read_json(folder / CONFIG, missing_file(folder, CONFIG)))


def tier_fingerprints(folder: Path, manifest: Manifest) -> list[str]:
    """Fingerprints of a cascade's first tiers."""
    return [read_manifest(tier).fingerprint for tier in tier_folders(folder, manifest)]


def missing_file(folder: Path, name: str) -> str:
    """Error message for a file that is missing in a model's folder."""
    return f"{folder}: no {name}; copy the model again"


def file_names(manifest: Manifest) -> tuple[str, ...]:
    """Files of a model's folder that answers depend on, without manifest and tiers."""
    return (*((CONFIG,) if manifest.kind == ENCODER else ()), WEIGHTS, EXTRAS, TOKENIZER)


def file_digests(folder: Path, manifest: Manifest) -> dict[str, str]:
    """SHA-256 of each file of `file_names`, by name; UserError if one is missing or cannot be read."""
    return {name: file_digest(folder / name, missing_file(folder, name)) for name in file_names(manifest)}


def fingerprint(folder: Path, manifest: Manifest) -> str:
    """`fingerprint_of` the folder's present files."""
    files, tiers = file_digests(folder, manifest), tier_fingerprints(folder, manifest)
    return fingerprint_of(manifest, spec_of(folder, manifest), files, tiers)


def fingerprint_of(manifest: Manifest, spec: EncoderSpec | None, files: Mapping[str, str], tiers: Sequence[str]) -> str:
    """SHA-256 of everything that changes an answer: weights, tokenizer, architecture, heads, maximum length, tiers.

    `files` are the digests of `file_digests`, `tiers` the fingerprints of the first tiers. Labels, operating points and
    other settings are excluded: calibration does not change the model.
    """
    if spec is not None:
        settings: list[Any] = [spec.settings(), manifest.max_length, manifest.head_kind]
        settings.append(list(manifest.head_layers))
    else:
        settings = [manifest.kind, manifest.max_length]
    if manifest.pruning is not None:
        # Converted as when it is read back: 4 in a recipe is 4.0 in the folder.
        pruning = dataclasses.asdict(from_mapping(PruningConfig, dataclasses.asdict(manifest.pruning), where=MANIFEST))
        # A starting value does not change answers (the values are in EXTRAS), and this newer key must not change old
        # fingerprints.
        del pruning["first"]
        settings.append(pruning)
    if manifest.int8:
        settings.append("int8")
    if manifest.problem_type != Problem.SINGLE_LABEL:
        settings.append(manifest.problem_type)
        if LABEL_RANGE in manifest.training:  # losses, which operating points depend on, are relative to it
            settings.append([float(limit) for limit in manifest.training[LABEL_RANGE]])
    if manifest.spans is not None:
        settings += [dataclasses.asdict(manifest.spans), manifest.no_answer]
    settings += tiers
    digest = hashlib.sha256(json.dumps(settings).encode())
    for name in (WEIGHTS, EXTRAS, TOKENIZER):
        digest.update(bytes.fromhex(files[name]))
    return digest.hexdigest()
