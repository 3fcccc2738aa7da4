"""Supported encoders. A new one needs a file here (a reader, a table of tensors) and a line in ARCHITECTURES."""

from __future__ import annotations

from collections.abc import Mapping

from ziggurat.encoder.architectures.base import Architecture
from ziggurat.encoder.architectures.bert import BERT
from ziggurat.encoder.architectures.distilbert import DISTILBERT
from ziggurat.encoder.architectures.electra import ELECTRA
from ziggurat.encoder.architectures.ernie import ERNIE
from ziggurat.encoder.architectures.modernbert import MODERNBERT
from ziggurat.encoder.architectures.roberta import CAMEMBERT, ROBERTA, XLM_ROBERTA

# `model_type` of a `config.json` → architecture
ARCHITECTURES: Mapping[str, Architecture] = {
    "bert": BERT,
    "roberta": ROBERTA,
    "xlm-roberta": XLM_ROBERTA,
    "camembert": CAMEMBERT,
    "distilbert": DISTILBERT,
    "electra": ELECTRA,
    "ernie": ERNIE,
    "modernbert": MODERNBERT,
}

_RELATIVE = (
    "its attention depends on the distance between tokens (disentangled), which the engines do not compute; "
    "fine-tune one of these instead"
)
# Model types that users often try, with the reason why they are refused.
_DECODERS = (
    "gpt2",
    "gpt_neo",
    "gpt_neox",
    "opt",
    "llama",
    "mistral",
    "qwen2",
    "qwen3",
    "gemma",
    "gemma2",
    "gemma3",
    "phi3",
)
REFUSED: Mapping[str, str] = {
    "deberta": _RELATIVE,
    "deberta-v2": _RELATIVE,
    "albert": "its layers share one set of weights; fine-tune one of these instead",
    **dict.fromkeys(_DECODERS, "it is a decoder, and only encoders run; fine-tune one of these instead"),
    **dict.fromkeys(
        ("t5", "mt5", "bart", "mbart"), "it has a decoder, and only encoders run; fine-tune one of these instead"
    ),
}
