"""Work folders of unfinished trainings: a run resumes only its own checkpoints."""

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
def exclusive_folder(folder: Path) -> Iterator[None]:
    """Reserves a work folder for one training at a time; UserError while another one uses it.

    Folders that it creates are removed again if they stay empty.
    """
    if os.environ.get("RANK", "0") != "0":  # the first process reserves it for all processes of a training
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
            with suppress(OSError):  # it is not empty, or was removed
                path.rmdir()


def identity_of(source: Path) -> list[str]:
    """Identity of a model: its folder and a digest of its content, since it may be trained again in the same folder."""
    if (source / MANIFEST).exists():
        return [str(source.resolve()), read_manifest(source).fingerprint]
    digest = hashlib.sha256()
    settings = [source / name for name in (CONFIG, *TOKENIZER_FILES)]
    for path in (*filter(Path.is_file, settings), *weight_files(source)):
        with path.open("rb") as file:
            digest.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return [str(source.resolve()), digest.hexdigest()]


def refuse_other_run(folder: Path, identity: Mapping[str, Any]) -> None:
    """UserError if the work folder has checkpoints of another run."""
    file = folder / _IDENTITY
    wanted = json.loads(json.dumps(identity))
    if file.exists():
        found = json.loads(file.read_text("utf-8"))
        if differing := [key for key in wanted if found.get(key) != wanted[key]]:
            raise UserError(
                f"{folder}: holds an unfinished run with another {differing[0]}; remove it or choose another --out"
            )


def claim(folder: Path, identity: Mapping[str, Any]) -> None:
    """Writes the run's identity into its work folder."""
    state = PartialState()
    file = folder / _IDENTITY
    state.wait_for_everyone()  # until all processes have checked the folder
    if state.is_main_process and not file.exists():
        with whole_file(file) as path:
            path.write_text(json.dumps(identity, indent=2) + "\n", "utf-8")
    state.wait_for_everyone()
