"""What is said beside an answer: warnings on stderr and in --json, rows that are left out, names taken for texts."""

from __future__ import annotations

import io
import json
import sys

import pytest

from ziggurat.data import Columns
from ziggurat.engine import OpenedModel
from ziggurat.serve.predict import predict as predict_job

SPOILT = '{"text": "bat kin"}\n{"text": null}\n{"text": " "}\n{"text": 7}\n{"text": "rat"}\n'


@pytest.fixture
def spoilt(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(SPOILT)
    return path


def test_a_row_that_cannot_be_read_fails_before_the_work(ziggurat, model_folder, spoilt, tmp_path):
    code, out, err = ziggurat("predict", model_folder, "--data", spoilt, "--out", tmp_path / "out.jsonl")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "rows.jsonl, line 2: 'text' is missing" in err and "2 rows are like that; --on-error skip" in err
    assert not (tmp_path / "out.jsonl").exists()


def test_rows_are_skipped_and_named(ziggurat, model_folder, spoilt):
    code, out, err = ziggurat("predict", model_folder, "--data", spoilt, "--on-error", "skip", "--json")
    told = json.loads(out)
    assert code == 0 and [answer["text"] for answer in told["answers"]][:1] == ["bat kin"]
    assert len(told["answers"]) == 2
    (warning,) = told["warnings"]
    assert "3 of 5 rows cannot be read" in warning and "line 2" in warning and "line 4" in warning
    assert err.strip() == f"warning: {warning}"


def test_nulls_keep_answers_beside_their_rows(ziggurat, model_folder, spoilt):
    code, out, _ = ziggurat("predict", model_folder, "--data", spoilt, "--on-error", "null", "--json")
    answers = json.loads(out)["answers"]
    assert code == 0 and [answer["label"] is None for answer in answers] == [False, True, True, True, False]
    assert answers[3]["error"].endswith("line 4: 'text' is of type int; it must be a string")
    assert (
        predict_job(str(model_folder), source=str(spoilt), columns=Columns(on_error="null")).to_dict()["answers"][1]
        == answers[1]
    )
    _, out, _ = ziggurat("predict", model_folder, "--data", spoilt, "--on-error", "null")
    assert len(out.splitlines()) == 5 and out.splitlines()[1].startswith("null\t")


def test_questions_are_read_without_these_options(ziggurat, tiny_checkpoint, tmp_path):
    path = tmp_path / "asked.jsonl"
    path.write_text('{"question": "bat", "context": "bat kit", "answers": {"text": [], "answer_start": []}}\n')
    for option in (["--on-error", "skip"], ["--encoding", "cp1252"]):
        options = ["--model", tiny_checkpoint, "--out", tmp_path / "new", *option]
        code, _, err = ziggurat("train", "--train", path, *options)
        assert code == 2 and "--encoding, --on-error: not for questions" in err


def test_null_is_for_answers_alone(ziggurat, model_folder, rows_file):
    code, _, err = ziggurat("eval", model_folder, "--data", rows_file, "--on-error", "null")
    assert code == 2 and "choose one of fail, skip" in err


def test_a_blank_row_is_answered_as_the_model_answers_it(ziggurat, model_folder, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "bat"}\n{"text": "  "}\n{"text": "kin"}\n')
    code, out, err = ziggurat("predict", model_folder, "--data", path, "--out", tmp_path / "out.jsonl", "--json")
    assert code == 0 and "1 of 3 texts are blank" in err and "line 2" in err
    assert json.loads(out)["warnings"] == [err.strip().removeprefix("warning: ")]
    answers = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    own = OpenedModel.from_pretrained(model_folder).answer(["  "])[0]
    assert [answers[1]["label"], answers[1]["tokens"]] == [own.label, 2]
    assert answers[1]["probability"] == pytest.approx(float(own.probabilities.max()), abs=1e-5)


@pytest.mark.parametrize("folder", ["static_folder", "cascade_folder", "pruned_folder", "pair_folder"])
def test_every_kind_of_model_answers_a_blank_text(folder, request):
    classifier = OpenedModel.from_pretrained(request.getfixturevalue(folder))
    blank = [("", "")] if classifier.manifest.pairs else [""]
    for point in ("full", *(point.name for point in classifier.manifest.operating_points)):
        (answer,) = classifier.answer(blank, point)
        assert 0 < answer.probabilities.max() <= 1 and answer.label in classifier.manifest.labels


def test_a_blank_line_of_standard_input_is_a_text(ziggurat, model_folder, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"bat\n\nkin\n")))
    code, out, err = ziggurat("predict", model_folder, "-", "--json")
    assert code == 0 and len(json.loads(out)["answers"]) == 3 and "1 of 3 texts are blank" in err


@pytest.mark.parametrize(
    "command",
    [
        ["predict", "MODEL", "rows.jsonl"],
        ["predict", "MODEL", "bat", "--text-pair", "rows.jsonl"],
        ["explain", "MODEL", "rows.jsonl"],
        ["explain", "MODEL", "bat", "rows.jsonl"],
    ],
)
def test_the_name_of_a_file_is_no_text(command, ziggurat, model_folder, spoilt, monkeypatch):
    monkeypatch.chdir(spoilt.parent)
    code, out, err = ziggurat(*(model_folder if part == "MODEL" else part for part in command))
    assert (code, out) == (2, "") and "rows.jsonl: is a file" in err and "--data rows.jsonl" in err
    assert f"| ziggurat {command[0]} MODEL -" in err


def test_a_missing_files_name_is_read_as_a_text_with_a_warning(ziggurat, model_folder):
    code, _, err = ziggurat("predict", model_folder, "rwos.jsonl", "bat")
    assert code == 0 and err.startswith("warning: rwos.jsonl: there is no such file") and err.count("\n") == 1


def test_slips_in_labels_are_said_once_and_are_no_errors(ziggurat, rows_file, tiny_checkpoint, tmp_path):
    lines = rows_file.read_text().splitlines()
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join([*lines, *(json.dumps({"text": f"lot bat {i}", "label": "River"}) for i in range(9))]))
    options = ["--recipe", "static", "--model", tiny_checkpoint, "--out", tmp_path / "model", "--json"]
    code, out, err = ziggurat("train", "--train", path, *options)
    assert code == 0, err
    assert err.count("labels 'River', 'river' differ in case") == 1
    assert any("differ in case" in warning for warning in json.loads(out)["warnings"])


def test_a_split_of_a_folder_is_trained_on_and_measured(ziggurat, rows_file, tiny_checkpoint, tmp_path):
    lines = rows_file.read_text().splitlines()
    (tmp_path / "set").mkdir()
    for split, some in (("train", lines[:180]), ("test", lines[180:])):
        (tmp_path / "set" / f"{split}.jsonl").write_text("\n".join(some))
    out = tmp_path / "model"
    options = ["--recipe", "static", "--model", tiny_checkpoint, "--out", out]
    code, _, err = ziggurat("train", "--train", tmp_path / "set", *options)
    assert code == 2 and "several splits" in err and not out.exists()
    assert ziggurat("train", "--train", f"{tmp_path / 'set'}@train", *options)[0] == 0
    code, said, _ = ziggurat("eval", out, "--data", f"{tmp_path / 'set'}@test", "--json")
    assert code == 0 and json.loads(said)["n"] == 60
    code, _, err = ziggurat("predict", out, "--data", f"{tmp_path / 'set'}@test", "--out", tmp_path / "set/test.jsonl")
    assert code == 2 and "is an input of this command" in err


def test_columns_of_labels_are_trained_on_and_measured(ziggurat, rows_file, tiny_checkpoint, tmp_path):
    path, out = tmp_path / "rows.csv", tmp_path / "model"
    rows = [json.loads(line) for line in rows_file.read_text().splitlines()]
    lines = [f"{row['text']},{int(row['label'] == 'river')},{int(row['label'] != 'stone')}" for row in rows]
    path.write_text("\n".join(["body,wet,no stone", *lines]))
    columns = ["--text-column", "body", "--label-column", "wet,no stone"]
    code, _, err = ziggurat(
        "train", "--train", path, *columns, "--recipe", "static", "--model", tiny_checkpoint, "--out", out
    )
    assert code == 0, err
    code, said, err = ziggurat("eval", out, "--data", path, *columns, "--json")
    assert code == 0 and json.loads(said)["f1_micro"] > 0.8, err
    _, said, _ = ziggurat("predict", out, "--data", path, "--text-column", "body", "--json")
    assert set(json.loads(said)["answers"][0]["probabilities"]) == {"wet", "no stone"}
    code, _, err = ziggurat("eval", out, "--data", path, "--text-column", "body", "--label-column", "no stone")
    assert code == 2
    pd = tmp_path / "more.csv"
    pd.write_text(path.read_text().replace("wet", "dry"))
    code, _, err = ziggurat("eval", out, "--data", pd, "--text-column", "body", "--label-column", "dry,no stone")
    assert code == 2 and "no column for label 'wet'" in err
