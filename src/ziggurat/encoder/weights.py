"""Hugging Face's tensors ↔ ours, by the table of the architecture, read in both directions. No torch."""

from __future__ import annotations

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
SPANS = "qa_outputs."  # what a checkpoint for spans has in the place of both, unless its spans are dense


def table_of(spec: EncoderSpec, problem: Problem) -> Table:
    """The architecture's table for a classifier, or for a model of spans."""
    architecture = ARCHITECTURES[spec.model_type]
    table = architecture.table(spec)
    if problem is not Problem.QUESTION_ANSWERING or architecture.dense_spans:
        return table
    shared = {name: parts for name, parts in table.items() if not name.startswith("classifier.")}
    return shared | {f"{CLASSES}{kind}": (f"{SPANS}{kind}",) for kind in ("weight", "bias")}


def canonical_names(tensors: Tensors, spec: EncoderSpec, problem: Problem = Problem.SINGLE_LABEL) -> dict[str, Any]:
    """HF tensors under the names of today's classifier checkpoint: prefix added, old LayerNorm names translated."""
    architecture = ARCHITECTURES[spec.model_type]
    named = {name.replace(".gamma", ".weight").replace(".beta", ".bias"): tensor for name, tensor in tensors.items()}
    if any(name.startswith(architecture.prefix) for name in named):
        return named
    known = {part for parts in table_of(spec, problem).values() for part in parts}
    return {name if name in known else architecture.prefix + name: tensor for name, tensor in named.items()}


def from_hf(
    tensors: Tensors, spec: EncoderSpec, join: Callable[[Sequence[Any]], Any], problem: Problem = Problem.SINGLE_LABEL
) -> dict[str, Any]:
    """Our tensors of these HF tensors; pooler and classifier may be missing, anything else may not (UserError)."""
    named = canonical_names(tensors, spec, problem)
    ours: dict[str, Any] = {}
    for name, parts in table_of(spec, problem).items():
        missing = [part for part in parts if part not in named]
        if not missing:
            ours[name] = named[parts[0]] if len(parts) == 1 else join([named[part] for part in parts])
        elif not name.startswith((POOLER, CLASSES)):
            raise UserError(f"the checkpoint has no tensor {missing[0]!r}; save it again with save_pretrained")
    return ours


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
