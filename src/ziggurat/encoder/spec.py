"""An encoder's architecture as data: read from a Hugging Face `config.json`, used by every engine."""

from __future__ import annotations

from typing import Any

from ziggurat.encoder.architectures import ARCHITECTURES, REFUSED
from ziggurat.encoder.architectures.base import Config, EncoderSpec
from ziggurat.errors import UserError

__all__ = ["EncoderSpec", "read_spec", "with_sizes"]

_COUNTS = ("hidden", "layers", "heads", "intermediate", "vocabulary", "positions")
_MAY_BE_ZERO = ("segments", "position_offset", "embedding_width", "task_types")


def with_sizes(config: Config, spec: EncoderSpec) -> dict[str, Any]:
    """A `config.json` with the spec's layers and widths; what it says besides stays."""
    sizes = ARCHITECTURES[spec.model_type].sizes
    made = dict(config) | {key: getattr(spec, name) for name, key in sizes.items()}
    if config.get("layer_types"):
        made["layer_types"] = config["layer_types"][: spec.layers]  # of a student that keeps the first layers
    return made


def read_spec(config: Config) -> EncoderSpec:
    """The spec of a `config.json`; UserError for an architecture or an option that has none."""
    model_type = config.get("model_type")
    if model_type not in ARCHITECTURES:
        why = f": {REFUSED[model_type]}" if model_type in REFUSED else ""
        known = ", ".join(ARCHITECTURES)
        raise UserError(f"config.json: model_type {model_type!r} is not supported{why}; supported: {known}")
    try:
        spec = ARCHITECTURES[model_type].read(config)
    except KeyError as missing:
        raise UserError(f"config.json: key {missing} is missing; save the model again with save_pretrained") from None
    for names, least in ((_COUNTS, 1), (_MAY_BE_ZERO, 0)):
        for name in names:
            if type(getattr(spec, name)) is not int or getattr(spec, name) < least:
                raise UserError(
                    f"config.json: {name} {getattr(spec, name)!r}: must be a whole number of at least {least}"
                )
    if spec.hidden % spec.heads:
        raise UserError(f"config.json: {spec.heads} attention heads do not divide a width of {spec.hidden}")
    return spec
