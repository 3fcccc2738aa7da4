"""The model folder: an ordinary Hugging Face folder plus `ziggurat.json` and `ziggurat.safetensors`. No torch."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from ziggurat.config import from_mapping
from ziggurat.encoder.spec import read_spec
from ziggurat.errors import UserError
from ziggurat.files import whole_file, whole_folder
from ziggurat.legible import json_text
from ziggurat.recipe import PruningConfig, SpanConfig
from ziggurat.types import FULL, Label, OperatingPoint, Problem

FORMAT_VERSION = 1
MANIFEST = "ziggurat.json"
CONFIG = "config.json"
WEIGHTS = "model.safetensors"  # the Hugging Face tensors, loadable by plain transformers
TOKENIZER = "tokenizer.json"
TIERS = "tiers"  # sub-folder of a cascade
ENCODER = "encoder"  # kind of a model with layers; the others are in ziggurat.encoder.small
# Only the first is read here; the others are for transformers, of any version.
TOKENIZER_FILES = (
    *(TOKENIZER, "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.txt", "vocab.json", "merges.txt", "sentencepiece.bpe.model", "spiece.model"),
)
EXTRAS = "ziggurat.safetensors"  # exit heads, pruning, and the hashes of the rows that were trained on
HEAD_PREFIX = "exits."
PRUNING_PREFIX = "pruning."
PRUNING_VALUES = "pruning.values"  # (L) float32, the rule's number for each layer
REFERENCE = "regular_accuracy"  # in `training`: of the plain fine-tuned model, on the select rows
PRUNED = "pruned_accuracy"  # in `training`: the same, of the last rung while it prunes as it was trained to
TRIALS = "trials"  # in `training`: what of the recipe's pruning was tried and taken back, see train.trials
LABEL_RANGE = "label_range"  # in `training`: of a regression, the least and largest label
DEFERRAL = "defer.weights"
TRAINED_ROWS = "data.trained_rows"  # (n) int64, sorted


@dataclass(frozen=True)
class Manifest:
    """What `ziggurat.json` says beside the Hugging Face files."""

    labels: tuple[Label, ...]  # what class 0, 1, … is called in the user's data
    pairs: bool  # inputs are pairs of texts
    max_length: int  # tokens that are read of an input, special tokens included
    head_kind: str  # preset of ziggurat.encoder.heads
    head_layers: tuple[int, ...]  # layers (1 … L - 1) after which a head stands
    fingerprint: str  # of all that changes an answer, see `fingerprint`
    operating_points: tuple[OperatingPoint, ...] = ()
    training: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # recipe, data and roles that made it
    int8: bool = False  # the layers' linear maps answer in INT8, simulated where the engine computes with floats
    pruning: PruningConfig | None = None  # which tokens leave on the way; its numbers are in EXTRAS
    kind: str = ENCODER  # or a small model without layers: static, bilstm
    tiers: tuple[str, ...] = ()  # sub-folders of the models that are asked first, from cheap to dear; none = no cascade
    problem_type: str = Problem.SINGLE_LABEL  # a ziggurat.types.Problem
    spans: SpanConfig | None = None  # how questions are read and answered; None = a classifier
    no_answer: tuple[float, ...] | None = None  # of questions, see `answers.Decoder`; None = there always is an answer

    @property
    def answers_spans(self) -> bool:
        """Whether answers are spans of a text, and not labels."""
        return self.problem_type == Problem.QUESTION_ANSWERING

    def operating_point(self, name: str) -> OperatingPoint:
        """The point of this name; UserError lists those that exist."""
        for point in self.operating_points:
            if point.name == name:
                return point
        known = ", ".join((FULL, *(point.name for point in self.operating_points)))
        more = "" if self.operating_points else "; make more with `ziggurat calibrate`"
        raise UserError(f"operating point {name!r} is not in the model; it has: {known}{more}")


def write_manifest(manifest: Manifest, folder: Path) -> None:
    """Writes `ziggurat.json`."""
    values = {"format_version": FORMAT_VERSION} | dataclasses.asdict(manifest)
    with whole_file(folder / MANIFEST) as path:
        path.write_text(json_text(values, indent=2) + "\n", "utf-8")


def read_manifest(folder: Path) -> Manifest:
    """Reads `ziggurat.json`; UserError if it is missing, broken or newer than this version."""
    path = folder / MANIFEST
    values = read_json(path, f"{folder}: no {MANIFEST}; make one from a fine-tuned checkpoint with `ziggurat adapt`")
    version = values.pop("format_version", None)
    if not isinstance(version, int):
        raise UserError(f"{path}: no format_version; train or adapt the model again")
    if version > FORMAT_VERSION:
        raise UserError(f"{path}: format_version {version} is newer than {FORMAT_VERSION}; upgrade ziggurat")
    return from_mapping(Manifest, values, where=str(path))


def files_of(model: str | Path) -> list[Path]:
    """The files that a model folder is read from, its tiers' included; none where it is no folder."""
    return [path for name in (CONFIG, MANIFEST, WEIGHTS, EXTRAS, TOKENIZER) for path in Path(model).rglob(name)]


def copy_model(folder: Path, out: Path) -> None:
    """Copies what a model is, and nothing else that lies in its folder, to the folder `out`; without first tiers."""
    out.mkdir(parents=True, exist_ok=True)
    copy_files(folder, out, (MANIFEST, CONFIG, WEIGHTS, EXTRAS, *TOKENIZER_FILES))


def copy_files(folder: Path, out: Path, names: Iterable[str]) -> None:
    """Copies those of the files that a model's folder has.

    UserError for a link out of the folder, but to a blob of the hub's cache: a copy would publish what it points to.
    """
    for path in (folder / name for name in names):
        if path.is_symlink() and not _is_of_cache(path) and not path.resolve().is_relative_to(folder.resolve()):
            raise UserError(f"{path}: is a link out of the model's folder; put the file itself there")
        if path.is_file():
            shutil.copyfile(path, out / path.name)


def _is_of_cache(link: Path) -> bool:
    """Whether a link is as the hub's cache has them: from snapshots/COMMIT/NAME to the same model's blobs."""
    snapshot = link.parent.resolve()
    return snapshot.parent.name == "snapshots" and link.resolve().parent == snapshot.parent.parent / "blobs"


def write_point(point: OperatingPoint, path: Path) -> None:
    """Writes an operating point as a file of its own."""
    with whole_file(path) as made:
        made.write_text(json.dumps(point.to_dict(), indent=2) + "\n", "utf-8")


def tier_folders(folder: Path, manifest: Manifest) -> list[Path]:
    """Where the first tiers of a cascade are, from cheap to dear; UserError if one is missing."""
    folders = [folder / name for name in manifest.tiers]
    for tier in folders:
        if not (tier / MANIFEST).is_file():
            raise UserError(f"{tier}: no {MANIFEST}; the cascade's tier is missing, copy the whole folder again")
    return folders


def read_point(path: Path) -> OperatingPoint:
    """Reads what `write_point` wrote; UserError if it is missing or broken."""
    return from_mapping(OperatingPoint, read_json(path, f"{path}: no such file"), where=str(path))


def read_json(path: Path, missing: str) -> dict[str, Any]:
    """A JSON object; UserError with the text `missing` if there is no file, or one that names it if it is broken."""
    try:
        values = json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(missing) from None
    except IsADirectoryError:
        raise UserError(f"{path}: is a folder, not a file; name the file") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid JSON ({error}); restore it from a backup or train again") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: not a JSON object; restore it from a backup or train again")
    return values


def deferral_of(folder: Path) -> np.ndarray | None:
    """Weights of the learned exit score, (n_rungs - 1, 4 + n_classes) float64, None if it was not fitted."""
    with safe_open(folder / EXTRAS, framework="numpy") as file:
        found: np.ndarray | None = file.get_tensor(DEFERRAL) if DEFERRAL in file.keys() else None  # noqa: SIM118
    return found


def trained_rows(folder: Path) -> np.ndarray:
    """Content hashes (n) uint64 of the rows that trained the model or chose anything for it."""
    with safe_open(folder / EXTRAS, framework="numpy") as file:
        rows: np.ndarray = file.get_tensor(TRAINED_ROWS)
    return rows.view(np.uint64)


def with_pruning_values(folder: Path, out: Path, values: np.ndarray, notes: Mapping[str, Any]) -> Manifest:
    """Writes `out`, the model folder `folder` with other pruning numbers (L); returns its manifest.

    `notes` are added to what the manifest says of training. Operating points are dropped: they are of other weights.
    """
    manifest = read_manifest(folder)
    tensors = load_file(folder / EXTRAS)
    if PRUNING_VALUES not in tensors or tensors[PRUNING_VALUES].shape != values.shape:
        raise UserError(f"{folder}: has no pruning of {len(values)} layers; train it with a [pruning] table")
    with whole_folder(out) as made:
        copy_model(folder, made)
        save_file(tensors | {PRUNING_VALUES: values.astype(np.float32)}, made / EXTRAS)
        training = {**manifest.training, **notes}
        manifest = dataclasses.replace(manifest, operating_points=(), training=training)
        manifest = dataclasses.replace(manifest, fingerprint=fingerprint(made, manifest))
        write_manifest(manifest, made)
    return manifest


def check_fingerprint(folder: Path, manifest: Manifest) -> None:
    """UserError if a file of the folder is not the one that the manifest was written with."""
    if fingerprint(folder, manifest) != manifest.fingerprint:
        raise UserError(f"{folder}: a file is not the one that {MANIFEST} was written with; copy the folder again")


def fingerprint(folder: Path, manifest: Manifest) -> str:
    """SHA-256 of whatever changes an answer: weights, tokenizer, architecture, heads, length of the inputs, tiers."""
    if manifest.kind == ENCODER:
        spec = read_spec(read_json(folder / CONFIG, f"{folder}: no {CONFIG}; copy the model again"))
        settings: list[Any] = [spec.settings(), manifest.max_length, manifest.head_kind]
        settings.append(list(manifest.head_layers))
    else:
        settings = [manifest.kind, manifest.max_length]
    if manifest.pruning is not None:
        # Read back as it will be: 4 in a recipe is 4.0 in the folder.
        pruning = dataclasses.asdict(from_mapping(PruningConfig, dataclasses.asdict(manifest.pruning), where=MANIFEST))
        # Where the numbers started changes nothing (they are in EXTRAS): a later key for that keeps old fingerprints.
        del pruning["first"]
        settings.append(pruning)
    if manifest.int8:
        settings.append("int8")
    if manifest.problem_type != Problem.SINGLE_LABEL:
        settings.append(manifest.problem_type)
        if LABEL_RANGE in manifest.training:  # answers are clamped to it
            settings.append([float(limit) for limit in manifest.training[LABEL_RANGE]])
    if manifest.spans is not None:
        settings += [dataclasses.asdict(manifest.spans), manifest.no_answer]
    settings += [read_manifest(tier).fingerprint for tier in tier_folders(folder, manifest)]
    digest = hashlib.sha256(json.dumps(settings).encode())
    for name in (WEIGHTS, EXTRAS, TOKENIZER):
        with (folder / name).open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
