"""Whose checkpoints a work folder keeps: a run goes on with its own, and never with those of another."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from accelerate import PartialState

from ziggurat.errors import UserError
from ziggurat.files import whole_file

_IDENTITY = "run.json"


def refuse_other_run(folder: Path, identity: Mapping[str, Any]) -> None:
    """UserError if the folder that keeps checkpoints holds those of another run."""
    file = folder / _IDENTITY
    wanted = json.loads(json.dumps(identity))
    if file.exists():
        found = json.loads(file.read_text("utf-8"))
        if differing := [key for key in wanted if found.get(key) != wanted[key]]:
            raise UserError(
                f"{folder}: holds an unfinished run with another {differing[0]}; remove it or choose another --out"
            )


def claim(folder: Path, identity: Mapping[str, Any]) -> None:
    """Makes the folder that keeps a run's checkpoints, and says in it whose they are."""
    state = PartialState()
    file = folder / _IDENTITY
    state.wait_for_everyone()  # who comes later has looked, too
    if state.is_main_process and not file.exists():
        with whole_file(file) as path:
            path.write_text(json.dumps(identity, indent=2) + "\n", "utf-8")
    state.wait_for_everyone()
