"""RoBERTa, XLM-RoBERTa and CamemBERT, which differ only in their tokenizers."""

from __future__ import annotations

from dataclasses import replace

from ziggurat.encoder.architectures import bert
from ziggurat.encoder.architectures.base import Architecture, Config, EncoderSpec, Table
from ziggurat.errors import UserError

PREFIX = "roberta."


def read(config: Config) -> EncoderSpec:
    """BERT's, but rows 0 … id of the padding token of the position table are not positions in a text."""
    spec = bert.read(config)
    padding = config.get("pad_token_id", 1)
    for key, value in (("pad_token_id", padding), ("max_position_embeddings", spec.positions)):
        if type(value) is not int or value < 0:
            raise UserError(f"config.json: {key} {value!r}: must be a whole number of at least 0")
    return replace(spec, positions=spec.positions - padding - 1, position_offset=padding + 1)


def table(spec: EncoderSpec) -> Table:
    """BERT's encoder without a pooler, and a classifier of two layers."""
    return bert.family_table(spec, PREFIX, {"dense": "classifier.dense", "classes": "classifier.out_proj"})


ROBERTA = Architecture("Roberta", PREFIX, bert.SIZES, read, table)
XLM_ROBERTA = replace(ROBERTA, name="XLMRoberta")
CAMEMBERT = replace(ROBERTA, name="Camembert")
