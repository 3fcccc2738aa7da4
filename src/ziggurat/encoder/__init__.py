"""Encoder room: architecture and cost as data (no torch), and one differentiable forward over packed batches."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ziggurat.lazy import lazily

if TYPE_CHECKING:
    from ziggurat.encoder.cascade import with_deferral, write_cascade
    from ziggurat.encoder.finetuned import answers_of, has_classifier
    from ziggurat.encoder.flops import full_flops, layer_flops, path_flops, rung_flops
    from ziggurat.encoder.folder import (
        CONFIG,
        EXTRAS,
        LABEL_RANGE,
        MANIFEST,
        TOKENIZER,
        WEIGHTS,
        Manifest,
        check_fingerprint,
        fingerprint,
        read_manifest,
        trained_rows,
        with_pruning_values,
        write_manifest,
        write_point,
    )
    from ziggurat.encoder.hub import local_folder
    from ziggurat.encoder.model_files import read_model
    from ziggurat.encoder.sealing import seal_folder
    from ziggurat.encoder.spec import read_spec
    from ziggurat.encoder.tokenizer_files import copy_tokenizer
    from ziggurat.encoder.torch.attention import attend, attend_and_score
    from ziggurat.encoder.torch.checkpoint import load_hf, load_model, read_config, save_model
    from ziggurat.encoder.torch.int8 import Int8Linear, simulate_int8
    from ziggurat.encoder.torch.model import EncoderModel, SpanModel
    from ziggurat.encoder.torch.parts import Dropout, RowLinear
    from ziggurat.encoder.torch.pruning import starting_values
    from ziggurat.encoder.torch.soft import soft_logits
    from ziggurat.encoder.weights import from_hf, map_tensors, to_hf

_HOMES = {
    "CONFIG": "ziggurat.encoder.folder",
    "Dropout": "ziggurat.encoder.torch.parts",
    "EXTRAS": "ziggurat.encoder.folder",
    "EncoderModel": "ziggurat.encoder.torch.model",
    "Int8Linear": "ziggurat.encoder.torch.int8",
    "LABEL_RANGE": "ziggurat.encoder.folder",
    "MANIFEST": "ziggurat.encoder.folder",
    "Manifest": "ziggurat.encoder.folder",
    "RowLinear": "ziggurat.encoder.torch.parts",
    "SpanModel": "ziggurat.encoder.torch.model",
    "TOKENIZER": "ziggurat.encoder.folder",
    "WEIGHTS": "ziggurat.encoder.folder",
    "answers_of": "ziggurat.encoder.finetuned",
    "attend": "ziggurat.encoder.torch.attention",
    "attend_and_score": "ziggurat.encoder.torch.attention",
    "check_fingerprint": "ziggurat.encoder.folder",
    "copy_tokenizer": "ziggurat.encoder.tokenizer_files",
    "fingerprint": "ziggurat.encoder.folder",
    "from_hf": "ziggurat.encoder.weights",
    "full_flops": "ziggurat.encoder.flops",
    "has_classifier": "ziggurat.encoder.finetuned",
    "layer_flops": "ziggurat.encoder.flops",
    "load_hf": "ziggurat.encoder.torch.checkpoint",
    "load_model": "ziggurat.encoder.torch.checkpoint",
    "local_folder": "ziggurat.encoder.hub",
    "map_tensors": "ziggurat.encoder.weights",
    "path_flops": "ziggurat.encoder.flops",
    "read_config": "ziggurat.encoder.torch.checkpoint",
    "read_manifest": "ziggurat.encoder.folder",
    "read_model": "ziggurat.encoder.model_files",
    "read_spec": "ziggurat.encoder.spec",
    "rung_flops": "ziggurat.encoder.flops",
    "save_model": "ziggurat.encoder.torch.checkpoint",
    "seal_folder": "ziggurat.encoder.sealing",
    "simulate_int8": "ziggurat.encoder.torch.int8",
    "soft_logits": "ziggurat.encoder.torch.soft",
    "starting_values": "ziggurat.encoder.torch.pruning",
    "to_hf": "ziggurat.encoder.weights",
    "trained_rows": "ziggurat.encoder.folder",
    "with_deferral": "ziggurat.encoder.cascade",
    "with_pruning_values": "ziggurat.encoder.folder",
    "write_cascade": "ziggurat.encoder.cascade",
    "write_manifest": "ziggurat.encoder.folder",
    "write_point": "ziggurat.encoder.folder",
}
__all__ = [
    "CONFIG",
    "Dropout",
    "EXTRAS",
    "EncoderModel",
    "Int8Linear",
    "LABEL_RANGE",
    "MANIFEST",
    "Manifest",
    "RowLinear",
    "SpanModel",
    "TOKENIZER",
    "WEIGHTS",
    "answers_of",
    "attend",
    "attend_and_score",
    "check_fingerprint",
    "copy_tokenizer",
    "fingerprint",
    "from_hf",
    "full_flops",
    "has_classifier",
    "layer_flops",
    "load_hf",
    "load_model",
    "local_folder",
    "map_tensors",
    "path_flops",
    "read_config",
    "read_manifest",
    "read_model",
    "read_spec",
    "rung_flops",
    "save_model",
    "seal_folder",
    "simulate_int8",
    "soft_logits",
    "starting_values",
    "to_hf",
    "trained_rows",
    "with_deferral",
    "with_pruning_values",
    "write_cascade",
    "write_manifest",
    "write_point",
]

__getattr__ = lazily(__name__, _HOMES)
