"""ModernBERT: rotary positions, pre-norm, gated feed-forward layers, and a local window in two of three layers."""

from __future__ import annotations

from typing import Any

from ziggurat.encoder.architectures.base import Architecture, Config, EncoderSpec, Table, activation
from ziggurat.errors import UserError

GLOBAL, LOCAL = "full_attention", "sliding_attention"
KINDS = {GLOBAL: ("global_rope_theta", 160_000.0), LOCAL: ("local_rope_theta", 10_000.0)}  # old key, default base
POOLING = {"cls": "first", "mean": "mean"}
HEAD_ACTIVATIONS = ("gelu", "relu", "tanh")


def read(config: Config) -> EncoderSpec:
    """The spec of a configuration in transformers' present format, or in that of ModernBERT's publication."""
    kinds = _layer_kinds(config)
    bases = {kind: _rotary_base(config, kind) for kind in KINDS}
    if config["hidden_size"] // config["num_attention_heads"] % 2:
        raise UserError("config.json: rotary positions need attention heads of an even width")
    return EncoderSpec(
        model_type=config["model_type"],
        hidden=config["hidden_size"],
        layers=config["num_hidden_layers"],
        heads=config["num_attention_heads"],
        intermediate=config["intermediate_size"],
        vocabulary=config["vocab_size"],
        positions=config["max_position_embeddings"],
        segments=0,
        activation=activation(config, "hidden_activation"),
        layer_norm_eps=config.get("norm_eps", 1e-5),
        dropout=config.get("mlp_dropout", 0.0),
        attention_dropout=config.get("attention_dropout", 0.0),
        initializer_range=config.get("initializer_range", 0.02),
        head_activation=_one_of(config, "classifier_activation", "gelu", HEAD_ACTIVATIONS),
        head_norm=True,
        pooling=POOLING[_one_of(config, "classifier_pooling", "cls", tuple(POOLING))],
        norm_first=True,
        gated=True,
        rotary=tuple(bases[kind] for kind in kinds),
        windows=tuple(config.get("local_attention", 128) // 2 if kind == LOCAL else 0 for kind in kinds),
        attention_bias=config.get("attention_bias", False),
        feed_forward_bias=config.get("mlp_bias", False),
        norm_bias=config.get("norm_bias", False),
        head_bias=config.get("classifier_bias", False),
    )


def _layer_kinds(config: Config) -> list[str]:
    layers = config["num_hidden_layers"]
    period = config.get("global_attn_every_n_layers", 3)
    kinds = config.get("layer_types") or [LOCAL if layer % period else GLOBAL for layer in range(layers)]
    if len(kinds) != layers or not set(kinds) <= set(KINDS):
        raise UserError(f"config.json: layer_types must name {layers} layers, each {GLOBAL!r} or {LOCAL!r}")
    return list(kinds)


def _rotary_base(config: Config, kind: str) -> float:
    old, default = KINDS[kind]
    rope: dict[str, Any] = (config.get("rope_parameters") or {}).get(kind) or {}
    if rope.get("rope_type", "default") != "default" or config.get("rope_scaling"):
        raise UserError("config.json: rope_type must be 'default'; scaled rotary positions are not supported")
    return float(rope.get("rope_theta") or config.get(old) or default)


def _one_of(config: Config, key: str, default: str, known: tuple[str, ...]) -> str:
    if (value := config.get(key, default)) not in known:
        raise UserError(f"config.json: {key} {value!r} is not supported; known: {', '.join(known)}")
    return str(value)


def table(spec: EncoderSpec) -> Table:
    """ModernBERT's tensors, with biases as configured."""
    modules = {"encoder.embeddings.norm": ("model.embeddings.norm", spec.norm_bias)}
    for layer in range(spec.layers):
        name, hf_name = f"encoder.layers.{layer}", f"model.layers.{layer}"
        if layer:  # the first layer's input is already normalised by the embeddings
            modules[f"{name}.attention_norm"] = (f"{hf_name}.attn_norm", spec.norm_bias)
        modules[f"{name}.qkv"] = (f"{hf_name}.attn.Wqkv", spec.attention_bias)
        modules[f"{name}.out"] = (f"{hf_name}.attn.Wo", spec.attention_bias)
        modules[f"{name}.output_norm"] = (f"{hf_name}.mlp_norm", spec.norm_bias)
        modules[f"{name}.up"] = (f"{hf_name}.mlp.Wi", spec.feed_forward_bias)
        modules[f"{name}.down"] = (f"{hf_name}.mlp.Wo", spec.feed_forward_bias)
    modules["classifier.norm"] = ("model.final_norm", spec.norm_bias)
    modules["classifier.dense"] = ("head.dense", spec.head_bias)
    modules["classifier.dense_norm"] = ("head.norm", spec.norm_bias)
    modules["classifier.classes"] = ("classifier", True)
    made: Table = {"encoder.embeddings.word.weight": ("model.embeddings.tok_embeddings.weight",)}
    for name, (part, bias) in modules.items():
        made |= {f"{name}.{kind}": (f"{part}.{kind}",) for kind in (("weight", "bias") if bias else ("weight",))}
    return made


SIZES = {"layers": "num_hidden_layers", "hidden": "hidden_size", "intermediate": "intermediate_size"}
MODERNBERT = Architecture("ModernBert", "model.", SIZES, read, table, dense_spans=True)
