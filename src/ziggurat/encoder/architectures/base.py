"""What an architecture is to Ziggurat: a `config.json` read into a spec, and a table of tensors. No torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ziggurat.errors import UserError

Config = Mapping[str, Any]
Table = dict[str, tuple[str, ...]]  # our tensor → the HF tensors that it joins along the first axis


@dataclass(frozen=True)
class EncoderSpec:
    """What a forward pass must know of an encoder. What has a default is BERT's where it says nothing else."""

    model_type: str  # Hugging Face's name of the architecture
    hidden: int  # width of a token state, d
    layers: int  # L
    heads: int
    intermediate: int  # width of the feed-forward layer
    vocabulary: int
    positions: int  # longest input, in tokens
    segments: int  # kinds of segment ids; where there are less than two nobody reads them
    activation: str  # of the feed-forward layer, a value of ACTIVATIONS
    layer_norm_eps: float
    dropout: float  # after embeddings, attention output and feed-forward, in training
    attention_dropout: float
    initializer_range: float
    position_offset: int = 0  # row of the position table that a text's first token reads
    embedding_width: int = 0  # of the embeddings, if a linear map takes them to `hidden`; 0 = they are that wide
    task_types: int = 0  # rows of a table of which every token reads the first
    head_activation: str = "tanh"  # of the dense layer in the architecture's own classifier; tanh, relu or gelu
    head_norm: bool = False  # that dense layer ends with a LayerNorm
    pooling: str = "first"  # which state that classifier reads: of the "first" token, or the "mean" of all
    norm_first: bool = False  # LayerNorms before attention (not the first layer's) and feed-forward, and before heads
    gated: bool = False  # the feed-forward layer multiplies what it activates with as many outputs that it does not
    rotary: tuple[float, ...] = ()  # base of each layer's rotary positions; empty = positions are embedded
    windows: tuple[int, ...] = ()  # how many places away each layer's tokens see; 0 or empty = the whole text
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
        """How many places away, on either side, tokens of layer 1 … L see; 0 = the whole text."""
        return self.windows[layer - 1] if self.windows else 0

    def settings(self) -> dict[str, Any]:
        """All fields but those at their defaults: a field that is added does not change older models' fingerprints."""
        fields = ((field, getattr(self, field.name)) for field in dataclasses.fields(self))
        return {field.name: value for field, value in fields if value != field.default}


@dataclass(frozen=True)
class Architecture:
    """One `model_type` of Hugging Face."""

    name: str  # how transformers' classes begin: "Bert" in BertForSequenceClassification
    prefix: str  # of the encoder's tensors; missing where the bare encoder was saved
    sizes: Mapping[str, str]  # a student's own sizes → where `config.json` says them
    read: Callable[[Config], EncoderSpec]
    table: Callable[[EncoderSpec], Table]
    dense_spans: bool = False  # spans are read by all of the classifier, of each token, and not by a map `qa_outputs`

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
    """The weight and the bias of each of these modules."""
    return {
        f"{ours}.{kind}": tuple(f"{part}.{kind}" for part in parts)
        for ours, parts in modules.items()
        for kind in ("weight", "bias")
    }
