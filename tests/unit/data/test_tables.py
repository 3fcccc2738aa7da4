from __future__ import annotations

import json
import sys

import pytest

from ziggurat.data import Columns, read_rows
from ziggurat.errors import UserError

ROWS = [{"text": "rain tomorrow", "label": "weather"}, {"text": "rates rise", "label": "money"}]


def parquet(path, columns) -> str:
    pyarrow = pytest.importorskip("pyarrow")
    parquet_module = pytest.importorskip("pyarrow.parquet")
    parquet_module.write_table(pyarrow.table(columns), path)
    return str(path)


def test_every_format_gives_the_same_rows(write, tmp_path):
    sources = [
        write("a.jsonl", ROWS),
        write("a.ndjson", ROWS),
        write("a.json", json.dumps(ROWS)),
        write("a.csv", "text,label\nrain tomorrow,weather\nrates rise,money\n"),
        write("a.tsv", "label\ttext\r\nweather\train tomorrow\r\nmoney\trates rise\r\n"),
        parquet(tmp_path / "a.parquet", {k: [row[k] for row in ROWS] for k in ("text", "label")}),
    ]
    for source in sources:
        rows = read_rows(source)
        assert (rows.texts, rows.pairs, rows.labels) == (["rain tomorrow", "rates rise"], None, ["weather", "money"])
        assert rows.source == source
        assert len(rows) == 2


def test_columns_can_have_other_names(write):
    source = write("a.jsonl", [{"question": "is it", "passage": "", "answer": True}])
    rows = read_rows(source, Columns(text="question", pair="passage", label="answer"))
    assert (rows.texts, rows.pairs, rows.labels) == (["is it"], [""], [1])


def test_text_pair_is_found_without_being_named(write):
    assert read_rows(write("a.jsonl", [{"text": "one", "text_pair": "two"}])).pairs == ["two"]


def test_quoted_cells_may_hold_separators_quotes_and_line_breaks(write):
    source = write("a.csv", 'text,label\n"one, ""two""\nthree",x\n\nfour,y\n')
    assert read_rows(source).texts == ['one, "two"\nthree', "four"]


def test_a_cell_may_exceed_the_csv_modules_limit(write):
    text = "word " * 50_000
    assert read_rows(write("a.csv", f"text,label\n{text},x\n")).texts == [text]


def test_a_byte_order_mark_is_tolerated(write):
    for name, content in (("a.csv", "text\nrain\n"), ("a.jsonl", '{"text": "rain"}'), ("a.json", '[{"text": "rain"}]')):
        assert read_rows(write(name, b"\xef\xbb\xbf" + content.encode())).texts == ["rain"]


def test_a_line_separator_in_a_json_string_ends_no_line(write):
    assert read_rows(write("a.jsonl", '{"text": "one\u2028two"}\n\n{"text": "three"}\n')).texts == [
        "one\u2028two",
        "three",
    ]


def test_a_folder_is_its_data_files_by_name(write):
    write("set/b.jsonl", [{"text": "second", "label": 1}])
    write("set/a.csv", "text,label\nfirst,0\n")
    write("set/README.md", "not data")
    write("set/.hidden.jsonl", [{"text": "unseen", "label": 2}])
    source = write("set/c.jsonl", [{"text": "third", "label": 0}]).removesuffix("/c.jsonl")
    rows = read_rows(source)
    assert (rows.texts, rows.labels) == (["first", "second", "third"], [0, 1, 0])


def test_rows_of_parquet_files_are_counted_from_one(tmp_path):
    source = parquet(tmp_path / "a.parquet", {"text": ["a", "b"], "label": [1.0, float("nan")]})
    with pytest.raises(UserError, match=r"row 2: .* nan"):
        read_rows(source)


def test_parquet_without_pyarrow_names_the_extra(write, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match=r"pip install '\.\[train\]' in Ziggurat's folder"):
        read_rows(write("a.parquet", "x"))


@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl", "rows.json", "rows.parquet"])
def test_rows_that_are_still_to_be_pulled_from_git_lfs_are_said(tmp_path, name):
    pytest.importorskip("pyarrow")
    (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3145728\n")
    with pytest.raises(UserError, match=f"{name}: a Git LFS pointer, not the file itself; run `git lfs pull`"):
        read_rows(str(tmp_path / name))
