"""ELECTRA: BERT with narrow embeddings that a linear map widens, and a classifier of its own."""

from __future__ import annotations

from dataclasses import replace

from ziggurat.encoder.architectures import bert
from ziggurat.encoder.architectures.base import Architecture, Config, EncoderSpec, Table, with_kinds

PREFIX = "electra."
SIZES = bert.SIZES | {"embedded": "embedding_size"}


def read(config: Config) -> EncoderSpec:
    """BERT's, with the embeddings' width if it differs; the classifier always has GELU."""
    spec = bert.read(config)
    width = config["embedding_size"]
    return replace(spec, embedding_width=0 if width == spec.hidden else width, head_activation="gelu")


def table(spec: EncoderSpec) -> Table:
    """BERT's encoder with a projection after the embeddings, no pooler, and a classifier of two layers."""
    made = bert.family_table(spec, PREFIX, {"dense": "classifier.dense", "classes": "classifier.out_proj"})
    projection = with_kinds({"encoder.embeddings.project": (f"{PREFIX}embeddings_project",)})
    return made | (projection if spec.embedding_width else {})


ELECTRA = Architecture("Electra", PREFIX, SIZES, read, table)
