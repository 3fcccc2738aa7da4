"""Data sets by name: a source `task:NAME@SPLIT` is one on the hub, `task:NAME@SPLIT:FOLDER` one in a local folder."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path

from ziggurat.data.catalogue import TASKS, Task
from ziggurat.errors import UserError

PREFIX = "task:"
TRAIN = "train"


@dataclass(frozen=True)
class Named:
    """One split of a task, from somewhere."""

    task: Task
    split: str
    folder: Path | None  # None = from the hub

    @property
    def source(self) -> str:
        """How it is written wherever a source is named."""
        return f"{PREFIX}{self.task.name}@{self.split}" + ("" if self.folder is None else f":{self.folder}")


def task_by_name(name: str) -> Task:
    """A task of `TASKS`; UserError names the nearest, or all."""
    if name in TASKS:
        return TASKS[name]
    nearest = difflib.get_close_matches(name, TASKS, 1) or [known for known in TASKS if known.endswith(f"/{name}")]
    hint = f"did you mean {nearest[0]!r}?" if nearest else f"known: {', '.join(TASKS)}"
    raise UserError(f"task {name!r} is not known; {hint}")


def task_source(name: str, training: bool, folder: str | None = None) -> str:
    """The source of NAME or NAME@SPLIT; without a split that of training, or that on which models are compared."""
    plain, _, split = name.partition("@")
    task = task_by_name(plain)
    place = None if folder is None else Path(folder)
    return _checked(Named(task, split or (TRAIN if training else task.evaluation), place)).source


def parse_source(source: str) -> Named | None:
    """What a source of a task says; None for any other source, UserError for an unknown task or split."""
    if not source.startswith(PREFIX):
        return None
    name, _, rest = source.removeprefix(PREFIX).partition("@")
    split, _, folder = rest.partition(":")
    return _checked(Named(task_by_name(name), split, Path(folder) if folder else None))


def task_of(source: str) -> Task | None:
    """The task of a source, None if it has none; a source that an older version wrote is no mistake."""
    try:
        found = parse_source(source)
    except UserError:
        return None
    return None if found is None else found.task


def _checked(named: Named) -> Named:
    if named.split not in named.task.splits:
        splits = ", ".join(named.task.splits)
        missing = f"no split {named.split!r}; it has" if named.split else "no split named; write @ and one of"
        raise UserError(f"task {named.task.name!r}: {missing} {splits}")
    return named
