"""Command lines of version 0.1, which work for one release: they are translated, with a warning."""

from __future__ import annotations

from collections.abc import Sequence

from ziggurat.cli.output import warn

_BENCH = {"--peers": "compare", "--profile": "profile"}  # flags of `bench` that are commands now


def translated(line: Sequence[str]) -> list[str]:
    """The words behind `ziggurat` as they are written now; whatever follows `--` stays as it is."""
    end = line.index("--") if "--" in line else len(line)
    words, rest = list(line[:end]), list(line[end:])
    if words[:2] == ["report", "grid"]:
        warn("`ziggurat report grid` is now `ziggurat report sweep`; the old name goes with the next version")
        words[1] = "sweep"
    for flag, command in _BENCH.items():
        if words[:1] == ["bench"] and flag in words:
            warn(f"`ziggurat bench {flag}` is now `ziggurat {command}`; the old option goes with the next version")
            words = [command, *(word for word in words[1:] if word != flag)]
    return [*_renamed(words, "--engine", "--backend"), *rest]


def _renamed(words: Sequence[str], old: str, new: str) -> list[str]:
    """The words with an option's new name, also in `--old=value`."""
    found = [new + word.removeprefix(old) if word == old or word.startswith(f"{old}=") else word for word in words]
    if found != list(words):
        warn(f"{old} is now {new}; the old option goes with the next version")
    return found
