"""Whatever others write is read back as the same rows, or refused in one line: no row is lost without a word."""

from __future__ import annotations

import csv
import io
import json
import string
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ziggurat.data import Columns, read_rows
from ziggurat.errors import UserError

many = settings(max_examples=60, deadline=None, derandomize=True)
# Signs that formats give a meaning, among letters; every text has a letter, so that none is blank.
signs = st.text(st.sampled_from("ab,;|\t\"'\\\n\r é£…\u2028名😀"), max_size=12)
texts = st.builds(lambda head, letter, tail: head + letter + tail, signs, st.sampled_from("xyz"), signs)
labels = st.sampled_from(["food", "sport", "a b", "tech;1"])
rows = st.lists(st.tuples(texts, labels), min_size=1, max_size=8)


def same_or_refused(path: Path, wanted: list[tuple[str, str]]) -> bool:
    """Whether these are the file's rows; an error of one line is not, anything else fails."""
    try:
        found = read_rows(str(path))
    except UserError as error:
        assert "\n" not in str(error).replace(str(path), "") and str(path) in str(error)
        return False
    assert list(zip(found.texts, found.labels or (), strict=True)) == wanted
    return True


def write_csv(path: Path, written: list[tuple[str, str]], separator: str, **dialect) -> Path:
    file = io.StringIO(newline="")
    writer = csv.writer(file, delimiter=separator, **dialect)
    writer.writerows([("text", "label"), *written])
    path.write_bytes(file.getvalue().encode())
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("written")


@many
@given(rows, st.sampled_from(",;|\t"), st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]), st.sampled_from("\n\r\n"))
def test_csv_of_any_separator_comes_back_from_the_csv_module(folder, written, separator, quoting, end):
    same_or_refused(write_csv(folder / "a.csv", written, separator, quoting=quoting, lineterminator=end), written)


plain_rows = st.lists(st.tuples(st.text(string.ascii_letters + " ,.é\"'", min_size=1).filter(str.strip), labels))


@many
@given(plain_rows.filter(bool), st.sampled_from(",;"))
def test_csv_of_texts_in_one_line_is_never_refused(folder, written, separator):
    assert same_or_refused(write_csv(folder / "a.csv", written, separator), written)


@many
@given(rows)
def test_json_comes_back_in_every_form(folder, written):
    objects = [{"text": text, "label": label} for text, label in written]
    columns = {"text": [text for text, _ in written], "label": [label for _, label in written]}
    forms = {
        "a.jsonl": "\n".join(json.dumps(one, ensure_ascii=False) for one in objects),
        "lines.json": "\r\n".join(map(json.dumps, objects)) + "\n",
        "list.json": json.dumps(objects, indent=1),
        "columns.json": json.dumps(columns),
        "data.json": json.dumps({"version": 1, "data": objects}),
    }
    for name, content in forms.items():
        (folder / name).write_text(content, "utf-8", newline="")
        assert same_or_refused(folder / name, written)


@many
@given(st.lists(st.tuples(st.text("ab\"' ,é", min_size=1).filter(str.strip), labels), min_size=1))
def test_tab_separated_lines_without_quoting_are_as_many_rows(folder, written):
    """Corpora: what stands between tabs is the text, whatever quotes are in it."""
    path = folder / "corpus.tsv"
    path.write_text("text\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in written), "utf-8")
    found = read_rows(str(path))
    assert len(found) == len(written)
    # A file in which every quote is one that CSV knows is read as such; else texts are as they stand.
    assert all(one == text or one == unquoted(text) for one, (text, _) in zip(found.texts, written, strict=True))


def unquoted(text: str) -> str:
    return text[1:-1].replace('""', '"')


@many
@given(rows)
def test_what_pandas_writes_is_read_as_it_was(folder, written):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(written, columns=["text", "label"])
    frame.to_csv(folder / "p.csv", index=False)
    frame.to_csv(folder / "index.csv")
    same_or_refused(folder / "p.csv", written)
    same_or_refused(folder / "index.csv", written)
    for orient in ("records", "split", "columns", "index", "table"):
        frame.to_json(folder / "p.json", orient=orient, force_ascii=False)
        assert same_or_refused(folder / "p.json", written)
    frame.to_json(folder / "p.jsonl.gz", orient="records", lines=True)
    assert same_or_refused(folder / "p.jsonl.gz", written)
    frame.to_parquet(folder / "p.parquet")
    assert same_or_refused(folder / "p.parquet", written)
    # A text of several lines that each have as many tabs as a row cannot be told from rows with stray quotes, and
    # carriage returns pandas leaves without quotes.
    calm = [(text.replace("\t", " ").replace("\r", " "), label) for text, label in written]
    pandas.DataFrame(calm, columns=["text", "label"]).to_csv(folder / "p.tsv", sep="\t", index=False)
    assert same_or_refused(folder / "p.tsv", calm)


@many
@given(st.lists(st.text("ab é\"'", min_size=1), min_size=1).filter(lambda found: all(map(str.strip, found))))
def test_each_line_of_a_text_file_is_a_row(folder, written):
    (folder / "a.txt").write_text("\n".join(written) + "\n", "utf-8")
    assert read_rows(str(folder / "a.txt"), Columns(label=None)).texts == written


@many
@given(st.binary(max_size=80))
def test_any_bytes_are_rows_or_one_line(folder, content):
    for name in ("b.csv", "b.tsv", "b.jsonl", "b.json", "b.txt", "b.csv.gz"):
        (folder / name).write_bytes(content)
        try:
            read_rows(str(folder / name), Columns(label=None))
        except UserError as error:
            assert "\n" not in str(error)
