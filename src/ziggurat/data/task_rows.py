"""Rows of a named task: where they are, how their texts are joined, how their classes are called."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ziggurat.data.catalogue import TRAIN, Named, Release, Shape, Task
from ziggurat.data.cells import Cell
from ziggurat.data.decoding import lines_of
from ziggurat.data.sources import Rows, hub_dataset
from ziggurat.data.tables import READERS, Table, read_headless, read_table, read_text
from ziggurat.errors import UserError, first_line, install
from ziggurat.types import ProblemType

_PLAIN = Shape(("text",), "text_pair")  # our own columns: a folder of train.jsonl, test.jsonl, …
_MSR = "msr_paraphrase_{}.txt"  # MRPC as Microsoft gives it away
_MSR_IDS = ("dev_ids.tsv", "mrpc_dev_ids.tsv")  # which of its training rows are GLUE's validation rows


def task_table(named: Named) -> tuple[Table, Shape]:
    """The split's cells, and what its columns are called."""
    if named.folder is None:
        fix = "check the network or give the files with --data-dir FOLDER"
        return _of_dataset(hub_dataset(named.task.hub, named.task.config, named.split, named.source, fix), named)
    for root in _roots(named):
        found = _saved(root, named) or _official(root, named) or _plain(root, named)
        if found is not None:
            return found
    raise _absent(named, f"{_stem(named.split)}{named.task.release.suffix}")


def task_questions(named: Named) -> Path | Table:
    """Where a split of questions is: SQuAD's JSON, or rows under the hub's columns (context, question, answers, …)."""
    if named.folder is None:
        return task_table(named)[0]
    release, stem = named.task.release, _stem(named.split)
    stems = [f"{stem}-{release.version}", stem, named.split]
    for root in _roots(named):
        for path in (root / f"{name}{release.suffix}" for name in stems):
            if path.is_file():
                return path
        if (rows := _saved(root, named) or _plain(root, named)) is not None:
            return rows[0]
    raise _absent(named, f"{stems[0]}{release.suffix}")


def _roots(named: Named) -> list[Path]:
    """Where the files may be: the folder itself, or what a release or the hub calls the task in it."""
    folder, task = Path(str(named.folder)).expanduser(), named.task
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give the one with the files of {task.name} as --data-dir")
    inner = [task.release.folder, *([] if task.config is None else [task.config]), task.name, "data"]
    return [root for root in (folder, *(folder / name for name in inner)) if root.is_dir()]


def _absent(named: Named, file: str) -> UserError:
    return UserError(
        f"{named.folder}: no split {named.split!r} of {named.task.name}: neither {file}, nor {named.split} as Parquet, "
        "JSON lines or saved by datasets; check --data-dir, or name another split with --task NAME@SPLIT"
    )


def _stem(split: str) -> str:
    return split.replace("validation", "dev")


def _saved(root: Path, named: Named) -> tuple[Table, Shape] | None:
    """What `save_to_disk` of Hugging Face's datasets wrote."""
    folder = root / named.split
    if not (folder / "state.json").is_file():
        return None
    try:
        import datasets
    except ImportError as error:
        raise UserError(f"{folder}: reading it needs a package; {install('train')}") from error
    try:
        return _of_dataset(datasets.load_from_disk(str(folder)), named)
    except Exception as error:  # broken files: these have no base class in common
        raise UserError(f"{folder}: cannot be read, save it again ({first_line(error)})") from error


def _of_dataset(dataset: Any, named: Named) -> tuple[Table, Shape]:
    cells = {column: list(dataset[column]) for column in dataset.column_names}
    return Table(named.source, "row", range(1, len(dataset) + 1), cells), named.task.shape


def _official(root: Path, named: Named) -> tuple[Table, Shape] | None:
    """The data set's own file."""
    release = named.task.release
    path = root / f"{_stem(named.split)}{release.suffix}"
    if path.is_file():
        table = _unquoted(path, release) if release.suffix == ".tsv" else read_headless(path, release.header or ())
        return table, release.shape
    return _microsofts(root, named) if named.task.name == "glue/mrpc" else None


def _microsofts(root: Path, named: Named) -> tuple[Table, Shape] | None:
    release, part = named.task.release, "test" if named.split == "test" else TRAIN
    path = root / _MSR.format(part)
    if not path.is_file():
        return None
    table = _unquoted(path, release)
    ids = next((root / name for name in _MSR_IDS if (root / name).is_file()), None)
    if part == "test" or (ids is None and named.split == TRAIN):
        return table, release.shape
    if ids is None:
        return None
    chosen = {tuple(line.split("\t")[:2]) for line in lines_of(read_text(ids))}
    pairs = zip(table.cells.get("#1 ID", ()), table.cells.get("#2 ID", ()), strict=True)
    rows = [row for row, pair in enumerate(pairs) if (pair in chosen) != (named.split == TRAIN)]
    cells = {column: [values[row] for row in rows] for column, values in table.cells.items()}
    return Table(table.name, table.unit, [table.numbers[row] for row in rows], cells), release.shape


def _unquoted(path: Path, release: Release) -> Table:
    """Cells between tabs as they stand there: GLUE's files quote nothing. A cell that a line lacks is None."""
    lines = {n: line.split("\t") for n, line in enumerate(lines_of(read_text(path)), start=1) if line}
    first = lines.get(1, [])
    named = set(release.shape.texts) <= set(first)  # CoLA's test file names its columns, its others do not
    header = first if named or release.header is None else list(release.header)
    if header is first:
        lines.pop(1, None)
    cells = {
        name: [cells[place] if place < len(cells) else None for cells in lines.values()]
        for place, name in enumerate(header)
    }
    return Table(str(path), "line", list(lines), cells)


def _plain(root: Path, named: Named) -> tuple[Table, Shape] | None:
    """Parquet as on the hub, or one file of rows, with the hub's columns or the default ones."""
    files = sorted(root.glob(f"{named.split}-*.parquet")) or [
        path for path in (root / f"{named.split}{suffix}" for suffix in READERS) if path.is_file()
    ]
    if not files:
        return None
    tables = [read_table(path) for path in files]
    numbers = [number for table in tables for number in table.numbers]
    cells = {name: [cell for table in tables for cell in table.cells.get(name, ())] for name in tables[0].cells}
    if any(len(column) < len(numbers) for column in cells.values()):
        raise UserError(f"{files[0]}: has other columns than {files[-1]}; make them alike")
    shape = named.task.shape
    if not set(shape.texts) <= set(cells) and "text" in cells:
        shape = Shape(_PLAIN.texts, _PLAIN.pair if shape.pair else None)
    return Table(tables[0].name, tables[0].unit, numbers, cells), shape


def task_rows(named: Named, labels: bool = True, labels_required: bool = False) -> Rows:
    """The split's rows; classes are called by their names, amounts are floats. `labels` False = leave them out.

    Rows without a (first) text or, among labelled ones, without a label are left out, and their number is logged: the
    releases have some. UserError where the split is not there or not what it should be.
    """
    task = named.task
    if task.problem is ProblemType.QUESTION_ANSWERING:
        raise UserError(
            f"{named.source}: questions, answered by a span; labels are wanted here, take a task that has some"
        )
    rows = _read(*task_table(named), named, labels)
    if labels_required and rows.labels is None:
        raise UserError(
            f"{named.source}: its rows have no labels (those of test rows are often secret); "
            f"take the split {task.evaluation!r}: --task {task.name}"
        )
    return rows


def called_like(rows: Rows, labels: Sequence[int | str], task: Task | None = None) -> Rows:
    """The rows of a task under a model's own labels: numbers from 0, or the same words in another spelling.

    Plain rows of classes 0, 1, … are taken for those of the `task` that the model was trained on. Any others, and rows
    for a model with other labels, stay as they are.
    """
    names = rows.label_names or ()
    if task is not None and not names and _are_numbered(rows, len(task.names)):
        names = task.names
        rows = replace(rows, labels=[names[int(str(label))] for label in rows.labels or ()])
    spelled = {str(label).casefold(): label for label in labels}
    if list(labels) == list(range(len(names))):
        spelling: dict[Any, int | str] = dict(zip(names, labels, strict=True))
    elif len(names) == len(labels) and spelled.keys() == {name.casefold() for name in names}:
        spelling = {name: spelled[name.casefold()] for name in names}
    else:
        return rows
    called: list[Cell | None] = [
        tuple(spelling[name] for name in label) if isinstance(label, tuple) else spelling.get(label)
        for label in rows.labels or ()
    ]
    return replace(rows, labels=rows.labels and called, label_names=None)


def _are_numbered(rows: Rows, n: int) -> bool:
    """Whether every row has one of the class numbers 0 … n - 1."""
    return bool(rows.labels) and all(type(label) is int and 0 <= label < n for label in rows.labels or ())


def _read(table: Table, shape: Shape, named: Named, labels: bool) -> Rows:
    for column in [*shape.texts, *([] if shape.pair is None else [shape.pair])]:
        if column not in table.cells:
            existing = ", ".join(map(repr, table.cells))
            raise UserError(f"{table.name}: no column {column!r} of {named.task.name}; it has {existing}")
    texts = [_joined(cells, named.task) for cells in zip(*(table.cells[name] for name in shape.texts), strict=True)]
    seconds = [None] * len(texts) if shape.pair is None else table.cells[shape.pair]
    found = _labels(table, shape, named.task) if labels else [None] * len(texts)
    labelled = any(label is not None for label in found)
    complete = [
        bool(text.strip()) and (shape.pair is None or isinstance(second, str)) and (label is not None or not labelled)
        for text, second, label in zip(texts, seconds, found, strict=True)
    ]
    chosen = [row for row, is_complete in enumerate(complete) if is_complete]
    if not chosen:
        raise UserError(f"{table.name}: no rows of {named.task.name}; put rows into it, or get it again")
    if len(chosen) < len(complete):
        message = "%s: %d broken or blank rows are left out, the first in %s %d"
        place = table.numbers[complete.index(False)]
        logging.getLogger(__name__).warning(message, table.name, len(complete) - len(chosen), table.unit, place)
    pairs = None if shape.pair is None else [_joined([seconds[row]], named.task) for row in chosen]
    return Rows(
        [texts[row] for row in chosen],
        pairs,
        [found[row] for row in chosen] if labelled else None,
        named.source,
        named.task.names or None,
    )


def _joined(cells: Iterable[Any], task: Task) -> str:
    text = " ".join(str(cell) for cell in cells if cell is not None and str(cell).strip())
    if task.escaped:  # in this order: the hub's copies left some quotes doubled
        text = text.replace('\\""', '"').replace('\\"', '"').replace("\\n", "\n")
    return text


def _labels(table: Table, shape: Shape, task: Task) -> list[int | str | float | None]:
    """Names of classes, or amounts; None where a row has none, which files and the hub write in several ways."""
    if shape.label not in table.cells:
        return [None] * len(table.numbers)
    named: Mapping[str, str] = {str(place): name for place, name in enumerate(task.names, start=shape.first)}
    read = _amount if task.problem is ProblemType.REGRESSION else lambda cell: named.get(cell, cell)
    found: list[int | str | float | None] = []
    for row, cell in enumerate(table.cells[shape.label]):
        text = "" if cell is None else str(cell).strip()
        label = None if text in ("", "-1", "-1.0", "-") else read(text)
        if label is not None and task.names and label not in task.names:
            raise table.error(row, f"label {text!r} is none of {task.name}: {_known(task.names, named)}")
        if isinstance(label, float) and math.isnan(label):
            raise table.error(row, f"label {text!r} is no number; {task.name} has amounts")
        found.append(label)
    return found


def _amount(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _known(names: Sequence[str], numbers: Mapping[str, str]) -> str:
    first, *_, last = numbers
    return f"give {first} to {last}, or {', '.join(names)}"
