"""Replaces what stands between two markers of a page."""

from __future__ import annotations


def between(page: str, begin: str, end: str, text: str) -> str:
    """The page with `text` between its lines `begin` and `end`."""
    before, rest = page.split(begin)
    _, after = rest.split(end)
    return f"{before}{begin}{text}{end}{after}"
