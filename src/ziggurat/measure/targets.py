"""Checks paths of results: they never replace inputs, nor files of a model's folder that are no results."""

from __future__ import annotations

import json
from pathlib import Path

from ziggurat.data.catalogue import parse_source
from ziggurat.data.folders import place_of
from ziggurat.data.tables import Source
from ziggurat.encoder.folder import CONFIG, MANIFEST, files_of
from ziggurat.errors import UserError
from ziggurat.files import refusals_explained, require_target
from ziggurat.report.document import GENERATOR
from ziggurat.report.plots import MAKER

# Keys in the first line of result files, by kind.
_ANSWERS, _NULLS, _ROWS, _MONITOR = {"tokens_left", "flops"}, {"label", "error"}, {"what", "commit"}, {"watch", "drawn"}
_WEIGHTS = ("*.safetensors", "*.bin")
_HEAD = 1 << 24  # bytes: a first line may hold a long text


def check_result_path(path: Path, model: str, *sources: Source | None) -> None:
    """As `require_target`, for a result of `model` whose path may be in the folder of any model or checkpoint.

    There it raises a UserError for an existing file that is no earlier result: tokenizer, weights, card or data.
    """
    read = [folder_of(source) for source in sources]
    require_target(path, *read, *files_of(model))
    places = (path.absolute(), path.resolve()) if path.exists() else ()
    folder = next((parent for place in places for parent in place.parents if _is_models(parent)), None)
    if folder is not None and not _is_result(path):
        raise UserError(f"{path}: is one of the files of the model in {folder}; choose another name")


def folder_of(source: Source | None) -> Path | None:
    """The files of a source: the folder of a task, else the file or folder itself; None = no files."""
    named = parse_source(source)
    return place_of(source) if named is None else named.folder


def _is_models(folder: Path) -> bool:
    """Whether it is the folder of a model, a tier or a checkpoint."""
    weights = (path for pattern in _WEIGHTS for path in folder.glob(pattern))
    return (folder / MANIFEST).exists() or ((folder / CONFIG).exists() and any(weights))


def _is_result(path: Path) -> bool:
    """Whether this package wrote the file: answers, result rows, a monitor's state, a page or a figure."""
    if not path.is_file():
        return True  # a terminal or a pipe, where no data is lost
    with refusals_explained(path), path.open("rb") as file:
        first = file.readline(_HEAD)
        head = first + file.read(4000)
    if GENERATOR.encode() in head or (path.suffix in (".png", ".svg") and MAKER.encode() in head):
        return True
    try:
        values = json.loads(first)
    except (ValueError, RecursionError):
        return not head.strip()  # an empty file
    return isinstance(values, dict) and any(kind <= values.keys() for kind in (_ANSWERS, _NULLS, _ROWS, _MONITOR))
