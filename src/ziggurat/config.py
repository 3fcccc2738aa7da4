"""Settings: frozen dataclasses made from plain values. The error for an unknown key suggests the nearest known one."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from ziggurat.errors import UserError, brief

T = TypeVar("T")

_LARGEST = 2**1023  # whole numbers below this fit into a float
DEVICES = ("auto", "cpu", "cuda")


def from_mapping(kind: type[T], values: Mapping[str, Any], where: str) -> T:
    """Makes a dataclass, also a nested one, from plain values. UserError names an unknown, missing or mistyped key."""
    hints = typing.get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for key in values:
        if key not in fields:
            nearest = difflib.get_close_matches(key, fields, 1)
            hint = f"did you mean {nearest[0]!r}?" if nearest else f"known: {', '.join(fields)}"
            raise UserError(f"{where}: unknown key {brief(key)}; {hint}")
    for key, field in fields.items():
        if key not in values and field.default is field.default_factory is dataclasses.MISSING:
            raise UserError(f"{where}: key {key!r} is missing")
    try:
        return kind(**{key: _convert(value, hints[key], f"{where}: {key}") for key, value in values.items()})
    except ValueError as error:
        raise UserError(f"{where}: {error}") from None


def _convert(value: Any, hint: Any, where: str) -> Any:
    """Converts `value` to the type `hint`: int, float, str, bool, dataclass, mapping, a tuple of these, or a union."""
    if isinstance(hint, types.UnionType):
        options = typing.get_args(hint)
        if type(value) in options:
            return value
        hint = options[0]
    if typing.get_origin(hint) is tuple:
        inner = typing.get_args(hint)[0]
        return tuple(
            _convert(item, inner, f"{where}[{index}]")
            for index, item in enumerate(_checked(value, list | tuple, "a list", where))
        )
    if dataclasses.is_dataclass(hint):
        return from_mapping(typing.cast(type, hint), _checked(value, Mapping, "a table", where), where)
    if typing.get_origin(hint) is Mapping:
        return _checked(value, Mapping, "a table", where)
    if hint is float and type(value) is int and abs(value) < _LARGEST:
        return float(value)
    if type(value) is not hint:
        raise UserError(f"{where}: must be {hint.__name__}, not {brief(value)}")
    return value


def _checked(value: Any, kind: Any, name: str, where: str) -> Any:
    if not isinstance(value, kind):
        raise UserError(f"{where}: must be {name}, not {brief(value)}")
    return value


def require(holds: bool, key: str, value: object, wanted: str) -> None:
    """ValueError with the key, its value and what is wanted, unless `holds`."""
    if not holds:
        raise ValueError(f"{key} {brief(value)}: must be {wanted}")
