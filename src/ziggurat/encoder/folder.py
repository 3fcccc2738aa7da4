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
from ziggurat.problems.problem import Problem
from ziggurat.problems.registry import problem_named
from ziggurat.recipe import PruningConfig, SpanConfig
from ziggurat.system import json_text
from ziggurat.types import FULL, Label, OperatingPoint, ProblemType

FORMAT_VERSION = 2
UNSEALED_VERSION = 1  # its manifests have no digest, neither of themselves nor of the single files
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
CUT = "cut"  # in `training`: how many of the rows that trained or chose were longer than what is read of them
LABEL_RANGE = "label_range"  # in `training`: of a regression, the numbers in which losses are counted
OTHER_SCALE = "other_scale"  # in `training`: a regression's scores are no guesses of its rows' labels, as a reranker's
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
    problem_type: str = ProblemType.SINGLE_LABEL  # a ziggurat.types.ProblemType
    spans: SpanConfig | None = None  # how questions are read and answered; None = a classifier
    no_answer: tuple[float, ...] | None = None  # of questions, see `answers.Decoder`; None = there always is an answer
    files: Mapping[str, str] = dataclasses.field(default_factory=dict)  # the folder's own: name → SHA-256, see `seal`

    @property
    def problem(self) -> Problem:
        """What the model answers."""
        limits = self.training.get(LABEL_RANGE)
        return problem_named(self.problem_type, self.labels, limits, self.spans, self.no_answer)

    @property
    def answers_spans(self) -> bool:
        """Whether answers are spans of a text, and not labels."""
        return self.problem_type == ProblemType.QUESTION_ANSWERING

    def operating_point(self, name: str) -> OperatingPoint:
        """The point of this name; UserError lists those that exist."""
        for point in self.operating_points:
            if point.name == name:
                return point
        known = ", ".join((FULL, *(point.name for point in self.operating_points)))
        more = "choose one (--operating-point)" if self.operating_points else "make more with `ziggurat calibrate`"
        raise UserError(f"operating point {name!r} is not in the model; it has: {known}; {more}")


def write_manifest(manifest: Manifest, folder: Path) -> None:
    """Writes `ziggurat.json`, with a digest of all that it says; `seal` also looks at the files beside it."""
    values = {"format_version": FORMAT_VERSION} | json.loads(json.dumps(dataclasses.asdict(manifest)))
    values = {"digest": digest_of(values)} | values
    with whole_file(folder / MANIFEST) as path:
        path.write_text(json_text(values, indent=2) + "\n", "utf-8")


def read_manifest(folder: Path, edited: bool = False) -> Manifest:
    """Reads `ziggurat.json`; UserError if it is missing, broken, newer than this version, or not as it was written.

    `edited` takes what somebody has changed in it as well.
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
    """UserError for what no manifest says, whatever the weights are."""
    if not 1 <= manifest.max_length < 2**31:
        raise UserError(f"{path}: max_length {manifest.max_length}: must be at least 1, and below 2^31")
    for name, count in Counter(map(str, manifest.labels)).items():
        if count > 1:
            raise UserError(f"{path}: labels: {brief(name)} stands for {count} classes; give each a name of its own")
    if manifest.problem_type not in list(ProblemType):
        known = ", ".join(ProblemType)
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
    """UserError for an operating point that no rule stands for, whatever the model is."""
    numbers = [*(t for t in point.thresholds if t is not None and math.isnan(t)), *(point.temperatures or ())]
    sizes = point.batch_sizes or (1,)
    if not (_numbers([*numbers, point.pruning]) and point.pruning >= 0 and min(sizes) >= 1):
        raise UserError(
            f"{path}: operating point {brief(point.name)}: a threshold, temperature, batch size or the pruning's "
            "factor is no number that can be one; calibrate again"
        )


def _numbers(values: Any) -> bool:
    """Whether that is a list of finite numbers."""
    return isinstance(values, Sequence) and all(type(v) in (int, float) and math.isfinite(v) for v in values)


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
    """Writes an operating point as a file of its own, with a digest of all that it says."""
    values = json.loads(json.dumps(point.to_dict()))
    with whole_file(path) as made:
        made.write_text(json_text(values | {"digest": digest_of(values)}, indent=2) + "\n", "utf-8")


def read_point(path: Path) -> OperatingPoint:
    """Reads what `write_point` wrote; UserError if it is missing, broken, or not as it was written.

    A point without a digest, by hand or by an earlier version, may not say that something vouches for it.
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
    """Where the first tiers of a cascade are, from cheap to dear; UserError if one is missing."""
    folders = [folder / name for name in manifest.tiers]
    for tier in folders:
        try:
            os.lstat(tier / MANIFEST)
        except (FileNotFoundError, NotADirectoryError):
            missing = f"{tier}: no {MANIFEST}; the cascade's tier is missing, copy the whole folder again"
            raise UserError(missing) from None
        except OSError:
            continue  # what else is wrong is said when it is read
    return folders


def trained_rows(folder: Path) -> np.ndarray:
    """Content hashes (n) uint64 of the rows that trained the model or chose anything for it."""
    rows = read_tensors(folder / EXTRAS).tensors.get(TRAINED_ROWS)
    if rows is None or rows.dtype != np.int64 or rows.ndim != 1:
        raise UserError(f"{folder / EXTRAS}: has no {TRAINED_ROWS}; copy the folder again or train again")
    return rows.view(np.uint64)


def with_pruning_values(folder: Path, out: Path, values: np.ndarray, notes: Mapping[str, Any]) -> Manifest:
    """Writes `out`, the model folder `folder` with other pruning numbers (L); returns its manifest.

    `notes` are added to what the manifest says of training. Operating points are dropped: they are of other weights.
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
    """Writes the manifest of the files that are in the folder now, each with its digest; returns it.

    UserError for a file that the manifest knew and that is another one now, but for those `changed` on purpose.
    """
    found = file_digests(folder, manifest)
    kept = {name: digest for name, digest in manifest.files.items() if name not in changed}
    refuse_others(folder, kept, {name: found[name] for name in kept if name in found})
    manifest = dataclasses.replace(manifest, files=found)
    fingerprint = fingerprint_of(manifest, spec_of(folder, manifest), found, tier_fingerprints(folder, manifest))
    manifest = dataclasses.replace(manifest, fingerprint=fingerprint)
    write_manifest(manifest, folder)
    return manifest


def check_fingerprint(folder: Path, manifest: Manifest) -> None:
    """UserError if a file of the folder is not the one that the manifest was written with."""
    found = file_digests(folder, manifest)
    refuse_others(folder, manifest.files, found)
    refuse_other_fingerprint(folder, manifest, spec_of(folder, manifest), found, tier_fingerprints(folder, manifest))


def refuse_others(folder: Path, stated: Mapping[str, str], found: Mapping[str, str]) -> None:
    """UserError that names the first file whose digest is not the one that a manifest states; it may state none."""
    for name in sorted({*stated, *found}) if stated else ():
        if stated.get(name) != found.get(name):
            raise UserError(f"{folder / name}: is not the one that {MANIFEST} was written with; {_way_out(folder)}")


def refuse_other_fingerprint(
    folder: Path, manifest: Manifest, spec: EncoderSpec | None, files: Mapping[str, str], tiers: Sequence[str]
) -> None:
    """UserError if what changes an answer has another fingerprint than the manifest says."""
    if fingerprint_of(manifest, spec, files, tiers) != manifest.fingerprint:
        raise UserError(
            f"{folder}: a file or a tier is not the one that {MANIFEST} was written with; {_way_out(folder)}"
        )


def spec_of(folder: Path, manifest: Manifest) -> EncoderSpec | None:
    """The architecture that a folder's configuration names; None = a small model, which has none."""
    if manifest.kind != ENCODER:
        return None
    return read_spec(read_json(folder / CONFIG, missing_file(folder, CONFIG)))


def tier_fingerprints(folder: Path, manifest: Manifest) -> list[str]:
    """Of the first tiers of a cascade."""
    return [read_manifest(tier).fingerprint for tier in tier_folders(folder, manifest)]


def missing_file(folder: Path, name: str) -> str:
    """What to say where a model's folder lacks a file."""
    return f"{folder}: no {name}; copy the model again"


def file_names(manifest: Manifest) -> tuple[str, ...]:
    """The files of a model's own folder, tiers and manifest left out, that answers depend on."""
    return (*((CONFIG,) if manifest.kind == ENCODER else ()), WEIGHTS, EXTRAS, TOKENIZER)


def file_digests(folder: Path, manifest: Manifest) -> dict[str, str]:
    """SHA-256 of each of them, by name; UserError if one is missing or cannot be read."""
    return {name: file_digest(folder / name, missing_file(folder, name)) for name in file_names(manifest)}


def fingerprint(folder: Path, manifest: Manifest) -> str:
    """`fingerprint_of` the files that are in the folder now."""
    files, tiers = file_digests(folder, manifest), tier_fingerprints(folder, manifest)
    return fingerprint_of(manifest, spec_of(folder, manifest), files, tiers)


def fingerprint_of(manifest: Manifest, spec: EncoderSpec | None, files: Mapping[str, str], tiers: Sequence[str]) -> str:
    """SHA-256 of whatever changes an answer: weights, tokenizer, architecture, heads, length of the inputs, tiers.

    `files` are the digests of `file_digests`, `tiers` the fingerprints of the tiers before. Labels, operating points
    and the rest of a configuration are no part of it: calibrating does not make another model.
    """
    if spec is not None:
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
    if manifest.problem_type != ProblemType.SINGLE_LABEL:
        settings.append(manifest.problem_type)
        if LABEL_RANGE in manifest.training:  # operating points are chosen by losses in it
            settings.append([float(limit) for limit in manifest.training[LABEL_RANGE]])
    if manifest.spans is not None:
        settings += [dataclasses.asdict(manifest.spans), manifest.no_answer]
    settings += tiers
    digest = hashlib.sha256(json.dumps(settings).encode())
    for name in (WEIGHTS, EXTRAS, TOKENIZER):
        digest.update(bytes.fromhex(files[name]))
    return digest.hexdigest()
