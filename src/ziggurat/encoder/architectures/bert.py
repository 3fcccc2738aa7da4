"""BERT; TinyBERT and MiniLM are BERTs of other sizes. Related architectures are defined by their differences."""

from __future__ import annotations

from collections.abc import Mapping

from ziggurat.encoder.architectures.base import Architecture, Config, EncoderSpec, Table, activation, with_kinds
from ziggurat.errors import UserError

SIZES = {"layers": "num_hidden_layers", "hidden": "hidden_size", "intermediate": "intermediate_size"}
LAYER = {
    "qkv": ("attention.self.query", "attention.self.key", "attention.self.value"),
    "out": ("attention.output.dense",),
    "attention_norm": ("attention.output.LayerNorm",),
    "up": ("intermediate.dense",),
    "down": ("output.dense",),
    "output_norm": ("output.LayerNorm",),
}


def read(config: Config) -> EncoderSpec:
    """The spec of a configuration with BERT's keys, for any `model_type`."""
    if config.get("position_embedding_type", "absolute") != "absolute":
        raise UserError("config.json: position_embedding_type must be 'absolute'; relative positions are not supported")
    if config.get("is_decoder", False):
        raise UserError("config.json: is_decoder is true; Ziggurat runs encoders (is_decoder false)")
    return EncoderSpec(
        model_type=config["model_type"],
        hidden=config["hidden_size"],
        layers=config["num_hidden_layers"],
        heads=config["num_attention_heads"],
        intermediate=config["intermediate_size"],
        vocabulary=config["vocab_size"],
        positions=config["max_position_embeddings"],
        segments=config["type_vocab_size"],
        activation=activation(config),
        layer_norm_eps=config.get("layer_norm_eps", 1e-12),
        dropout=config.get("hidden_dropout_prob", 0.1),
        attention_dropout=config.get("attention_probs_dropout_prob", 0.1),
        initializer_range=config.get("initializer_range", 0.02),
    )


def table(spec: EncoderSpec) -> Table:
    """BERT's tensors."""
    return family_table(spec, "bert.", {"dense": "bert.pooler.dense", "classes": "classifier"})


def family_table(spec: EncoderSpec, prefix: str, classifier: Mapping[str, str]) -> Table:
    """The tensors of an encoder that is built like BERT; `classifier` maps its parts to HF names."""
    embeddings = f"{prefix}embeddings"
    made: Table = {
        "encoder.embeddings.word.weight": (f"{embeddings}.word_embeddings.weight",),
        "encoder.embeddings.position.weight": (f"{embeddings}.position_embeddings.weight",),
        "encoder.embeddings.segment.weight": (f"{embeddings}.token_type_embeddings.weight",),
    }
    modules: Table = {"encoder.embeddings.norm": (f"{embeddings}.LayerNorm",)}
    for layer in range(spec.layers):
        for name, parts in LAYER.items():
            modules[f"encoder.layers.{layer}.{name}"] = tuple(f"{prefix}encoder.layer.{layer}.{part}" for part in parts)
    modules |= {f"classifier.{name}": (part,) for name, part in classifier.items()}
    return made | with_kinds(modules)


BERT = Architecture("Bert", "bert.", SIZES, read, table)
