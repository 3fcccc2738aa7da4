"""DistilBERT: BERT without segments and pooler, with other tensor names, and a classifier with ReLU."""

from __future__ import annotations

from ziggurat.encoder.architectures.base import Architecture, Config, EncoderSpec, Table, activation, with_kinds

PREFIX = "distilbert."
SIZES = {"layers": "n_layers", "hidden": "dim", "intermediate": "hidden_dim"}
LAYER = {
    "qkv": ("attention.q_lin", "attention.k_lin", "attention.v_lin"),
    "out": ("attention.out_lin",),
    "attention_norm": ("sa_layer_norm",),
    "up": ("ffn.lin1",),
    "down": ("ffn.lin2",),
    "output_norm": ("output_layer_norm",),
}


def read(config: Config) -> EncoderSpec:
    """The spec; LayerNorm's epsilon is a constant in transformers' code, not an option."""
    return EncoderSpec(
        model_type="distilbert",
        hidden=config["dim"],
        layers=config["n_layers"],
        heads=config["n_heads"],
        intermediate=config["hidden_dim"],
        vocabulary=config["vocab_size"],
        positions=config["max_position_embeddings"],
        segments=0,
        activation=activation(config, "activation"),
        layer_norm_eps=1e-12,
        dropout=config.get("dropout", 0.1),
        attention_dropout=config.get("attention_dropout", 0.1),
        initializer_range=config.get("initializer_range", 0.02),
        head_activation="relu",
    )


def table(spec: EncoderSpec) -> Table:
    """DistilBERT's tensors."""
    embeddings = f"{PREFIX}embeddings"
    made: Table = {
        "encoder.embeddings.word.weight": (f"{embeddings}.word_embeddings.weight",),
        "encoder.embeddings.position.weight": (f"{embeddings}.position_embeddings.weight",),
    }
    modules: Table = {"encoder.embeddings.norm": (f"{embeddings}.LayerNorm",)}
    for layer in range(spec.layers):
        for name, parts in LAYER.items():
            names = tuple(f"{PREFIX}transformer.layer.{layer}.{part}" for part in parts)
            modules[f"encoder.layers.{layer}.{name}"] = names
    modules |= {"classifier.dense": ("pre_classifier",), "classifier.classes": ("classifier",)}
    return made | with_kinds(modules)


DISTILBERT = Architecture("DistilBert", PREFIX, SIZES, read, table)
