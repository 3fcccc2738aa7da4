"""Native room: the CPU engine `_core`, compiled from the C++ in `native/`; an installation may lack it. No torch.

`native.Engine` and the other names of `_core` are looked up on first use; UserError if `_core` is missing.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ziggurat.errors import UserError

if TYPE_CHECKING:
    from ziggurat.native._core import BilstmTier, Engine, ExitRule, StaticTier, TokenRule, instructions, kernels

__all__ = ["BilstmTier", "Engine", "ExitRule", "StaticTier", "TokenRule", "instructions", "kernels"]

_MODULE = "ziggurat.native._core"
_NOT_COMPILED = (
    "the compiled engine is missing: no C++17 compiler worked when ziggurat was installed; with g++ or clang, "
    "`pip install --force-reinstall --no-deps --no-cache-dir .` in Ziggurat's folder (with its Makefile: `make native`)"
)


def __getattr__(name: str) -> Any:
    """A name of the compiled module; UserError if the module is missing."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(core(), name)


def core() -> ModuleType:
    """The compiled module; UserError with the line of `why_missing` if it is missing."""
    try:
        return import_module(_MODULE)
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError) and error.name == _MODULE:
            raise UserError(_NOT_COMPILED) from None
        raise UserError(f"the compiled engine does not load: {' '.join(str(error).split())}") from error


def why_missing() -> str | None:
    """One line that explains why `core` fails; None if it does not."""
    try:
        core()
    except UserError as error:
        return str(error)
    return None
