"""Where results are written: never over what is read, nor in a model's folder over a file that is no result."""

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

# What the first line of a file of ours says, whichever of these kinds it is.
_ANSWERS, _NULLS, _ROWS, _MONITOR = {"tokens_left", "flops"}, {"label", "error"}, {"what", "commit"}, {"watch", "drawn"}
_WEIGHTS = ("*.safetensors", "*.bin")
_HEAD = 1 << 24  # bytes: a first line may hold a long text


def require_result(path: Path, model: str, *sources: Source | None) -> None:
    """As `require_target`, for a result of `model` that may lie in a folder of any model or checkpoint.

    UserError there for a file that exists and is no earlier result: a tokenizer's file, weights, a card, data.
    """
    read = [folder_of(source) for source in sources]
    require_target(path, *read, *files_of(model))
    places = (path.absolute(), path.resolve()) if path.exists() else ()
    folder = next((each for place in places for each in place.parents if _is_models(each)), None)
    if folder is not None and not _is_result(path):
        raise UserError(f"{path}: is one of the files of the model in {folder}; choose another name")


def folder_of(source: Source | None) -> Path | None:
    """Where a source's files are: the folder of a task that is read from one, else the file or folder itself."""
    named = parse_source(source)
    return place_of(source) if named is None else named.folder


def _is_models(folder: Path) -> bool:
    """Whether it is a model's, a tier's or a checkpoint's."""
    weights = (path for pattern in _WEIGHTS for path in folder.glob(pattern))
    return (folder / MANIFEST).exists() or ((folder / CONFIG).exists() and any(weights))


def _is_result(path: Path) -> bool:
    """Whether this package wrote it: answers, result rows, a monitor's state, a page or a figure."""
    if not path.is_file():
        return True  # a terminal or a pipe, which nothing is lost from
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
