"""Which files a source's rows are in: a file, a folder of files, of splits, of texts by label, or saved by datasets."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ziggurat.data.decoding import decoded, format_of, unpacked
from ziggurat.data.tables import READERS, TEXT, Source, Table, read_table
from ziggurat.errors import UserError

LABEL = "label"
_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev", "development", "eval"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_STATE, _SPLITS_OF = "state.json", "dataset_dict.json"  # what `save_to_disk` writes beside a data set, and several
_NO_ROWS = {_STATE, _SPLITS_OF, "dataset_info.json", "dataset_infos.json"}
_UNLABELLED = "unsup"  # the Large Movie Review Dataset's folder of texts without a label
_ARCHIVES = (".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst", ".7z", ".rar")
_TEXTS = ("", ".txt")  # how files end that hold one text each

Found = Mapping[str | None, Sequence[Path]]  # split (None = the name says none) → its files, or folders of texts


def tables_in(source: str, encoding: str | None = None, lenient: bool = False) -> list[Table]:
    """The tables of FILE, FOLDER or FOLDER@SPLIT, file by file in the order of their names.

    Raises:
        UserError: no such place, no data in it, several splits and none named, or a file that cannot be read.
    """
    path, split = _parts(source)
    if not path.is_dir():
        return [read_table(_data_file(path, source), encoding, lenient)]
    found = _found(path)
    if not found:
        raise UserError(f"{source}: no data files in this folder; it needs {', '.join(READERS)}, or a folder per label")
    places = _chosen(found, path, split)
    if not places[0].is_dir():
        tables = [read_table(place, encoding, lenient) for place in places]
        return _with_note(tables, _note_on_others(path) if places[0].parent == path else None)
    labelled = [place for place in places if place.name != _UNLABELLED]
    tables = [_texts_of(folder, encoding, len(labelled) > 1) for folder in labelled]
    left_out = f"{path}: the texts in {_UNLABELLED} have no label and are left out"
    return _with_note(tables, left_out if len(labelled) < len(places) else None)


def _with_note(tables: list[Table], note: str | None) -> list[Table]:
    """The tables with a note added to the first; None = no note."""
    if note is None:
        return tables
    return [replace(tables[0], notes=(*tables[0].notes, note)), *tables[1:]]


def _note_on_others(folder: Path) -> str | None:
    """A note on unread folders with data files beside the data files; None = there are none."""
    folders = sorted(inner for inner in folder.iterdir() if inner.is_dir() and not inner.name.startswith("."))
    unread = [
        inner.name for inner in folders if os.access(inner, os.R_OK | os.X_OK) and any(map(_is_data, inner.iterdir()))
    ]
    return f"{folder}: only its own files are read, not those in {', '.join(unread)}" if unread else None


def place_of(source: Source | None) -> Path | None:
    """The file or folder of a source, without @SPLIT; None for rows in memory.

    For sources on the hub and named ones, the path does not exist.
    """
    return _parts(source)[0] if isinstance(source, str) else None


def _parts(source: str) -> tuple[Path, str | None]:
    path = Path(source).expanduser()
    folder, at, split = source.rpartition("@")
    if at and not path.exists() and (inside := Path(folder).expanduser()).is_dir():
        return inside, split
    return path, None


def _data_file(path: Path, source: str) -> Path:
    if not path.exists():
        raise UserError(f"{source}: no such file or folder{_hub_hint(source)}")
    if path.name.lower().endswith(_ARCHIVES) or (path.suffix.lower() == ".zip" and format_of(path) not in READERS):
        raise UserError(f"{source}: an archive; unpack it, and name the file or folder that was in it")
    if format_of(path) not in READERS:
        known = ", ".join(READERS)
        raise UserError(f"{source}: unknown extension {format_of(path)!r}; use one of {known}, or these with .gz")
    return path


def _hub_hint(source: str) -> str:
    """A hint for a missing file: how to write a data set on the hub."""
    name, _, split = source.partition("@")
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?(:[\w.-]+)?", name) or format_of(Path(name)) in READERS:
        return "; check the path"
    return f"; for a Hugging Face data set write hf:{name}@{split or 'train'}"


def split_in(name: str) -> str | None:
    """The split in the name of a file or folder: `validation` for `dev-00000-of-00001`; None if there is none."""
    words = re.split(r"[^a-z]+", name.lower())
    return next((_SPLITS[word] for word in words if word in _SPLITS), None)


def _found(folder: Path) -> Found:
    """The folder's data files by split; if it has none, the data files of its folders."""
    if (folder / _STATE).is_file():
        return {None: sorted(folder.glob("*.arrow"))}
    inside = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    files = [path for path in inside if _is_data(path)]
    if files:
        splits = [split_in(path.name.partition(".")[0]) for path in files]
        named = list(zip(files, splits, strict=True))
        return {split: [path for path, name in named if name == split] for split in splits}
    folders = [path for path in inside if path.is_dir()]
    saved = (folder / _SPLITS_OF).is_file()
    if not saved and len(folders) > 1 and all(map(_holds_texts, folders)):
        return {None: folders}
    if not folders and _holds_texts(folder):
        return {None: [folder]}
    found: dict[str | None, list[Path]] = {}
    for inner in folders:
        outer = inner.name if saved else split_in(inner.name)
        if outer is not None or inner.name == "data":
            for split, places in _found(inner).items():
                found.setdefault(outer or split, []).extend(places)
    return found


def _is_data(path: Path) -> bool:
    kind = format_of(path)
    return kind in READERS and kind not in _TEXTS and path.name not in _NO_ROWS and path.is_file()


def _holds_texts(folder: Path) -> bool:
    """Whether the folder has files, and each of them holds one text."""
    inside = [path for path in folder.iterdir() if not path.name.startswith(".")]
    return bool(inside) and all(_is_text(path) for path in inside)


def _is_text(path: Path) -> bool:
    return path.is_file() and (path.suffix.lower() in _TEXTS or path.suffix[1:].isdigit())


def _chosen(found: Found, folder: Path, split: str | None) -> Sequence[Path]:
    """The places of the only split, or of the named one; UserError for an ambiguous choice.

    Files without a split in their names may stand beside a training split, but not beside a split for evaluation.
    """
    names = [str(name) for name in found if name is not None]
    if split is not None:
        wanted = split if split in found else _SPLITS.get(split.lower())
        if wanted not in names:
            known = f"it has {', '.join(names)}" if names else "its files name none"
            raise UserError(f"{folder}@{split}: no split {split!r}; {known}")
        _refuse_twice(found[wanted])
        return found[wanted]
    if len(found) == 1 or set(found) == {None, "train"}:
        places = [place for places in found.values() for place in places]
        _refuse_twice(places)
        return places
    counts = [f"{name or 'other files'} ({', '.join(place.name for place in found[name][:2])})" for name in found]
    raise UserError(f"{folder}: holds several splits: {'; '.join(counts)}; name one, as in {folder}@{names[0]}")


def _refuse_twice(places: Sequence[Path]) -> None:
    """UserError for one name in two formats: they are most likely the same rows."""
    names: dict[Path, Path] = {}
    for place in places:
        other = names.setdefault(place.with_name(place.name.partition(".")[0]), place)
        if other != place:
            raise UserError(
                f"{place}: beside {other.name}, the same rows twice? Name one of the two files, not the folder"
            )


def _texts_of(folder: Path, encoding: str | None, labelled: bool) -> Table:
    """A table with one row per file; the label is the folder's name if `labelled`."""
    files = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    read = [decoded(unpacked(path), str(path), encoding, guess=True) for path in files]
    cells = {TEXT: [text for text, _ in read]} | ({LABEL: [folder.name] * len(files)} if labelled else {})
    notes = [note for _, note in read if note is not None]
    more = [f"{folder}: {len(notes) - 1} more files of it likewise"] if len(notes) > 1 else []
    return Table(str(folder), "file", [path.name for path in files], cells, notes=(*notes[:1], *more))
