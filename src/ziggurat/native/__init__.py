"""The compiled CPU engine. Python gets it from `core()`, or from `why_missing()` why it is not there."""

from __future__ import annotations

import importlib
from functools import cache
from typing import Any


@cache
def _loaded() -> Any:
    """The compiled module, or the ImportError that says why it is not there."""
    try:
        return importlib.import_module("ziggurat.native._core")
    except ImportError as error:
        return error


def core() -> Any:
    """The compiled module; ImportError where it is missing."""
    found = _loaded()
    if isinstance(found, ImportError):
        raise found
    return found


def why_missing() -> str | None:
    """One line on why the compiled engine is not there; None if it is."""
    found = _loaded()
    return f"{found}; reinstall where a C++17 compiler is found" if isinstance(found, ImportError) else None
