"""Text of any kind, on its way to people and to files.

A text, a label or a file's name may hold what moves a terminal's cursor, turns its writing round or begins a new line,
and halves of characters (lone surrogates), which UTF-8 cannot hold.
"""

from __future__ import annotations

import json
import re
from typing import Any

_JOINERS = "\u200c\u200d"  # inside words and emoji; they are as harmless as letters
# What JSON may leave as it is, but a terminal, a reader of lines or UTF-8 does not: further control characters, ends of
# lines, marks of direction, surrogates.
_ESCAPED = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
_SURROGATES = re.compile("[\ud800-\udfff]")


def legible(text: str) -> str:
    """The text with a space for each character that moves the cursor or cannot be shown; as long as before."""
    return "".join(one if one.isprintable() or one in _JOINERS else " " for one in text)


def legible_values(values: Any) -> Any:
    """JSON values, or tuples, with all texts legible, names of keys too."""
    if isinstance(values, str):
        return legible(values)
    if isinstance(values, dict):
        return {legible_values(key): legible_values(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [legible_values(value) for value in values]
    return values


def json_text(values: Any, **how: Any) -> str:
    """JSON that says exactly `values`, whatever the texts in it, and that any file or terminal can hold; one line
    unless `how`, of `json.dumps`, says otherwise.
    """
    return _ESCAPED.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(values, ensure_ascii=False, **how))


def utf8(text: str) -> bytes:
    """For files that have no way to say half a character: U+FFFD stands for it."""
    return _SURROGATES.sub("\ufffd", text).encode()
