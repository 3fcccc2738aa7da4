"""Rows in memory: lists, data frames, Hugging Face data sets and texts with labels become the tables that files are.

Neither pandas, polars, pyarrow nor datasets is imported: their objects are known by what they can do.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ziggurat.data.arrow import class_names, names_in
from ziggurat.data.tables import TEXT, Source, Table, from_objects
from ziggurat.errors import UserError

# What `as_rows` takes; a data frame and a `datasets.Dataset` are iterable.
RowsLike = str | os.PathLike[str] | Table | Mapping[str, Any] | Iterable[Any]

_PAIR, _LABEL = "text_pair", "label"
_ROWS = "rows"  # what messages call rows that have no other name
_FORMS = 'a path, "hf:NAME@SPLIT", a list of {"text": …, "label": …}, (texts, labels), a data frame or a Dataset'
_PLAIN = (str, bytes, int, float, type(None))


def as_rows(source: RowsLike) -> Source:
    """Converts rows, in any accepted form, to the name of a source or a table of rows in memory.

    `source` is one of
    - a path of a file or a folder of files, `hf:NAME@SPLIT`, `task:NAME@SPLIT`, or `stdlib-docs`;
    - a list of mappings, `[{"text": "…", "label": "spam"}, …]`, or a mapping of columns, `{"text": […], "label": […]}`;
    - a `datasets.Dataset` (its classes go by their names), a pandas or polars data frame, a `pyarrow.Table`;
    - a list of texts, or of pairs of texts, without labels; or the tuple `(texts, labels)`.

    What columns are called is for `ziggurat.Columns`, as for files.

    >>> as_rows([{"text": "a", "label": 1}, {"text": "b"}]).column("label")
    [1, None]

    Raises:
        UserError: it is none of these, or columns are not as long as each other.
    """
    if isinstance(source, str | Table):
        return source
    if isinstance(source, os.PathLike):
        return str(os.fspath(source))
    if isinstance(source, tuple) and len(source) == 2 and all(map(_is_column, source)):
        return _labelled(*source)
    if (found := _of_library(source)) is not None:
        return found
    if isinstance(source, Mapping):
        return _of_mapping(source)
    if isinstance(source, Iterable) and not isinstance(source, bytes):
        return _of_list(list(source))
    raise _unknown(source)


def _of_library(source: Any) -> Table | None:
    """A table from another library's object for rows; None for other objects."""
    if hasattr(source, "to_pydict"):  # pyarrow's
        return _of_columns("table", source.to_pydict(), class_names(source.schema.metadata))
    if getattr(source, "column_names", None) and hasattr(source, "features"):  # Hugging Face's
        columns = {name: source[name] for name in source.column_names}
        return _of_columns("dataset", columns, names_in(source.features.to_dict()))
    if hasattr(source, "columns") and hasattr(source, "to_dict"):  # pandas' and polars'
        return _of_frame(source)
    return None


def _of_mapping(columns: Mapping[Any, Any]) -> Table:
    if any(hasattr(part, "column_names") for part in columns.values()):
        splits = ", ".join(map(repr, columns))
        raise UserError(f"{_ROWS}: several splits, {splits}; give one of them, as in dataset[{next(iter(columns))!r}]")
    if not columns or not all(map(_is_column, columns.values())):
        raise UserError(f"{_ROWS}: a mapping whose values are no columns; put a row into a list: [{{…}}]")
    return _of_columns(_ROWS, {str(name): column for name, column in columns.items()})


def _of_list(rows: list[Any]) -> Table:
    """A table of mappings, of texts, or of pairs of texts; what is none of these is a row that cannot be read."""
    if rows and not isinstance(rows[0], Mapping):
        return _of_texts(rows)
    broken = {
        number: f'is of type {type(row).__name__}; write {{"text": …, "label": …}}'
        for number, row in enumerate(rows)
        if not isinstance(row, Mapping)
    }
    objects = [
        {} if number in broken else {str(name): _plain(cell) for name, cell in row.items()}
        for number, row in enumerate(rows)
    ]
    return from_objects(Table(_ROWS, "row", range(1, len(rows) + 1), {}, broken=broken), objects)


def _of_texts(texts: Sequence[Any]) -> Table:
    for number, text in enumerate(texts, start=1):
        if not isinstance(text, str) and not _is_pair(text):
            raise UserError(f"{_ROWS}, row {number}: is of type {type(text).__name__}; give {_FORMS}")
    if all(isinstance(text, str) for text in texts):
        return _of_columns(_ROWS, {TEXT: texts})
    lone = next((number for number, text in enumerate(texts, start=1) if isinstance(text, str)), None)
    if lone is not None:
        raise UserError(f"{_ROWS}, row {lone}: a single text among pairs of texts; give it a second one")
    return _of_columns(_ROWS, {TEXT: [first for first, _ in texts], _PAIR: [second for _, second in texts]})


def _labelled(texts: Any, labels: Any) -> Table:
    """A table of texts, or pairs of texts, with their labels."""
    texts, labels = (list(column.to_list() if hasattr(column, "to_list") else column) for column in (texts, labels))
    if len(texts) != len(labels):
        raise UserError(f"{_ROWS}: {len(labels)} labels for {len(texts)} texts; give each text its own")
    table = _of_texts(texts)
    return _of_columns(_ROWS, {**table.cells, _LABEL: labels})


def _of_columns(name: str, columns: Mapping[str, Any], classes: Mapping[str, Sequence[str]] | None = None) -> Table:
    cells = {column: [_plain(cell) for cell in values] for column, values in columns.items()}
    lengths = {column: len(values) for column, values in cells.items()}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{column!r} {length}" for column, length in lengths.items())
        raise UserError(f"{name}: columns of different lengths ({listed}); make them alike")
    n = next(iter(lengths.values()), 0)
    return Table(name, "row", range(1, n + 1), cells, classes=classes or {})


def _of_frame(frame: Any) -> Table:
    names = [str(name) for name in frame.columns]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"data frame: two columns have the same name, {twice[0]!r}; rename one")
    return _of_columns("data frame", {str(name): _series(frame[name]) for name in frame.columns})


def _series(column: Any) -> list[Any]:
    """A data frame's column; pandas' several signs of a missing value are None, as polars' one is."""
    cells = column.to_list()
    if not hasattr(column, "isna"):
        return list(cells)
    return [None if missing else cell for cell, missing in zip(cells, column.isna().to_list(), strict=True)]


def _plain(cell: Any) -> Any:
    """A cell as JSON would hold it: numpy's numbers and arrays as Python's, tuples as lists."""
    if isinstance(cell, _PLAIN):
        return cell
    if hasattr(cell, "tolist"):
        return cell.tolist()
    if isinstance(cell, Mapping):
        return {name: _plain(inner) for name, inner in cell.items()}
    return [_plain(inner) for inner in cell] if isinstance(cell, list | tuple) else cell


def _is_column(values: Any) -> bool:
    return isinstance(values, Iterable) and not isinstance(values, str | bytes | Mapping)


def _is_pair(text: Any) -> bool:
    return isinstance(text, tuple | list) and len(text) == 2 and all(isinstance(side, str) for side in text)


def _unknown(source: Any) -> UserError:
    return UserError(f"{_ROWS}: of type {type(source).__name__}; give {_FORMS}")
