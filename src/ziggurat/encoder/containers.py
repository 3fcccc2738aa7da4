"""Files of checkpoints: which are read, and what to do about all others. No torch, no pickles."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ziggurat.encoder.folder import CONFIG, MANIFEST, TOKENIZER_FILES, WEIGHTS, read_json
from ziggurat.encoder.spec import read_spec
from ziggurat.encoder.weights import map_tensors
from ziggurat.errors import UserError

INDEX = f"{WEIGHTS}.index.json"  # tensor name → shard file
ADAPTER = "adapter_config.json"
MODULES = "modules.json"  # written by sentence-transformers
STATE = "trainer_state.json"
_CHECKPOINT = re.compile(r"checkpoint-(\d+)")
_RESAVE = "load it in transformers and write it anew with save_pretrained, which makes safetensors"
_EXPORT = "give the folder that it was exported from"
_WITH_4 = "load it in transformers 4 (from_tf or from_flax) and write it anew with save_pretrained"
# Other formats of weights: file pattern, description, fix. The most specific patterns come first.
_OTHER_WEIGHTS: tuple[tuple[str, str, str], ...] = (
    ("pytorch_model*.bin", "a pickle, which can run code and is not read", _RESAVE),
    ("*.gguf", "made for llama.cpp", _EXPORT),
    ("*.onnx", "an export to ONNX", _EXPORT),
    ("openvino_*.xml", "an export to OpenVINO", _EXPORT),
    ("tf_model*.h5", "of TensorFlow", _WITH_4),
    ("flax_model*.msgpack", "of Flax", _WITH_4),
    ("rust_model.ot", "made for Rust", _EXPORT),
    ("zero_to_fp32.py", "for DeepSpeed's parts", "run `python zero_to_fp32.py . . --safe_serialization` there"),
    ("*.ckpt", "a pickle, which can run code and is not read", _RESAVE),
    ("*.pt", "a pickle, which can run code and is not read", _RESAVE),
    ("*.pth", "a pickle, which can run code and is not read", _RESAVE),
    ("*.bin", "a pickle, which can run code and is not read", _RESAVE),
)
_SHARD = re.compile(r"-of-0*([2-9]|[1-9]\d+)\.")
_NO_WEIGHTS = re.compile(r"(training_args|optimizer|scheduler|scaler|rng_state.*)\.\w+")


def require_checkpoint(folder: Path, name: str | None = None) -> None:
    """UserError unless a folder was made by Ziggurat, or by transformers with a readable configuration and weights.

    `name` is the user's name of the model, None = its path. The error names what is there instead, and the fix.
    """
    name = str(folder) if name is None else name
    if (folder / MANIFEST).is_file():
        return  # opening the model checks the other files
    if (folder / ADAPTER).is_file():
        raise UserError(f"{name}: {_adapter(folder)}")
    _refuse_no_files(folder, name)
    has_weights = any((folder / file).is_file() for file in (WEIGHTS, INDEX))
    if not (has_weights and (folder / CONFIG).is_file()):
        raise UserError(f"{name}: {_what_is_there(folder, has_weights)}")
    _refuse_quantised(folder, name)
    with told_of(folder):
        read_spec(read_json(folder / CONFIG, f"no {CONFIG}"))


@contextmanager
def told_of(folder: Path) -> Iterator[None]:
    """Adds the folder's name to errors about the content of a checkpoint."""
    try:
        yield
    except UserError as error:
        where = "" if str(error).startswith(str(folder)) else f"{folder}: "
        raise UserError(f"{where}{error}") from None


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint: one file or its shards; UserError if there is none, or one is missing.

    If both exist, the single file is used, as in transformers.
    """
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if not (folder / INDEX).is_file():
        raise UserError(f"{folder}: {_what_is_there(folder, has_weights=False)}")
    shards = sorted(set(_weight_map(folder).values()))
    if missing := [shard for shard in shards if not (folder / shard).is_file()]:
        raise UserError(
            f"{folder / missing[0]}: not found, one of {len(shards)} files of weights that {INDEX} names; "
            "copy the whole folder again"
        )
    return [folder / shard for shard in shards]


def tensors_of(folder: Path, read: Callable[[Path], Mapping[str, np.ndarray]] = map_tensors) -> dict[str, np.ndarray]:
    """The tensors of all shards of a checkpoint, read by `read`; UserError if some are missing or broken."""
    files = weight_files(folder)
    tensors = {name: tensor for file in files for name, tensor in read(file).items()}
    wanted = () if files == [folder / WEIGHTS] else _weight_map(folder)
    if missing := [name for name in wanted if name not in tensors]:
        raise UserError(
            f"{folder}: no file of weights holds {missing[0]!r}, which {INDEX} names; copy the whole folder again"
        )
    return tensors


def scores_become(folder: Path) -> str | None:
    """Activation that sentence-transformers applies to a checkpoint's logits, such as "Sigmoid"; None = none stated."""
    config, beside = (_json(folder / file) for file in (CONFIG, "config_sentence_transformers.json"))
    within = config.get("sentence_transformers")
    found = [
        within.get("activation_fn") if isinstance(within, Mapping) else None,
        config.get("sbert_ce_default_activation_function"),
        beside.get("activation_fn"),
    ]
    stated = next((str(name).rpartition(".")[2] for name in found if name), None)
    return None if stated == "Identity" else stated


def _weight_map(folder: Path) -> Mapping[str, str]:
    named = read_json(folder / INDEX, f"{folder / INDEX}: not found").get("weight_map")
    if not isinstance(named, dict) or not named or not all(_is_beside(file) for file in named.values()):
        raise UserError(f"{folder / INDEX}: has no weight_map of files beside it; copy the whole folder again")
    return named


def _is_beside(file: object) -> bool:
    """Whether `file` is a plain name of a safetensors file, without a path."""
    return isinstance(file, str) and file == Path(file).name and file.endswith(".safetensors")


def _adapter(folder: Path) -> str:
    stated = _json(folder / ADAPTER)
    kind, base = stated.get("peft_type"), stated.get("base_model_name_or_path")
    of = f" of {base}" if isinstance(base, str) and base else ""
    return (
        f"an adapter{f' ({kind})' if isinstance(kind, str) else ''}{of}, not a whole model; merge it: load it with "
        "peft's AutoPeftModelForSequenceClassification, then .merge_and_unload().save_pretrained(NEW), and give NEW"
    )


def _refuse_no_files(folder: Path, name: str) -> None:
    """UserError if a checkpoint's file is a folder or a broken link: transformers would silently go on without it."""
    for file in (CONFIG, WEIGHTS, INDEX, *TOKENIZER_FILES):
        path = folder / file
        if os.path.lexists(path) and not path.is_file():
            kind = "a broken link" if path.is_symlink() and not path.exists() else "no file"
            raise UserError(f"{name}: {file} is {kind}; copy or download the whole folder again")


def _refuse_quantised(folder: Path, name: str) -> None:
    stated = _json(folder / CONFIG).get("quantization_config")
    if stated:
        how = str(stated.get("quant_method", "")) if isinstance(stated, dict) else ""
        raise UserError(
            f"{name}: its weights are quantised{f' ({how})' if how else ''}, but only 16- or 32-bit floats are read; "
            "give the checkpoint before quantisation (--dtype int8 quantises when it predicts)"
        )


def _what_is_there(folder: Path, has_weights: bool) -> str:
    """Message for a folder without weights or configuration: what it holds, and the fix."""
    missing = CONFIG if has_weights else WEIGHTS
    if (found := _trainers(folder)) is not None:
        return found
    if (found := _in_a_sub_folder(folder)) is not None:
        return found
    if has_weights:
        return f"no {CONFIG} beside the weights; copy it from where the model was saved"
    for pattern, description, fix in _OTHER_WEIGHTS:
        for file in sorted((*folder.glob(pattern), *folder.glob(f"onnx/{pattern}"))):
            if not _NO_WEIGHTS.fullmatch(file.name):
                return f"no {missing}, but {file.relative_to(folder)}, {description}; {fix}"
    found_files = sorted(file.name for file in folder.glob("*.safetensors"))
    if any(_SHARD.search(name) for name in found_files):
        return f"no {INDEX}, the index of {found_files[0]} and the other shards; copy the whole folder again"
    if found_files:
        return f"no {missing}, but {found_files[0]}; if that is the whole model, rename it to {missing}"
    return f"no {missing}; give a folder made by save_pretrained"


def _trainers(folder: Path) -> str | None:
    """For an output folder of transformers' Trainer: message with the checkpoint to use; None = not such a folder."""
    found = {int(match[1]): path for path in folder.glob("checkpoint-*") if (match := _CHECKPOINT.fullmatch(path.name))}
    if not found:
        return None
    steps = sorted(found)
    stated = str(_json(found[steps[-1]] / STATE).get("best_model_checkpoint") or "")
    best = re.split(r"[\\/]", stated)[-1]  # the path is that of the training machine
    names = [found[step].name for step in steps]
    given = f"one of them, such as {folder / names[-1]}"
    if best in names:
        given = f"{folder / best} (the best, says {STATE})"
    shown = ", ".join(names[-10:])
    return f"a Trainer's folder without a model of its own, but with {shown}; give {given}"


def _in_a_sub_folder(folder: Path) -> str | None:
    """Message if exactly one sub-folder holds the model, as in old sentence-transformers folders; else None."""
    found = sorted(file.parent for file in folder.glob(f"*/{CONFIG}") if _has_model(file.parent))
    if len(found) != 1:
        return None
    kind = "a sentence-transformers folder" if (folder / MODULES).is_file() else "a folder"
    return f"{kind} whose model is in {found[0].name}; give {found[0]}"


def _has_model(folder: Path) -> bool:
    names = (WEIGHTS, INDEX, "pytorch_model.bin", MANIFEST)
    return any((folder / name).is_file() for name in names)


def _json(path: Path) -> dict[str, Any]:
    """An optional JSON file; {} if it is missing or broken."""
    try:
        return read_json(path, "")
    except UserError:
        return {}
