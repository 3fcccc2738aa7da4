"""An encoder's architecture as data: read from a Hugging Face `config.json`, used by every engine."""

from __future__ import annotations

import math
from typing import Any, get_args, get_origin, get_type_hints

from ziggurat.encoder.architectures import ARCHITECTURES, REFUSED
from ziggurat.encoder.architectures.base import Architecture, Config, EncoderSpec
from ziggurat.errors import UserError, brief

__all__ = ["EncoderSpec", "read_spec", "with_sizes"]

_TYPES = get_type_hints(EncoderSpec)
_MOST_LAYERS = 1024  # a limit beyond all known encoders
_MOST_ROTARY = 2**20
_COUNTS = ("hidden", "layers", "heads", "intermediate", "vocabulary", "positions")
_MAY_BE_ZERO = ("segments", "position_offset", "embedding_width", "task_types")


def with_sizes(config: Config, spec: EncoderSpec) -> dict[str, Any]:
    """A `config.json` with the spec's layers and widths; other keys are unchanged."""
    sizes = ARCHITECTURES[spec.model_type].sizes
    made = dict(config) | {key: getattr(spec, name) for name, key in sizes.items()}
    if config.get("layer_types"):
        made["layer_types"] = config["layer_types"][: spec.layers]  # a student has the first layers
    return made


def _architecture(model_type: object) -> Architecture:
    known = ", ".join(ARCHITECTURES)
    if model_type is None:
        raise UserError(f"config.json: no model_type; add the encoder's, one of {known}")
    if not isinstance(model_type, str) or model_type not in ARCHITECTURES:
        why = f": {REFUSED[model_type]}" if isinstance(model_type, str) and model_type in REFUSED else ""
        raise UserError(f"config.json: model_type {brief(model_type)} is not supported{why}; supported: {known}")
    return ARCHITECTURES[model_type]


def read_spec(config: Config) -> EncoderSpec:
    """The spec of a `config.json`; UserError for an unsupported architecture, option or value."""
    architecture = _architecture(config.get("model_type"))
    layers = config.get(architecture.sizes["layers"], 1)
    if type(layers) is not int or not 1 <= layers <= _MOST_LAYERS:  # before any list of that length is made
        raise UserError(f"config.json: layers {brief(layers)}: must be a whole number of 1 … {_MOST_LAYERS}")
    try:
        spec = architecture.read(config)
    except KeyError as missing:
        raise UserError(f"config.json: key {missing} is missing; save the model again with save_pretrained") from None
    except (TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise UserError(f"config.json: a value is not what it must be ({error}); save the model again") from None
    _check_types(spec)
    for names, least in ((_COUNTS, 1), (_MAY_BE_ZERO, 0)):
        for name in names:
            if not least <= getattr(spec, name) < 2**31:
                raise UserError(
                    f"config.json: {name} {brief(getattr(spec, name))}: must be a whole number of at least {least}"
                )
    if spec.hidden % spec.heads:
        raise UserError(f"config.json: {spec.heads} attention heads do not divide a width of {spec.hidden}")
    if (
        spec.rotary and spec.positions > _MOST_ROTARY
    ):  # unlike a position table, rotary positions have no tensor that limits them
        raise UserError(f"config.json: positions {spec.positions}: at most {_MOST_ROTARY} are supported")
    return spec


def _check_types(spec: EncoderSpec) -> None:
    """UserError for a field of the wrong type: a configuration may hold any JSON value."""
    for name, hint in _TYPES.items():
        value = getattr(spec, name)
        inner, values = (get_args(hint)[0], value) if get_origin(hint) is tuple else (hint, (value,))
        for item in values:
            fits = isinstance(item, int | float) and math.isfinite(item) if inner is float else type(item) is inner
            if not fits or (inner is float and isinstance(item, bool)):
                wanted = {int: "a whole number", float: "a number", bool: "true or false"}.get(inner, "a text")
                raise UserError(f"config.json: {name} {brief(item)}: must be {wanted}; save the model again")
