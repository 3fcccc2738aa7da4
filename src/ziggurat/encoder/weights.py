"""Hugging Face's tensors ↔ ours, by the table of the architecture, read in both directions. No torch."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from ziggurat.encoder.architectures import ARCHITECTURES
from ziggurat.encoder.architectures.base import Table
from ziggurat.encoder.spec import EncoderSpec
from ziggurat.errors import UserError
from ziggurat.types import Problem

Tensors = Mapping[str, Any]  # numpy arrays or torch tensors

POOLER = "classifier.dense"  # and its LayerNorm: a masked-language-model checkpoint has none
CLASSES = "classifier.classes."  # only a fine-tuned classifier has it
WORDS = "encoder.embeddings.word.weight"  # every encoder has it
SPANS = "qa_outputs."  # what a checkpoint for spans has in the place of both, unless its spans are dense

# Modules around others that leave their names in saved ones: of torch.compile, DataParallel, FSDP, checkpointing.
_ADAPTER = re.compile(r"lora_\w+|ia3_\w+|hada_\w+|lokr_\w+|oft_\w+|adapters|base_layer|modules_to_save|original_module")
_WRAPPERS = frozenset(("_orig_mod", "module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"))


def table_of(spec: EncoderSpec, problem: Problem) -> Table:
    """The architecture's table for a classifier, or for a model of spans."""
    architecture = ARCHITECTURES[spec.model_type]
    table = architecture.table(spec)
    if problem is not Problem.QUESTION_ANSWERING or architecture.dense_spans:
        return table
    shared = {name: parts for name, parts in table.items() if not name.startswith("classifier.")}
    return shared | {f"{CLASSES}{kind}": (f"{SPANS}{kind}",) for kind in ("weight", "bias")}


def canonical_names(tensors: Tensors, spec: EncoderSpec, problem: Problem = Problem.SINGLE_LABEL) -> dict[str, Any]:
    """HF tensors under the names of today's classifier checkpoint.

    What wraps modules is left out of names, and a module around the whole model; a missing prefix is added, old
    LayerNorm names are translated. UserError where two tensors would have one name, for several encoders, and for an
    adapter beside the model, without which it would answer otherwise.
    """
    architecture = ARCHITECTURES[spec.model_type]
    if adapted := next((name for name in tensors if any(map(_ADAPTER.fullmatch, name.split(".")))), None):
        raise UserError(
            f"the checkpoint holds an adapter's parts ({adapted!r}), which are not merged into the model; save what "
            ".merge_and_unload() of peft gives"
        )
    named = _renamed(tensors, _plain_name)
    outer = _outer_module(named, spec)
    named = _renamed(named, lambda name: name.removeprefix(outer))
    if any(name.startswith(architecture.prefix) for name in named):
        return named
    known = {part for parts in table_of(spec, problem).values() for part in parts}
    return {name if name in known else architecture.prefix + name: tensor for name, tensor in named.items()}


def _plain_name(name: str) -> str:
    """Without the wrappers of torch.compile, DataParallel and their like, wherever they are; with today's LayerNorm."""
    plain = ".".join(part for part in name.split(".") if part not in _WRAPPERS)
    return plain.replace(".gamma", ".weight").replace(".beta", ".bias")


def _outer_module(names: Collection[str], spec: EncoderSpec) -> str:
    """What all names begin with where the model was saved as a part of another module ("model.", "bert." twice)."""
    prefix = ARCHITECTURES[spec.model_type].prefix
    (words,) = ARCHITECTURES[spec.model_type].table(spec)[WORDS]
    bare = words.removeprefix(prefix)
    found = {name.removesuffix(bare) for name in names if f".{name}".endswith(f".{bare}")}
    outer = sorted({begin.removesuffix(prefix) if f".{begin}".endswith(f".{prefix}") else begin for begin in found})
    if len(outer) > 1:
        modules = ", ".join(repr(begin) for begin in outer)
        raise UserError(f"the checkpoint holds several encoders (tensors begin with {modules}); save one by itself")
    return outer[0] if outer else ""


def _renamed(tensors: Tensors, rename: Callable[[str], str]) -> dict[str, Any]:
    made = {rename(name): tensor for name, tensor in tensors.items()}
    if len(made) < len(tensors):
        names = [rename(name) for name in tensors]
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"the checkpoint holds {twice!r} twice, once in a wrapper; save it anew with save_pretrained")
    return made


def from_hf(
    tensors: Tensors, spec: EncoderSpec, join: Callable[[Sequence[Any]], Any], problem: Problem = Problem.SINGLE_LABEL
) -> dict[str, Any]:
    """Our tensors of these HF tensors; pooler and classifier may be missing, anything else may not (UserError)."""
    named = canonical_names(tensors, spec, problem)
    ours: dict[str, Any] = {}
    for name, parts in table_of(spec, problem).items():
        missing = [part for part in parts if part not in named]
        if not missing:
            ours[name] = named[parts[0]] if len(parts) == 1 else _joined(named, parts, join)
        elif not name.startswith((POOLER, CLASSES)):
            raise UserError(
                f"the checkpoint has no tensor {missing[0]!r}, which a {spec.model_type} of {spec.layers} layers has; "
                "save weights and config.json again, together, with save_pretrained"
            )
    return ours


def _joined(named: Tensors, parts: Sequence[str], join: Callable[[Sequence[Any]], Any]) -> Any:
    """Tensors behind one another, along their first axis; UserError unless the other axes are the same."""
    for part in parts:
        if not named[part].ndim or named[part].shape[1:] != named[parts[0]].shape[1:]:
            raise UserError(f"the checkpoint's tensor {part!r} does not fit to {parts[0]!r}; copy its file again")
    return join([named[part] for part in parts])


def hf_names(name: str, spec: EncoderSpec, problem: Problem = Problem.SINGLE_LABEL) -> str:
    """What a user's checkpoint calls one of our tensors, for messages; of those that it lacks, our name."""
    return " + ".join(table_of(spec, problem).get(name, (name,)))


def missing_classifier(names: Collection[str], spec: EncoderSpec) -> list[str]:
    """The HF tensors of the architecture's own classifier that are not among these names."""
    named = canonical_names(dict.fromkeys(names), spec)
    table = ARCHITECTURES[spec.model_type].table(spec)
    wanted = (part for ours, parts in table.items() if ours.startswith((POOLER, CLASSES)) for part in parts)
    return [part for part in wanted if part not in named]


def to_hf(tensors: Tensors, spec: EncoderSpec, problem: Problem = Problem.SINGLE_LABEL) -> dict[str, Any]:
    """The HF tensors that `from_hf` read: bit-equal, parts of a joined tensor are views of it."""
    named: dict[str, Any] = {}
    for name, parts in table_of(spec, problem).items():
        rows = len(tensors[name]) // len(parts)
        for index, part in enumerate(parts):
            named[part] = tensors[name][index * rows : (index + 1) * rows]
    return named
