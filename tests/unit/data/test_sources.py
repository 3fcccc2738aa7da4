from __future__ import annotations

import subprocess
import sys

import pytest

from ziggurat.data import Columns, read_rows
from ziggurat.errors import UserError

ROWS = [{"text": "rain tomorrow", "label": "weather"}, {"text": "rates rise", "label": "money"}]


def fails(source: str, *parts: str, **options) -> None:
    """Reading fails with one line that holds all these parts."""
    with pytest.raises(UserError) as caught:
        read_rows(source, **options)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


# --- labels --------------------------------------------------------------------------------------------------------


def test_labels_may_be_absent_unless_they_are_required(write):
    source = write("a.jsonl", [{"text": "rain"}])
    assert read_rows(source).labels is None
    fails(source, source, "'label'", "'text'", labels_required=True)


def test_an_empty_label_column_counts_as_absent(write):
    source = write("a.csv", "text,label\nrain,\nsun,\n")
    assert read_rows(source).labels is None
    fails(source, "line 2", labels_required=True)


def test_booleans_and_floats_stay(write):
    source = write("a.jsonl", [{"text": "a", "label": True}, {"text": "b", "label": 2.5}])
    labels = read_rows(source).labels
    assert labels == [True, 2.5]
    assert [type(label) for label in labels] == [bool, float]


def test_csv_labels_are_integers_only_if_all_are(write):
    assert read_rows(write("a.csv", "text,label\na,-1\nb,0\nc,12\n")).labels == [-1, 0, 12]
    assert read_rows(write("b.csv", "text,label\na,1\nb,two\n")).labels == ["1", "two"]
    assert read_rows(write("c.csv", "text,label\na,007\nb,12\n")).labels == ["007", "12"]
    assert read_rows(write("d.jsonl", [{"text": "a", "label": "1"}])).labels == ["1"]


def test_a_folder_decides_once_whether_its_labels_are_integers(write, tmp_path):
    write("set/a.csv", "text,label\na,1\n")
    write("set/b.csv", "text,label\nb,x\n")
    assert read_rows(str(tmp_path / "set")).labels == ["1", "x"]


def test_a_row_of_a_folder_knows_its_file_and_line(write, tmp_path):
    first, second = write("set/a.jsonl", ROWS), write("set/b.csv", "text,label\nrain,\nsun,\n")
    rows = read_rows(str(tmp_path / "set"), Columns(label=None))
    assert [rows.place(row) for row in (1, 2, 3)] == [f"{first}, line 2", f"{second}, line 2", f"{second}, line 3"]


# --- mistakes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "parts"),
    [
        ("a.jsonl", '{"text": "a"}\n\n{"text": }\n', ["line 3", "JSON"]),
        ("a.jsonl", '{"text": "a"}\n["b"]\n', ["line 2", "object"]),
        ("a.jsonl", '{"text": "a"}\n{"texts": "b"}\n', ["line 2", "'text' is missing"]),
        ("a.jsonl", '{"text": 5}\n', ["line 1", "int", "string"]),
        ("a.jsonl", '{"text": " \\t"}\n', ["line 1", "blank"]),
        ("a.jsonl", '{"text": "a", "text_pair": null}\n', ["line 1", "'text_pair'"]),
        ("a.jsonl", '{"text": "a", "label": NaN}\n', ["line 1", "nan"]),
        ("a.jsonl", '{"text": "a", "label": Infinity}\n', ["line 1", "inf"]),
        ("a.jsonl", '{"text": "a", "label": {}}\n', ["line 1", "dict"]),
        ("a.jsonl", '{"text": "a", "label": 1}\n{"text": "b"}\n', ["line 2", "'label'"]),
        ("a.jsonl", '{"text": "a", "label": 1}\n{"text": "b", "label": null}\n', ["line 2", "'label'"]),
        ("a.jsonl", "[" * 100_000, ["line 1", "JSON"]),
        ("a.jsonl", b'{"text": "a"}\n{"text": "\xff"}\n', ["line 2", "UTF-8"]),
        ("a.jsonl", "\n\n", ["no rows"]),
        ("a.json", '[{"text": "a"}, {"text": ""}]', ["row 2", "blank"]),
        ("a.json", '"text"', ["list"]),
        ("a.json", '{"text": ["a", "b"], "label": ["c"]}', ["list"]),
        ("a.csv", "sentence,class\na,b\n", ["'text'", "'sentence', 'class'"]),
        ("a.csv", "text,label\n", ["no rows"]),
        ("a.csv", "", ["no rows"]),
        ("a.csv", 'text,label\n"a\nb",x\nc, d,y\n', ["line 4", "3 cells under 2 columns", "quotes"]),
        ("a.csv", 'text,label\na,x\n"never closed,y\nb,z\n', ["line 3", "quotes"]),
        ("a.csv", "text,text\na,b\n", ["same name"]),
        ("a.csv", "text,label\na,x\nb,\n", ["line 3", "'label'"]),
        ("a.parquet", "PAR1 it is not", ["Parquet"]),
        ("a.xlsx", "a", ["'.xlsx'", ".jsonl"]),
    ],
)
def test_a_mistake_in_a_file_is_named_with_its_place(write, name, content, parts):
    source = write(name, content)
    fails(source, source, *parts)


def test_a_named_pair_column_must_exist(write):
    fails(write("a.jsonl", ROWS), "'passage'", columns=Columns(pair="passage"))


def test_files_of_a_folder_must_have_the_same_columns(write, tmp_path):
    write("set/a.jsonl", [{"text": "a"}])
    write("set/b.jsonl", [{"text": "b", "label": 1}])
    fails(str(tmp_path / "set"), "a.jsonl", "b.jsonl", "'label'")
    write("set/b.jsonl", [{"text": "b", "text_pair": "c"}])
    fails(str(tmp_path / "set"), "a.jsonl", "b.jsonl", "'text_pair'")
    write("set/b.jsonl", [{"body": "b"}])
    fails(str(tmp_path / "set"), "b.jsonl", "'text'", "'body'")


def test_a_folder_without_data_files_says_what_it_needs(tmp_path):
    fails(str(tmp_path), str(tmp_path), ".jsonl")


def test_a_missing_file_that_looks_like_a_hub_name_gets_the_hint():
    fails("someone/reviews", "hf:someone/reviews@train")
    fails("reviews@test", "hf:reviews@test")
    with pytest.raises(UserError) as caught:
        read_rows("folder/reviews.jsonl")
    assert "hf:" not in str(caught.value)


# --- the Hugging Face hub ------------------------------------------------------------------------------------------


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """`datasets`, with its cache in a temporary folder."""
    module = pytest.importorskip("datasets")
    monkeypatch.setattr(module.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return module


def test_a_folder_of_data_files_works_as_a_hub_name(hub, write, tmp_path):
    write("reviews/test.jsonl", ROWS)
    rows = read_rows(f"hf:{tmp_path / 'reviews'}@test")
    assert (rows.texts, rows.labels) == (["rain tomorrow", "rates rise"], ["weather", "money"])


def test_class_indices_of_the_hub_become_their_names(hub, monkeypatch):
    features = hub.Features({"text": hub.Value("string"), "label": hub.ClassLabel(names=["bad", "good"])})
    made = hub.Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}, features=features)
    withheld = hub.Dataset.from_dict({"text": ["a", "b"], "label": [-1, -1]}, features=features)
    asked = []

    def load(name, config, split):
        asked.append((name, config, split))
        return made if split == "train" else withheld

    monkeypatch.setattr(hub, "load_dataset", load)
    assert read_rows("hf:someone/reviews:plain@train").labels == ["good", "bad"]
    assert read_rows("hf:reviews@test").labels is None
    assert asked == [("someone/reviews", "plain", "train"), ("reviews", None, "test")]


def test_lists_of_class_indices_of_the_hub_become_their_names(hub, monkeypatch):
    kinds = {"text": hub.Value("string"), "label": hub.Sequence(hub.ClassLabel(names=["calm", "glad", "sad"]))}
    made = hub.Dataset.from_dict({"text": ["a", "b"], "label": [[2, 0], []]}, features=hub.Features(kinds))
    monkeypatch.setattr(hub, "load_dataset", lambda *_args, **_options: made)
    assert read_rows("hf:moods@train").labels == [("sad", "calm"), ()]


def test_a_failure_of_the_hub_is_one_line(hub, monkeypatch):
    def load(*_args, **_options):
        raise ConnectionError("no route to host\nand a long story")

    monkeypatch.setattr(hub, "load_dataset", load)
    fails("hf:reviews@train", "hf:reviews@train", "no route to host")


def test_an_unknown_split_of_the_hub_is_one_line(hub, write, tmp_path):
    write("reviews/test.jsonl", ROWS)
    fails(f"hf:{tmp_path / 'reviews'}@nowhere", "nowhere")


def test_a_hub_name_needs_a_split():
    for source in ("hf:reviews", "hf:@train", "hf:reviews@"):
        fails(source, source, "hf:NAME@SPLIT")


def test_the_hub_without_datasets_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    fails("hf:reviews@train", "pip install '.[train]' in Ziggurat's folder")


# --- the room ------------------------------------------------------------------------------------------------------


def test_the_data_room_needs_neither_torch_nor_the_extras():
    program = (
        "import sys, ziggurat.data.packing, ziggurat.data.dataset, ziggurat.data.tokenizer\n"
        "print([name for name in ('torch', 'transformers', 'datasets', 'pyarrow') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
