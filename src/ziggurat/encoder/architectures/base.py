"""An architecture as data: how to read its `config.json` into a spec, and a table of its tensors. No torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ziggurat.errors import UserError

Config = Mapping[str, Any]
Table = dict[str, tuple[str, ...]]  # Ziggurat's tensor → the HF tensors that are joined along the first axis


@dataclass(frozen=True)
class EncoderSpec:
    """Everything that a forward pass needs to know about an encoder. Defaults are BERT's."""

    model_type: str  # Hugging Face's name of the architecture
    hidden: int  # width of a token state, d
    layers: int  # L
    heads: int
    intermediate: int  # width of the feed-forward layer
    vocabulary: int
    positions: int  # longest input, in tokens
    segments: int  # number of segment ids; with less than two they are ignored
    activation: str  # of the feed-forward layer, a value of ACTIVATIONS
    layer_norm_eps: float
    dropout: float  # after embeddings, attention output and feed-forward, in training
    attention_dropout: float
    initializer_range: float
    position_offset: int = 0  # row of the position table for a text's first token
    embedding_width: int = 0  # of the embeddings, if a linear map widens them to `hidden`; 0 = same width
    task_types: int = 0  # rows of the table of task embeddings; every token uses the first
    head_activation: str = "tanh"  # of the dense layer in the architecture's own classifier; tanh, relu or gelu
    head_norm: bool = False  # a LayerNorm follows that dense layer
    pooling: str = "first"  # input of that classifier: the "first" token's state, or the "mean" of all
    norm_first: bool = False  # LayerNorms before attention (not the first layer's) and feed-forward, and before heads
    gated: bool = False  # the feed-forward layer multiplies activated outputs by a second set of linear outputs
    rotary: tuple[float, ...] = ()  # base of each layer's rotary positions; empty = position embeddings
    windows: tuple[int, ...] = ()  # attention window of each layer: tokens on either side; 0 or empty = the whole text
    attention_bias: bool = True
    feed_forward_bias: bool = True
    norm_bias: bool = True
    head_bias: bool = True  # of the dense layer in the architecture's own classifier

    @property
    def head_width(self) -> int:
        """Width of one attention head."""
        return self.hidden // self.heads

    @property
    def embedded(self) -> int:
        """Width of the embeddings' tables."""
        return self.embedding_width or self.hidden

    def window(self, layer: int) -> int:
        """Attention window of layer 1 … L: tokens on either side; 0 = the whole text."""
        return self.windows[layer - 1] if self.windows else 0

    def settings(self) -> dict[str, Any]:
        """All fields that differ from their default: so a new field does not change fingerprints of older models."""
        fields = ((field, getattr(self, field.name)) for field in dataclasses.fields(self))
        return {field.name: value for field, value in fields if value != field.default}


@dataclass(frozen=True)
class Architecture:
    """One `model_type` of Hugging Face."""

    name: str  # prefix of transformers' classes: "Bert" in BertForSequenceClassification
    prefix: str  # of the encoder's tensors; absent if the bare encoder was saved
    sizes: Mapping[str, str]  # field of the spec that a student may change → key in `config.json`
    read: Callable[[Config], EncoderSpec]
    table: Callable[[EncoderSpec], Table]
    dense_spans: bool = False  # spans use the full classifier on each token, instead of a linear map `qa_outputs`

    def hf_class(self, task: str = "SequenceClassification") -> str:
        """The class of transformers that loads a saved folder, for `architectures` in its `config.json`."""
        return f"{self.name}For{task}"


ACTIVATIONS: Mapping[str, str] = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
}


def activation(config: Config, key: str = "hidden_act") -> str:
    """The feed-forward layer's activation; UserError for one that the engines do not compute."""
    name = str(config.get(key, "gelu"))
    if name not in ACTIVATIONS:
        raise UserError(f"config.json: {key} {name!r} is not supported; known: {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]


def with_kinds(modules: Mapping[str, tuple[str, ...]]) -> Table:
    """The table of weights and biases of these modules."""
    return {
        f"{name}.{kind}": tuple(f"{part}.{kind}" for part in parts)
        for name, parts in modules.items()
        for kind in ("weight", "bias")
    }
