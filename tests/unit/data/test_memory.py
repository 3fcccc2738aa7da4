"""Rows in memory are read as the same rows in a file are, and their mistakes name the row and the field."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest

from ziggurat.data import Columns, Role, holds_questions, load, read_questions, read_rows, split_roles
from ziggurat.data.memory import as_rows
from ziggurat.errors import UserError

ROWS = [
    {"text": "a warm day", "label": "sun"},
    {"text": "it pours", "label": "rain"},
    {"text": "grey again", "label": "rain"},
]


class Series:
    """A column with the little that pandas' and polars' have in common."""

    def __init__(self, cells: list, missing: list[bool] | None = None) -> None:
        self.cells = cells
        if missing is not None:
            self.isna = lambda: Series(missing)

    def to_list(self) -> list:
        return self.cells


class Frame:
    """A data frame, by what `as_rows` looks for."""

    def __init__(self, columns: dict[str, Series]) -> None:
        self.columns = list(columns)
        self.to_dict = columns.copy
        self._columns = columns

    def __getitem__(self, name: str) -> Series:
        return self._columns[name]


class HubSet:
    """A `datasets.Dataset`, by what `as_rows` looks for."""

    def __init__(self, columns: dict[str, list], features: dict) -> None:
        self.column_names = list(columns)
        self.features = SimpleNamespace(to_dict=lambda: features)
        self._columns = columns

    def __getitem__(self, name: str) -> list:
        return self._columns[name]


def columns_of(rows: list[dict]) -> dict[str, list]:
    return {name: [row[name] for row in rows] for name in rows[0]}


FORMS = {
    "mappings": ROWS,
    "mappings of an iterator": iter(ROWS),
    "columns": columns_of(ROWS),
    "texts and labels": ([row["text"] for row in ROWS], [row["label"] for row in ROWS]),
    "arrays": (np.array([row["text"] for row in ROWS]), np.array([row["label"] for row in ROWS])),
    "data frame": Frame({name: Series(cells) for name, cells in columns_of(ROWS).items()}),
    "dataset": HubSet(columns_of(ROWS), {"label": {"dtype": "string"}}),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_rows_of_the_file(form, tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    found, wanted = read_rows(as_rows(FORMS[form])), read_rows(str(file))
    assert (found.texts, found.pairs, found.labels) == (wanted.texts, wanted.pairs, wanted.labels)


def test_names_of_sources_and_tables_stay(tmp_path):
    table = as_rows(ROWS)
    assert as_rows("task:ag_news@test") == "task:ag_news@test" and as_rows(tmp_path) == str(tmp_path)
    assert as_rows(table) is table and str(table) == "rows"


def test_roles_and_digest_do_not_depend_on_where_rows_are(tmp_path):
    rows = [{"text": f"word {number}", "label": number % 2} for number in range(400)]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    kept, read = (split_roles(load(source)) for source in (as_rows(rows), str(file)))
    assert all(kept[role].digest == read[role].digest for role in (Role.TRAIN, Role.SELECT, Role.CERTIFY))


def test_texts_alone_and_pairs_have_no_labels():
    texts, pairs = read_rows(as_rows(["a", "b"])), read_rows(as_rows([("a", "b"), ["c", "d"]]))
    assert (texts.texts, texts.pairs, texts.labels) == (["a", "b"], None, None)
    assert (pairs.texts, pairs.pairs, pairs.labels) == (["a", "c"], ["b", "d"], None)


def test_pairs_with_labels():
    rows = read_rows(as_rows(([("a", "b"), ("c", "d")], [1, 0])))
    assert (rows.pairs, rows.labels) == (["b", "d"], [1, 0])


def test_columns_say_which_hold_what():
    rows = read_rows(as_rows([{"body": "a", "meta": {"kind": 3}}]), Columns(text="body", label="meta.kind"))
    assert (rows.texts, rows.labels) == (["a"], [3])


def test_cells_of_numpy_are_numbers_and_lists():
    rows = read_rows(as_rows([{"text": "a", "label": np.int64(4)}, {"text": "b", "label": np.int64(5)}]))
    assert rows.labels == [4, 5] and all(type(label) is int for label in rows.labels)
    several = read_rows(as_rows([{"text": "a", "label": np.array(["x", "y"])}, {"text": "b", "label": ("x",)}]))
    assert several.labels == [("x", "y"), ("x",)]


def test_a_datasets_classes_go_by_their_names():
    features = {"label": {"_type": "ClassLabel", "names": ["bad", "good"]}}
    assert read_rows(as_rows(HubSet({"text": ["a", "b"], "label": [1, 0]}, features))).labels == ["good", "bad"]


def test_a_missing_cell_of_a_data_frame_is_none():
    frame = Frame({"text": Series(["a", "b"]), "label": Series(["x", float("nan")], [False, True])})
    assert as_rows(frame).column("label") == ["x", None]


def test_pandas_is_read(tmp_path):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"text": ["a", "b"], "label": pandas.Categorical(["x", "y"])})
    assert read_rows(as_rows(frame)).labels == ["x", "y"]
    assert read_rows(as_rows((frame["text"], frame["label"]))).labels == ["x", "y"]


def test_arrow_and_datasets_are_read():
    pyarrow, datasets = pytest.importorskip("pyarrow"), pytest.importorskip("datasets")
    assert read_rows(as_rows(pyarrow.table({"text": ["a"], "label": [1]}))).labels == [1]
    classes = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["n", "y"])})
    found = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}, features=classes)
    assert read_rows(as_rows(found)).labels == ["y", "n"]
    with pytest.raises(UserError, match=r"several splits, 'train', 'test'; give one of them, as in dataset\['train'\]"):
        as_rows(datasets.DatasetDict(train=found, test=found))


def test_questions_in_memory_are_the_files(tmp_path):
    rows = [
        {"id": "1", "question": "where?", "context": "in town", "answers": {"text": ["town"], "answer_start": [3]}},
        {"id": "2", "question": "who?", "context": "in town", "answers": {"text": [], "answer_start": []}},
    ]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    table = as_rows([rows[0] | {"answers": {"text": np.array(["town"]), "answer_start": np.array([3])}}, rows[1]])
    assert holds_questions(table) and not holds_questions(as_rows(ROWS))
    found, wanted = read_questions(table), read_questions(str(file))
    assert found.texts == wanted.texts and found.labels == wanted.labels


WRONG = {
    "no text": ([{"text": "a", "label": 0}, {"label": 1}], r"rows, row 2: 'text' is missing; it must be a string"),
    "a number for a text": ([{"text": 7}], r"rows, row 1: 'text' is of type int; it must be a string"),
    "no label": ([*ROWS, {"text": "d"}], r"rows, row 4: no 'label'; label the row"),
    "no column": ([{"body": "a"}], r"rows: no column 'text'; it has 'body'"),
    "no mapping": ([{"text": "a"}, "b"], r"rows, row 2: is of type str; write \{\"text\": …"),
    "no text among texts": (["a", 3], r"rows, row 2: is of type int; give a path"),
    "a text among pairs": ([("a", "b"), "c"], r"rows, row 2: a single text among pairs of texts"),
    "labels for other texts": ((["a", "b"], [1]), r"rows: 1 labels for 2 texts"),
    "columns of other lengths": (
        {"text": ["a"], "label": [1, 2]},
        r"of different lengths \('text' 1, 'label' 2",
    ),
    "one row alone": ({"text": "a", "label": 1}, r"a mapping whose values are no columns; put a row into a list"),
    "nothing": ([], r"rows: no rows; put rows into it"),
    "no rows at all": (3, r"rows: of type int; give a path, \"hf:NAME@SPLIT\", a list"),
}


@pytest.mark.parametrize("case", WRONG)
def test_mistakes_name_the_row_and_the_field(case):
    rows, message = WRONG[case]
    with pytest.raises(UserError, match=message):
        read_rows(as_rows(rows))


def test_rows_that_cannot_be_read_may_be_skipped(caplog):
    rows = read_rows(as_rows([{"text": "a"}, "b", {"text": None}]), Columns(on_error="skip"))
    assert rows.texts == ["a"] and set(rows.left_out) == {1, 2}
    assert "rows: 2 of 3 rows cannot be read: rows, row 2: is of type str" in caplog.text
