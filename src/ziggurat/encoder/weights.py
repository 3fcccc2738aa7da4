"""Which Hugging Face tensors make which of ours: one table per architecture, read in both directions. No torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ziggurat.encoder.spec import EncoderSpec
from ziggurat.errors import UserError

Tensors = Mapping[str, Any]  # numpy arrays or torch tensors
Table = dict[str, tuple[str, ...]]  # our name → the HF tensors that it joins along the first axis

_BERT_EMBEDDINGS = {
    "word": "embeddings.word_embeddings",
    "position": "embeddings.position_embeddings",
    "segment": "embeddings.token_type_embeddings",
}
_BERT_LAYER = {
    "qkv": ("attention.self.query", "attention.self.key", "attention.self.value"),
    "out": ("attention.output.dense",),
    "attention_norm": ("attention.output.LayerNorm",),
    "up": ("intermediate.dense",),
    "down": ("output.dense",),
    "output_norm": ("output.LayerNorm",),
}


def _bert(spec: EncoderSpec) -> Table:
    table: Table = {
        f"encoder.embeddings.{ours}.weight": (f"bert.{hf}.weight",) for ours, hf in _BERT_EMBEDDINGS.items()
    }
    modules: Table = {"encoder.embeddings.norm": ("bert.embeddings.LayerNorm",)}
    for layer in range(spec.layers):
        for ours, parts in _BERT_LAYER.items():
            modules[f"encoder.layers.{layer}.{ours}"] = tuple(f"bert.encoder.layer.{layer}.{part}" for part in parts)
    modules["classifier.dense"] = ("bert.pooler.dense",)
    modules["classifier.classes"] = ("classifier",)
    for ours, parts in modules.items():
        for kind in ("weight", "bias"):
            table[f"{ours}.{kind}"] = tuple(f"{part}.{kind}" for part in parts)
    return table


TABLES: Mapping[str, Callable[[EncoderSpec], Table]] = {"bert": _bert}
PREFIXES: Mapping[str, str] = {"bert": "bert."}  # missing where the bare encoder was saved

POOLER = "classifier.dense."  # a masked-language-model checkpoint has none
CLASSES = "classifier.classes."  # only a fine-tuned classifier has it


def canonical_names(tensors: Tensors, spec: EncoderSpec) -> dict[str, Any]:
    """HF tensors under the names of today's classifier checkpoint: prefix added, old LayerNorm names translated."""
    prefix = PREFIXES[spec.model_type]
    named = {name.replace(".gamma", ".weight").replace(".beta", ".bias"): tensor for name, tensor in tensors.items()}
    if any(name.startswith(prefix) for name in named):
        return named
    return {name if name.startswith("classifier.") else prefix + name: tensor for name, tensor in named.items()}


def from_hf(tensors: Tensors, spec: EncoderSpec, join: Callable[[Sequence[Any]], Any]) -> dict[str, Any]:
    """Our tensors of these HF tensors; pooler and classifier may be missing, anything else may not (UserError)."""
    named = canonical_names(tensors, spec)
    ours: dict[str, Any] = {}
    for name, parts in TABLES[spec.model_type](spec).items():
        missing = [part for part in parts if part not in named]
        if not missing:
            ours[name] = named[parts[0]] if len(parts) == 1 else join([named[part] for part in parts])
        elif not name.startswith((POOLER, CLASSES)):
            raise UserError(f"the checkpoint has no tensor {missing[0]!r}; save it again with save_pretrained")
    return ours


def to_hf(tensors: Tensors, spec: EncoderSpec) -> dict[str, Any]:
    """The HF tensors that `from_hf` read: bit-equal, parts of a joined tensor are views of it."""
    named: dict[str, Any] = {}
    for name, parts in TABLES[spec.model_type](spec).items():
        rows = len(tensors[name]) // len(parts)
        for index, part in enumerate(parts):
            named[part] = tensors[name][index * rows : (index + 1) * rows]
    return named
