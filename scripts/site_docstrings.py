"""What mkdocstrings reads of the source beside docstrings: comments of fields, and examples (see mkdocs.yml).

The fields of a record are described by a comment in their line, or by comment lines above. Examples in a docstring are
lines that begin with `>>>`, up to the next blank line; they become blocks of code.
"""

from __future__ import annotations

import re
import tokenize
from collections.abc import Iterator, Sequence
from typing import Any

import griffe


class Comments(griffe.Extension):
    """Describes fields without a docstring by their comments, and puts examples into blocks."""

    def on_attribute_instance(self, *, attr: griffe.Attribute, **_: Any) -> None:
        """A field, or a constant."""
        lines = attr.parent.source.splitlines() if isinstance(attr.parent, griffe.Class) else []
        if attr.docstring is None and attr.lineno is not None and lines:
            first = attr.lineno - (attr.parent.lineno or 1)
            last = (attr.endlineno or attr.lineno) - (attr.parent.lineno or 1)
            if text := comment_of(lines, first, last):
                attr.docstring = griffe.Docstring(text, parent=attr)

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Anything that has a docstring."""
        if obj.docstring is not None:
            obj.docstring.value = with_blocks(obj.docstring.value)


def comment_of(lines: Sequence[str], first: int, last: int) -> str:
    """The comment in a statement that stands in these lines of a source, or directly above it; "" = there is none."""
    inside = " ".join(_comments(lines[first : last + 1]))
    if inside:
        return inside
    above: list[str] = []
    while first > 0 and lines[first - 1].lstrip().startswith("#"):
        first -= 1
        above.insert(0, lines[first].strip(" #"))
    return " ".join(above)


def _comments(lines: Sequence[str]) -> Iterator[str]:
    source = iter([f"{line.strip()}\n" for line in lines])
    try:
        for token in tokenize.generate_tokens(lambda: next(source, "")):
            if token.type == tokenize.COMMENT:
                yield token.string.lstrip("# ")
    except (tokenize.TokenError, IndentationError):  # a part of a statement
        return


def with_blocks(text: str) -> str:
    """The docstring with each example in a fence of its own, and a blank line before each list."""
    fenced = re.sub(r"(?m)^>>> .*\n?(?:^(?!\s*$).*\n?)*", lambda found: f"```pycon\n{found[0].rstrip()}\n```\n", text)
    return re.sub(r"(?m)^(?![-*] )(\S.*)\n(?=[-*] )", r"\1\n\n", fenced)
