"""ERNIE 1.0 to 3.0 as in transformers: BERT, and since 2.0 a task embedding, of which only the first row is used."""

from __future__ import annotations

from dataclasses import replace

from ziggurat.encoder.architectures import bert
from ziggurat.encoder.architectures.base import Architecture, Config, EncoderSpec, Table

PREFIX = "ernie."


def read(config: Config) -> EncoderSpec:
    """BERT's, with the number of tasks if the model was made with them (`use_task_id`)."""
    return replace(bert.read(config), task_types=config["task_type_vocab_size"] if config.get("use_task_id") else 0)


def table(spec: EncoderSpec) -> Table:
    """BERT's tensors under another prefix, and the table of tasks."""
    made = bert.family_table(spec, PREFIX, {"dense": f"{PREFIX}pooler.dense", "classes": "classifier"})
    if spec.task_types:
        made["encoder.embeddings.task.weight"] = (f"{PREFIX}embeddings.task_type_embeddings.weight",)
    return made


ERNIE = Architecture("Ernie", PREFIX, bert.SIZES, read, table)
