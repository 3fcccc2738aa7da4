"""Files as people have them: packed, in other encodings, with and without headers, in folders of many kinds."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import sys
import zipfile

import pytest

from ziggurat.data import Columns, holds_questions, read_rows
from ziggurat.errors import UserError

TABLE = "text,label\nrain tomorrow,weather\nrates rise,money\n"
FOUND = (["rain tomorrow", "rates rise"], ["weather", "money"])
OBJECTS = [{"text": text, "label": label} for text, label in zip(*FOUND, strict=True)]
TEXTS = Columns(label=None)


def found(source, *columns, **options):
    rows = read_rows(str(source), Columns(*columns, **options))
    return rows.texts, rows.labels


def refusal(source, *columns, **options) -> str:
    with pytest.raises(UserError) as caught:
        read_rows(str(source), Columns(*columns, **options))
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- packed, encoded ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ending", "pack"), [("gz", gzip.compress), ("bz2", bz2.compress), ("xz", lzma.compress)])
def test_packed_files_are_unpacked_by_what_they_are(write, ending, pack):
    packed = pack(TABLE.encode())
    assert found(write(f"a.csv.{ending}", packed)) == FOUND
    assert found(write("a.csv", packed)) == FOUND  # as downloads are that lost their ending
    assert found(write(f"plain.csv.{ending}", TABLE)) == FOUND  # as others are that a browser has unpacked
    assert "get it again" in refusal(write(f"cut.csv.{ending}", packed[:-9]))


def test_zst_is_unpacked_with_the_package_that_is_there(write, monkeypatch):
    pyarrow = pytest.importorskip("pyarrow")
    source = write("a.csv.zst", pyarrow.compress(TABLE.encode(), codec="zstd", asbytes=True))
    assert found(source) == FOUND
    for package in ("pyarrow", "zstandard"):
        monkeypatch.setitem(sys.modules, package, None)
    assert "pip install zstandard" in refusal(source)


def test_a_zip_of_one_file_is_read_and_one_of_several_is_not(tmp_path):
    for name, files in (("one.csv.zip", ["a.csv"]), ("two.csv.zip", ["a.csv", "b.csv"])):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            for file in files:
                archive.writestr(file, TABLE)
    assert found(tmp_path / "one.csv.zip") == FOUND
    assert "holds 2 files" in refusal(tmp_path / "two.csv.zip")


@pytest.mark.parametrize("codec", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_says_how_a_file_is_encoded(write, codec):
    for name, content in (("a.csv", "text,label\ncafé,x\n"), ("a.jsonl", '{"text": "café", "label": "x"}\n')):
        assert found(write(name, content.encode(codec))) == (["café"], ["x"])


def test_a_western_file_is_read_as_such_and_that_is_said(write, caplog):
    content = "text,label\nthe café costs 5 £ a day,x\nfor “two”,y\n"
    assert found(write("a.csv", content.encode("cp1252")))[0] == ["the café costs 5 £ a day", "for “two”"]
    assert "a.csv: not UTF-8, read as cp1252" in caplog.text and "--encoding" in caplog.text


@pytest.mark.parametrize(
    "content",
    [
        "text,label\nпогода завтра,x\n".encode("cp1251"),  # mostly letters beyond ASCII
        "text,label\n明日の天気はどうですか,x\n".encode("shift_jis"),
        "text,label\nça va où tu es déjà,x\n".encode() + b"bro\xffken,y\n",  # UTF-8 with one broken byte
    ],
)
def test_what_would_be_garbled_is_refused_with_the_option(write, content):
    assert "--encoding" in refusal(write("a.csv", content))


def test_a_named_encoding_is_used_for_every_kind_of_text_file(write):
    row = '{"text": "погода", "label": "x"}\n'
    for name, content in (("a.csv", "text,label\nпогода,x\n"), ("a.jsonl", row), ("a.json", f"[{row}]")):
        assert found(write(name, content.encode("cp1251")), encoding="cp1251") == (["погода"], ["x"])
    source = write("b.csv", "text,label\nпогода,x\n".encode("cp1251"))
    assert "not valid ascii" in refusal(source, encoding="ascii")
    assert "not known" in refusal(source, encoding="cp9999")


def test_utf_16_without_a_mark_and_stray_nul_bytes_are_refused(write):
    assert "--encoding utf-16" in refusal(write("a.csv", TABLE.encode("utf-16-le")))
    assert "line 2: a NUL byte" in refusal(write("b.csv", b"text,label\nra\0in,x\n"))
    assert found(write("a.csv", TABLE.encode("utf-16-le")), encoding="utf-16-le") == FOUND


# --- CSV and TSV ----------------------------------------------------------------------------------------------------


def test_a_quote_in_a_corpus_opens_nothing(write, caplog):
    lines = ["calm words\tx"] * 9
    lines[2], lines[6] = '" he said\tx', 'and left "\ty'
    rows = read_rows(write("a.tsv", "text\tlabel\n" + "\n".join(lines) + "\n"))
    assert len(rows) == 9 and rows.texts[2] == '" he said' and rows.labels[6] == "y"
    assert "line 4: a quote that closes in line 8" in caplog.text


def test_quotes_in_a_table_that_would_swallow_rows_are_refused(write):
    lines = ["calm words,x"] * 9
    lines[2], lines[6] = '" he said,x', 'and left ",y'
    message = refusal(write("a.csv", "text,label\n" + "\n".join(lines) + "\n"))
    assert "line 4" in message and "line 8" in message and "5 lines" in message
    one = ["text", '"open', "word", 'shut"', "word"]
    assert "one row or 3" in refusal(write("a.tsv", "\n".join(one)), label=None)


def test_a_cell_of_several_lines_stays_one_in_tsv_too(write):
    assert found(write("a.tsv", 'text\tlabel\n"one, ""two""\nthree"\tx\nfour\ty\n'))[0] == ['one, "two"\nthree', "four"]


def test_a_line_of_excels_that_names_the_separator_is_no_header(write):
    table = "sep=;\r\ntext;label\r\nrain, tomorrow;weather\r\nrates rise;money;\r\n"
    assert "line 4: 3 cells under 2 columns" in refusal(write("a.csv", table))
    assert found(write("b.csv", table.replace("money;", "money")))[1] == ["weather", "money"]


def test_a_ragged_row_is_named_whatever_the_separator_is(write):
    table = "text;label\nrain, tomorrow;weather\nrates; rise;money\n"
    assert "line 3: 3 cells under 2 columns" in refusal(write("a.csv", table))


@pytest.mark.parametrize("separator", [";", "\t", "|"])
def test_other_separators_are_found(write, separator):
    content = TABLE.replace("rates rise", "rates, they rise").replace(",", separator).replace(f"s{separator} ", "s, ")
    assert found(write("a.csv", content)) == (["rain tomorrow", "rates, they rise"], ["weather", "money"])


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_line_ends_of_all_systems_end_lines(write, end):
    for name, content in (
        ("a.csv", TABLE + "\n\n"),
        ("a.tsv", TABLE.replace(",", "\t") + "\n"),
        ("a.jsonl", "".join(json.dumps(row) + "\n" for row in OBJECTS) + "\n"),
    ):
        assert found(write(name, content.replace("\n", end))) == FOUND


def test_columns_without_a_name_have_pandas_names(write):
    source = write("a.csv", ",v1,v2,,\n0,weather,rain tomorrow,,\n1,money,rates rise,,\n")
    assert found(source, "v2", None, "v1") == FOUND
    assert read_rows(source, Columns("Unnamed: 0", label=None)).texts == ["0", "1"]
    assert "'Unnamed: 3'" in refusal(source)


def test_a_doubled_column_name_is_refused_only_where_it_is_used(write):
    source = write("a.csv", "text,label,note,note\nrain tomorrow,weather,,\nrates rise,money,,\n")
    assert found(source) == FOUND
    assert "same name, 'note'" in refusal(source, "note")


def test_columns_without_a_header_are_counted_from_zero(write, caplog):
    source = write("a.csv", '"4","17","rain, tomorrow"\n"0","18","rates rise"\n"0","18","they rise"\n"4","2","rain"\n')
    texts, labels = found(source, "2", None, "0")
    assert (texts, labels) == (["rain, tomorrow", "rates rise", "they rise", "rain"], [4, 0, 0, 4])
    assert "line 1 is read as a row" in caplog.text
    assert read_rows(source, Columns("2", label=None)).place(0).endswith("line 1")
    assert "it has '0', '1', '2'" in refusal(source, "7", None, "0")
    assert "count them from 0, as in --text-column 0" in refusal(source)


@pytest.mark.parametrize(
    "content",
    [
        "score,body\n1,rain\n2,rates\n",  # a word over numbers
        "label,text\nx,rain\ny,rates\n",  # our own names
        "topic,body\nx,rain\ny,rates\nx,sun\ny,tax\n",  # a label that is there once, others twice
    ],
)
def test_numbers_for_columns_that_have_names_are_refused(write, content):
    assert "looks like a header" in refusal(write("a.csv", content), "1", None, "0")


def test_a_table_called_txt_is_no_list_of_texts(write):
    source = write("a.txt", TABLE.replace(",", "\t").encode("utf-16"))  # as a spreadsheet saves "Unicode text"
    assert "call it a.tsv" in refusal(source, label=None)
    assert found(write("a.tab", TABLE.replace(",", "\t").encode("utf-16"))) == FOUND


# --- JSON, Parquet, Arrow -------------------------------------------------------------------------------------------


def test_json_lines_called_json_are_rows_and_no_questions(write):
    source = write("a.json", OBJECTS)
    assert found(source) == FOUND and not holds_questions(source)
    assert "line 2: not valid JSON" in refusal(write("b.json", '{"text": "a", "label": 1}\n{"text": \n'))


def test_columns_inside_of_objects_are_named_with_a_dot(write):
    source = write("a.jsonl", [{"post": {"body": {"en": row["text"]}}, "topic.main": row["label"]} for row in OBJECTS])
    assert found(source, "post.body.en", None, "topic.main") == FOUND
    assert "no column 'post.title'" in refusal(source, "post.title")


def test_class_names_are_read_from_parquet_arrow_and_saved_sets(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    kinds = {
        "text": datasets.Value("string"),
        "label": datasets.ClassLabel(names=["money", "weather"]),
        "tags": datasets.Sequence(datasets.ClassLabel(names=["a", "b"])),
    }
    columns = {"text": FOUND[0], "label": [1, 0], "tags": [[1, 0], []]}
    made = datasets.Dataset.from_dict(columns, features=datasets.Features(kinds))
    made.to_parquet(tmp_path / "a.parquet")
    made.select([1, 0]).save_to_disk(tmp_path / "saved", num_shards=2)
    datasets.DatasetDict(train=made, test=made.select([0])).save_to_disk(tmp_path / "several")
    monkeypatch.setitem(sys.modules, "datasets", None)  # it has written them, but is not needed to read them
    assert found(tmp_path / "a.parquet") == FOUND
    assert found(tmp_path / "a.parquet", "text", None, "tags")[1] == [("b", "a"), ()]
    assert found(tmp_path / "saved") == tuple(column[::-1] for column in FOUND)
    assert "train" in refusal(tmp_path / "several") and "several@" in refusal(tmp_path / "several")
    assert found(f"{tmp_path / 'several'}@test") == (FOUND[0][:1], FOUND[1][:1])


def test_feather_and_arrow_files_are_read(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    feather = pytest.importorskip("pyarrow.feather")
    table = pyarrow.table({"text": FOUND[0], "label": pyarrow.array(FOUND[1]).dictionary_encode()})
    feather.write_feather(table, tmp_path / "a.feather")
    with pyarrow.OSFile(str(tmp_path / "a.arrow"), "wb") as file, pyarrow.ipc.new_stream(file, table.schema) as stream:
        stream.write_table(table)
    assert found(tmp_path / "a.feather") == found(tmp_path / "a.arrow") == FOUND
    (tmp_path / "b.arrow").write_bytes(b"not one")
    assert "not a readable Arrow file" in refusal(tmp_path / "b.arrow")


# --- folders --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "split"),
    [
        (["train-00000-of-00002.jsonl", "train-00001-of-00002.jsonl", "test-00000-of-00001.jsonl"], "train"),
        (["dev.jsonl", "train.jsonl"], "train"),
        (["data/train.jsonl", "data/validation.jsonl"], "train"),
        (["train/rows.jsonl", "test/rows.jsonl"], "train"),
        (["corpus_test.jsonl", "corpus.jsonl"], "test"),
    ],
)
def test_a_folder_of_several_splits_is_asked_which_one(write, tmp_path, names, split):
    for name in names:
        write(f"set/{name}", [{"text": name, "label": "x"}])
    message = refusal(tmp_path / "set")
    assert "several splits" in message and f"{tmp_path / 'set'}@" in message
    wanted = [name for name in names if split in name]
    assert found(f"{tmp_path / 'set'}@{split}")[0] == wanted
    assert "no split 'other'" in refusal(f"{tmp_path / 'set'}@other")


def test_a_folder_of_one_split_needs_no_name(write, tmp_path):
    for name in ("train-a.jsonl", "train-b.jsonl", "dataset_info.json"):
        write(f"set/{name}", [{"text": name, "label": "x"}])
    assert found(tmp_path / "set")[0] == found(f"{tmp_path / 'set'}@training")[0] == ["train-a.jsonl", "train-b.jsonl"]
    write("set/latest.jsonl", [{"text": "more", "label": "y"}])  # no split's name
    assert len(found(tmp_path / "set")[0]) == 3
    write("at@home/rows.jsonl", [{"text": "a folder with an @ in its name", "label": "x"}])
    assert len(found(tmp_path / "at@home")[0]) == 1


def test_one_name_in_two_formats_is_refused(write, tmp_path):
    write("set/rows.csv", TABLE)
    write("set/rows.jsonl", OBJECTS)
    assert "rows.jsonl: beside rows.csv" in refusal(tmp_path / "set")


def test_data_files_beside_folders_are_named_as_not_read(write, tmp_path, caplog):
    write("rows/a.csv", TABLE)
    write("rows/more/b.csv", TABLE)
    write("rows/pictures/c.png", "x")
    assert found(tmp_path / "rows") == FOUND
    assert caplog.messages == [f"{tmp_path / 'rows'}: only its own files are read, not those in more"]


@pytest.mark.parametrize("name", ["rows.tar.gz", "rows.tgz", "archive.zip", "rows.7z"])
def test_an_archive_is_to_be_unpacked(write, name):
    assert refusal(write(name, TABLE)).endswith("an archive; unpack it, and name the file or folder that was in it")


def test_folders_of_texts_are_labels(write, tmp_path, caplog):
    for label, texts in (
        ("neg", ["bad\n", "no café at all".encode("latin-1")]),
        ("pos", ["good"]),
        ("unsup", ["unknown"]),
    ):
        for number, text in enumerate(texts):
            write(f"films/train/{label}/{number}_7.txt", text)
            write(f"films/test/{label}/{number}_7.txt", "held out")
    write("films/README", "not data")
    assert found(tmp_path / "films" / "train") == (["bad\n", "no café at all", "good"], ["neg", "neg", "pos"])
    assert found(f"{tmp_path / 'films'}@train") == found(tmp_path / "films" / "train")
    assert "1_7.txt: not UTF-8, read as cp1252" in caplog.text and "unsup" in caplog.text
    assert read_rows(str(tmp_path / "films" / "train" / "pos"), TEXTS).place(0).endswith("pos, file 0_7.txt")
    assert "several splits" in refusal(tmp_path / "films")


# --- rows that cannot be read ---------------------------------------------------------------------------------------

SPOILT = '{"text": "one"}\n{"text": null}\n{"text": 3}\n{"text": "  "}\n{"text": "fi\n[]\n{"text": "end \\ud83d"}\n'


def test_unreadable_rows_fail_or_are_left_out_with_their_places(write, caplog):
    source = write("a.jsonl", SPOILT)
    message = refusal(source, label=None)
    assert "line 2: 'text' is missing" in message or "line 5" in message
    rows = read_rows(source, Columns(label=None, on_error="skip"))
    assert rows.texts == ["one", "end \ud83d"]
    assert list(rows.left_out) == [1, 2, 3, 4, 5]
    assert rows.left_out[4].startswith(f"{source}, line 5: not valid JSON")
    assert "5 of 7 rows cannot be read" in caplog.text and "line 2: 'text' is missing" in caplog.text
    assert rows.place(1).endswith("line 7")


def test_a_blank_text_is_answered_but_teaches_nothing(write, caplog):
    source = write("a.jsonl", [{"text": "one", "label": "x"}, {"text": " ", "label": "y"}])
    assert read_rows(source, TEXTS).texts == ["one", " "]
    assert "1 of 2 texts are blank" in caplog.text and "line 2" in caplog.text
    assert "line 2: 'text' is blank" in refusal(source) and "--on-error skip" in refusal(source)
    assert found(source, on_error="skip") == (["one"], ["x"])


def test_rows_without_a_label_among_others_can_be_left_out(write):
    source = write("a.csv", "text,label\na,1.0\nb,\nc,0.0\n")  # as pandas writes whole numbers beside NaN
    assert "line 3: no 'label'" in refusal(source)
    assert found(source, on_error="skip") == (["a", "c"], [1.0, 0.0])
    assert "no other row" in refusal(write("b.jsonl", [{"text": None}]), label=None, on_error="skip")


def test_ragged_rows_can_be_left_out(write):
    source = write("a.csv", "text,label\na,x\nb, c,y\nd,z\n")
    assert "3 cells under 2 columns" in refusal(source)
    assert found(source, on_error="skip") == (["a", "d"], ["x", "z"])
