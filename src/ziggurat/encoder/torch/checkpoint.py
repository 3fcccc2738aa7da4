"""Reads and writes model folders as torch models."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ziggurat.encoder import folder as layout
from ziggurat.encoder.architectures import ARCHITECTURES
from ziggurat.encoder.containers import tensors_of, told_of
from ziggurat.encoder.folder import Manifest
from ziggurat.encoder.model_files import ModelFiles, read_model
from ziggurat.encoder.spec import EncoderSpec, read_spec, with_sizes
from ziggurat.encoder.tokenizer_files import copy_tokenizer
from ziggurat.encoder.torch.int8 import simulate_int8
from ziggurat.encoder.torch.model import EncoderModel, SpanModel
from ziggurat.encoder.weights import CLASSES, POOLER, from_hf, hf_names, read_tensors, to_hf
from ziggurat.errors import UserError
from ziggurat.files import whole_folder
from ziggurat.recipe import PruningConfig
from ziggurat.types import ProblemType

_EXTRA_PREFIXES = (layout.HEAD_PREFIX, layout.PRUNING_PREFIX)  # tensors that plain transformers does not know
_FILLING = (Tensor.normal_, Tensor.uniform_, Tensor.fill_, Tensor.zero_)
_OVERRULED = ("num_labels", "torch_dtype")  # older keys of `config.json`, replaced by today's
SPANS_TASK = "QuestionAnswering"  # transformers' name of the task


def load_hf(
    source: Path,
    n_classes: int,
    head_kind: str,
    head_layers: Sequence[int] | None,
    dropout: float | None = None,
    pruning: PruningConfig | None = None,
    problem: ProblemType = ProblemType.SINGLE_LABEL,
    start: float = 0.0,
    keep_classifier: bool = True,
) -> EncoderModel:
    """A Hugging Face encoder or classifier with new exit heads and pruning.

    `dropout` None = the checkpoint's. `head_layers` None = all layers but the last. A missing pooler or classifier is
    initialised at random (seed torch beforehand); so is a classifier of another size, or any without `keep_classifier`.
    The classifier's biases start at `start`: for a regression, the mean of the labels.
    """
    spec = read_spec(read_config(source))
    if dropout is not None:
        spec = replace(spec, dropout=dropout, attention_dropout=dropout)
    model = _fresh(spec, n_classes, head_kind, head_places(spec, head_layers), pruning, problem)
    torch.nn.init.constant_(model.classifier.classes.bias, start)
    with told_of(source):
        held = tensors_of(source, lambda file: read_tensors(file).tensors)
        tensors = from_hf(_tensors(held), spec, torch.cat, problem)
    if not keep_classifier or len(tensors.get(f"{CLASSES}weight", ())) != n_classes:
        tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith(CLASSES)}
    _fill(model, tensors, may_miss=(POOLER, CLASSES, *_EXTRA_PREFIXES), source=source)
    for name, tensor in tensors.items():
        if not tensor.float().isfinite().all():  # backends refuse it, but stages would train on it for hours
            raise UserError(
                f"{source}: tensor {hf_names(name, spec, problem)} has numbers that are not finite (NaN, or beyond "
                "float32): copy the file again, or give a checkpoint from before its training went wrong"
            )
    model.start_heads_from_pooler()
    for head in model.exits.values() if problem is ProblemType.REGRESSION else ():
        torch.nn.init.constant_(head.classes.bias, float(model.classifier.classes.bias.detach()[0]))
    return model


def take_pruning(model: EncoderModel, folder: Path) -> bool:
    """Copies the learned pruning of a Ziggurat folder; returns False if its pruning has another configuration, or none.

    If the folder's training dropped the vocabulary scores, the model drops them too.
    """
    if model.pruning is None:
        return False
    manifest, config = layout.read_manifest(folder), model.pruning.config
    if layout.TRIALS in manifest.training and manifest.pruning == replace(config, vocabulary=None) != config:
        model.pruning.drop_vocabulary()
    if manifest.pruning != model.pruning.config:
        return False
    extras = _tensors(read_tensors(folder / layout.EXTRAS).tensors)
    learned = {name: tensor for name, tensor in extras.items() if name.startswith(layout.PRUNING_PREFIX)}
    model.load_state_dict(learned, strict=False)
    return True


def _fresh(
    spec: EncoderSpec,
    n_classes: int,
    head_kind: str,
    head_layers: Sequence[int],
    pruning: PruningConfig | None,
    problem: ProblemType,
) -> EncoderModel:
    if problem is ProblemType.QUESTION_ANSWERING:
        return SpanModel(spec, head_layers, pruning)
    return EncoderModel(spec, n_classes, head_kind, head_layers, pruning, problem)


def head_places(spec: EncoderSpec, head_layers: Sequence[int] | None) -> tuple[int, ...]:
    """Sorted layers with exit heads; None = all but the last. UserError for a layer outside of 1 … L - 1."""
    layers = tuple(range(1, spec.layers)) if head_layers is None else tuple(sorted(set(head_layers)))
    if any(not 1 <= layer < spec.layers for layer in layers):
        raise UserError(
            f"head layers {list(layers)}: the model has {spec.layers} layers, heads stand after 1 … {spec.layers - 1}"
        )
    return layers


def load_model(folder: Path) -> tuple[EncoderModel, Manifest]:
    """The model and manifest of a Ziggurat folder; UserError if a file is missing, broken or changed."""
    files = read_model(folder)
    return model_of(files), files.manifest


def model_of(files: ModelFiles) -> EncoderModel:
    """The torch model, in evaluation mode, from a folder's content; UserError if its parts do not fit together."""
    manifest, spec = files.manifest, files.encoder
    problem = ProblemType(manifest.problem_type)
    tensors = from_hf(_tensors(files.weights.tensors), spec, torch.cat, problem)
    tensors |= {
        name: tensor for name, tensor in _tensors(files.extras.tensors).items() if name.startswith(_EXTRA_PREFIXES)
    }
    sizes = len(manifest.labels), manifest.head_kind, manifest.head_layers
    with torch.device("meta"), _Unfilled():  # no memory is allocated before sizes are checked
        model = _fresh(spec, *sizes, manifest.pruning, problem)
    _fill(model, tensors, may_miss=(), source=files.folder, assign=True)
    if manifest.int8:
        simulate_int8(model)
    return model.eval()


class _Unfilled(TorchFunctionMode):
    """Within it, new modules skip their random initialisation, since it would be overwritten."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Calls a function; functions that fill a tensor return it unchanged."""
        if func in _FILLING or getattr(func, "__module__", "") == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


def save_model(model: EncoderModel, manifest: Manifest, trained_rows: np.ndarray, source: Path, out: Path) -> Manifest:
    """Writes a model folder at `out`, with tokenizer and configuration from `source`; returns its manifest.

    `trained_rows` (n) are content hashes of all rows that were used for training or for any choice. Heads and pruning
    are written if the manifest has them.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    named = {name: tensor.clone() for name, tensor in to_hf(tensors, model.spec, model.problem).items()}
    prefixes = [f"{layout.HEAD_PREFIX}{layer}." for layer in manifest.head_layers]
    prefixes += [] if manifest.pruning is None else [layout.PRUNING_PREFIX]
    extras = {name: tensor for name, tensor in tensors.items() if name.startswith(tuple(prefixes))}
    extras[layout.TRAINED_ROWS] = torch.from_numpy(np.sort(trained_rows.view(np.int64)))
    with whole_folder(out) as folder:
        save_file(named, folder / layout.WEIGHTS, metadata={"format": "pt"})
        save_file(extras, folder / layout.EXTRAS)
        sized = with_sizes(read_config(source), model.spec)  # a student's sizes differ from the source's
        config = json.dumps(classifier_config(sized, manifest), indent=2)
        (folder / layout.CONFIG).write_text(config + "\n", "utf-8")
        copy_tokenizer(source, folder, manifest.max_length)
        return layout.seal(folder, replace(manifest, files={}))


def classifier_config(config: dict[str, Any], manifest: Manifest) -> dict[str, Any]:
    """The `config.json` with which plain transformers loads the folder: a sequence classifier, or a span model."""
    architecture = ARCHITECTURES[config["model_type"]]
    config = {key: value for key, value in config.items() if key not in _OVERRULED}
    if manifest.answers_spans:
        named = {key: value for key, value in config.items() if key not in ("id2label", "label2id", "problem_type")}
        return named | {"architectures": [architecture.hf_class(SPANS_TASK)], "dtype": "float32"}
    names = [str(label) for label in manifest.labels]
    return config | {
        "architectures": [architecture.hf_class()],
        "id2label": {str(index): name for index, name in enumerate(names)},
        "label2id": {name: index for index, name in enumerate(names)},
        "problem_type": str(manifest.problem_type),
        "dtype": "float32",
    }


def read_config(folder: Path) -> dict[str, Any]:
    """The folder's `config.json`; UserError if there is none."""
    return layout.read_json(
        folder / layout.CONFIG, f"{folder}: no {layout.CONFIG}; give a folder made by save_pretrained"
    )


def _tensors(arrays: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    """Numpy arrays as torch tensors, in the same memory."""
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def _size(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape)) or "a single number"


def _fill(
    model: EncoderModel, tensors: Mapping[str, Tensor], may_miss: tuple[str, ...], source: Path, assign: bool = False
) -> None:
    """Loads tensors into the model in float32; UserError for one that is missing or has another shape.

    `assign` makes the tensors the model's parameters, instead of copying their numbers.
    """
    state = model.state_dict()
    for name, tensor in tensors.items():
        if name not in state or state[name].shape != tensor.shape:
            wanted = f"one of {_size(state[name])}" if name in state else "none"
            raise UserError(
                f"{source}: tensor {hf_names(name, model.spec, model.problem)} is {_size(tensor)}, {layout.CONFIG} "
                f"wants {wanted}: weights and configuration are of two models; copy both from one"
            )
    if missing := [name for name in state if name not in tensors and not name.startswith(may_miss)]:
        lacking = hf_names(missing[0], model.spec, model.problem)
        raise UserError(f"{source}: tensor {lacking} is missing; copy the folder again or train again")
    model.load_state_dict({name: tensor.float() for name, tensor in tensors.items()}, strict=False, assign=assign)
