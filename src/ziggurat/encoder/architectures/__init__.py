"""The encoders that work. A new one is a file here (its reader, its table of tensors) and a line in ARCHITECTURES."""

from __future__ import annotations

from collections.abc import Mapping

from ziggurat.encoder.architectures.base import Architecture
from ziggurat.encoder.architectures.bert import BERT

ARCHITECTURES: Mapping[str, Architecture] = {"bert": BERT}  # `model_type` of a `config.json` → what it means
