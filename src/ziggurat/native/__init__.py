"""Native room: the CPU engine, compiled from `cpp/` to `_core`; an installation may lack it. No torch."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from ziggurat.errors import UserError

_MODULE = "ziggurat.native._core"
_NOT_COMPILED = (
    "the compiled engine is missing: no C++17 compiler worked when ziggurat was installed; with g++ or clang, "
    "`pip install --force-reinstall --no-deps --no-cache-dir .` in Ziggurat's folder (with its Makefile: `make native`)"
)


def core() -> ModuleType:
    """The compiled module; UserError with the line of `why_missing` where there is none."""
    try:
        return import_module(_MODULE)
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError) and error.name == _MODULE:
            raise UserError(_NOT_COMPILED) from None
        raise UserError(f"the compiled engine does not load: {' '.join(str(error).split())}") from error


def why_missing() -> str | None:
    """One line that says why `core` gives nothing; None where it does."""
    try:
        core()
    except UserError as error:
        return str(error)
    return None
