"""Settings: frozen dataclasses read from TOML. An unknown key is an error that names the nearest known one."""

from __future__ import annotations

import dataclasses
import difflib
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from ziggurat.errors import UserError

T = TypeVar("T")


@dataclass(frozen=True)
class StageConfig:
    """One training stage."""

    kind: str  # "regular" or "heads", see ziggurat.train.stages
    epochs: float  # passes over the train rows
    learning_rate: float  # peak of the linear schedule
    batch_size: int = 32  # rows per process and step
    accumulate: int = 1  # steps per update of the weights
    warmup: float = 0.1  # share of the updates during which the rate rises
    weight_decay: float = 0.01  # AdamW, not on biases and LayerNorms
    max_gradient: float = 1.0  # norm to which gradients are clipped
    evaluations: int = 2  # how often per epoch the select rows are looked at, and a checkpoint kept
    label_weight: float = 0.0  # heads: share of cross-entropy against labels beside the KL divergence
    reverse_kl: bool = False  # heads: KL(student ‖ teacher) as MP eq. 3 is printed, not KL(teacher ‖ student)

    def __post_init__(self) -> None:
        _require(self.epochs > 0, "epochs", self.epochs, "more than 0")
        _require(self.learning_rate > 0, "learning_rate", self.learning_rate, "more than 0")
        _require(self.batch_size >= 1, "batch_size", self.batch_size, "at least 1")
        _require(self.accumulate >= 1, "accumulate", self.accumulate, "at least 1")
        _require(0 <= self.warmup < 1, "warmup", self.warmup, "in [0, 1)")
        _require(self.weight_decay >= 0, "weight_decay", self.weight_decay, "at least 0")
        _require(self.max_gradient > 0, "max_gradient", self.max_gradient, "more than 0")
        _require(self.evaluations >= 1, "evaluations", self.evaluations, "at least 1")
        _require(0 <= self.label_weight <= 1, "label_weight", self.label_weight, "in [0, 1]")


@dataclass(frozen=True)
class Recipe:
    """How a model is made from a backbone and data."""

    name: str
    description: str
    stages: tuple[StageConfig, ...]
    max_length: int = 256  # tokens that are read of an input
    head_kind: str = "fastbert"  # preset of ziggurat.encoder.heads
    head_layers: tuple[int, ...] | None = None  # after which layers heads stand; None = after each but the last
    dropout: float | None = None  # share of activations dropped in training; None = what the checkpoint says
    select: float = 0.1  # share of the rows that chooses epochs and thresholds
    certify: float = 0.1  # share of the rows that is kept out of everything until `ziggurat calibrate`
    exit_score: str = "entropy"  # of the operating points, see ziggurat.policies.exits
    temperatures: bool = False  # fit a temperature per rung on the select rows
    seed: int = 0

    def __post_init__(self) -> None:
        _require(bool(self.stages), "stages", self.stages, "at least one")
        _require(self.max_length >= 3, "max_length", self.max_length, "at least 3")
        _require(self.dropout is None or 0 <= self.dropout < 1, "dropout", self.dropout, "in [0, 1)")
        _require(self.select > 0, "select", self.select, "more than 0")
        _require(0 <= self.certify < 1 - self.select, "certify", self.certify, "at least 0, and leave rows to train on")


def load_recipe(name: str) -> Recipe:
    """A recipe by the name under which Ziggurat ships it, or from a TOML file."""
    shipped = {
        path.name.removesuffix(".toml"): path for path in recipe_folder().iterdir() if path.name.endswith(".toml")
    }
    path = Path(name)
    if name not in shipped and not path.is_file():
        raise UserError(f"recipe {name!r}: neither a file nor one of {', '.join(sorted(shipped))}")
    try:
        values = tomllib.loads(shipped.get(name, path).read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{name}: not valid TOML ({error})") from None
    return from_mapping(Recipe, values, where=name)


def recipe_folder() -> Any:
    """The folder of the shipped recipes."""
    return resources.files("ziggurat.train") / "recipes"


def from_mapping(kind: type[T], values: Mapping[str, Any], where: str) -> T:
    """A dataclass from plain values, nested ones included; UserError names an unknown, missing or mistyped key."""
    hints = typing.get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for key in values:
        if key not in fields:
            nearest = difflib.get_close_matches(key, fields, 1)
            hint = f"did you mean {nearest[0]!r}?" if nearest else f"known: {', '.join(fields)}"
            raise UserError(f"{where}: unknown key {key!r}; {hint}")
    for key, field in fields.items():
        if key not in values and field.default is dataclasses.MISSING:
            raise UserError(f"{where}: key {key!r} is missing")
    try:
        return kind(**{key: _convert(value, hints[key], f"{where}: {key}") for key, value in values.items()})
    except ValueError as error:
        raise UserError(f"{where}: {error}") from None


def _convert(value: Any, hint: Any, where: str) -> Any:
    """`value` as the type `hint` says: int, float, str, bool, a dataclass, a mapping, a tuple of these, or a choice."""
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
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint:
        raise UserError(f"{where}: must be {hint.__name__}, not {value!r}")
    return value


def _checked(value: Any, kind: Any, name: str, where: str) -> Any:
    if not isinstance(value, kind):
        raise UserError(f"{where}: must be {name}, not {value!r}")
    return value


def _require(holds: bool, key: str, value: object, wanted: str) -> None:
    if not holds:
        raise ValueError(f"{key} {value!r}: must be {wanted}")
