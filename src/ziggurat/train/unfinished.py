"""Whose checkpoints a work folder keeps: a run goes on with its own, and never with those of another."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from accelerate import PartialState

from ziggurat.encoder.containers import weight_files
from ziggurat.encoder.folder import CONFIG, MANIFEST, TOKENIZER_FILES, read_manifest
from ziggurat.errors import UserError
from ziggurat.files import refusals_explained, whole_file
from ziggurat.locks import locked_file

_IDENTITY = "run.json"
_LOCK = "lock"


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keeps a work folder for one training at a time; UserError while there is another. Folders that it makes and
    that stay empty go again.
    """
    if os.environ.get("RANK", "0") != "0":  # of several processes of one training the first keeps it for all
        yield
        return
    made = [path for path in (folder, *folder.absolute().parents) if not path.exists()]
    with refusals_explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
    try:
        with locked_file(folder / _LOCK, f"{folder}: another training is at work in it; choose another --out"):
            yield
    finally:
        for path in made:
            with suppress(OSError):  # it holds something, or is gone
                path.rmdir()


def identity_of(source: Path) -> list[str]:
    """Which model that is: its folder and what is in it, for one that was trained anew in the same place is another."""
    if (source / MANIFEST).exists():
        return [str(source.resolve()), read_manifest(source).fingerprint]
    digest = hashlib.sha256()
    settings = [source / name for name in (CONFIG, *TOKENIZER_FILES)]
    for path in (*filter(Path.is_file, settings), *weight_files(source)):
        with path.open("rb") as file:
            digest.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return [str(source.resolve()), digest.hexdigest()]


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
