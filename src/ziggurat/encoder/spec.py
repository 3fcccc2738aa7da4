"""An encoder's architecture as data: read from a Hugging Face `config.json`, used by every engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ziggurat.errors import UserError

Config = Mapping[str, Any]


@dataclass(frozen=True)
class EncoderSpec:
    """What a forward pass must know of an encoder; its weights' names are in `weights`."""

    model_type: str  # Hugging Face's name of the architecture
    hidden: int  # width of a token state, d
    layers: int  # L
    heads: int
    intermediate: int  # width of the feed-forward layer
    vocabulary: int
    positions: int  # longest input, in tokens
    segments: int  # kinds of segment ids
    activation: str  # "gelu" (exact) or "gelu_tanh"
    layer_norm_eps: float
    dropout: float  # after embeddings, attention output and feed-forward, in training
    attention_dropout: float
    initializer_range: float

    @property
    def head_width(self) -> int:
        """Width of one attention head."""
        return self.hidden // self.heads


ACTIVATIONS: Mapping[str, str] = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
}


def _bert(config: Config) -> EncoderSpec:
    if config.get("position_embedding_type", "absolute") != "absolute":
        raise UserError("config.json: position_embedding_type must be 'absolute'; relative positions are not supported")
    if config.get("is_decoder", False):
        raise UserError("config.json: is_decoder is true; Ziggurat runs encoders (is_decoder false)")
    activation = str(config.get("hidden_act", "gelu"))
    if activation not in ACTIVATIONS:
        raise UserError(f"config.json: hidden_act {activation!r} is not supported; known: {', '.join(ACTIVATIONS)}")
    return EncoderSpec(
        model_type="bert",
        hidden=config["hidden_size"],
        layers=config["num_hidden_layers"],
        heads=config["num_attention_heads"],
        intermediate=config["intermediate_size"],
        vocabulary=config["vocab_size"],
        positions=config["max_position_embeddings"],
        segments=config["type_vocab_size"],
        activation=ACTIVATIONS[activation],
        layer_norm_eps=config.get("layer_norm_eps", 1e-12),
        dropout=config.get("hidden_dropout_prob", 0.1),
        attention_dropout=config.get("attention_probs_dropout_prob", 0.1),
        initializer_range=config.get("initializer_range", 0.02),
    )


_COUNTS = ("hidden", "layers", "heads", "intermediate", "vocabulary", "positions", "segments")

# A new architecture adds its reader here and its names in `weights`.
READERS: Mapping[str, Callable[[Config], EncoderSpec]] = {"bert": _bert}

# Where a `config.json` says the sizes that a student may have of its own.
SIZES: Mapping[str, Mapping[str, str]] = {
    "bert": {"layers": "num_hidden_layers", "hidden": "hidden_size", "intermediate": "intermediate_size"}
}


def with_sizes(config: Config, spec: EncoderSpec) -> dict[str, Any]:
    """A `config.json` with the spec's layers and widths; what it says besides stays."""
    return dict(config) | {key: getattr(spec, name) for name, key in SIZES[spec.model_type].items()}


def read_spec(config: Config) -> EncoderSpec:
    """The spec of a `config.json`; UserError for an architecture or an option that has none."""
    model_type = config.get("model_type")
    if model_type not in READERS:
        raise UserError(f"config.json: model_type {model_type!r} is not supported; supported: {', '.join(READERS)}")
    try:
        spec = READERS[model_type](config)
    except KeyError as missing:
        raise UserError(f"config.json: key {missing} is missing; save the model again with save_pretrained") from None
    for name in _COUNTS:
        if type(getattr(spec, name)) is not int or getattr(spec, name) < 1:
            raise UserError(f"config.json: {name} {getattr(spec, name)!r}: must be a whole number of at least 1")
    if spec.hidden % spec.heads:
        raise UserError(f"config.json: {spec.heads} attention heads do not divide a width of {spec.hidden}")
    return spec
