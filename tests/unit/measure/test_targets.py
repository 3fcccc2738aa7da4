"""Results may lie in a model's folder, and never in the place of what is not one of them."""

from __future__ import annotations

import json

import pytest

from ziggurat.calibrate import DriftTest, Watch, write_state
from ziggurat.errors import UserError
from ziggurat.explain.explain import explain
from ziggurat.measure import ModelOptions, append_record
from ziggurat.measure.targets import check_result_path
from ziggurat.report import Panel, Series, accuracy_figure
from ziggurat.serve.predict import predict


@pytest.fixture
def model(copied, cascade_folder):
    folder = copied(cascade_folder)
    (folder / "notes.jsonl").write_text('{"text": "mine"}\n')
    (folder / "README.md").write_text("# a card")
    (folder / "tiers" / "1" / "vocab.txt").write_text("[PAD]")
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "deep" / "er" / "rows.csv").write_text("text,label")
    return folder


def files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_no_file_that_a_model_came_with_is_a_target(model):
    before = files(model)
    assert len(before) > 10
    for path in before:
        with pytest.raises(UserError, match=r"choose another name$"):
            check_result_path(path, "other/model")
        with pytest.raises(UserError, match=r"choose another name$"):
            check_result_path(path, str(model))
    assert files(model) == before


def test_a_checkpoints_files_are_no_targets_of_another_model(tiny_checkpoint, tmp_path, model_folder):
    with pytest.raises(UserError, match="one of the files of the model in"):
        predict(str(model_folder), ["bat"], out=tiny_checkpoint / "tokenizer_config.json")
    link = tmp_path / "link.jsonl"
    link.symlink_to(tiny_checkpoint / "tokenizer_config.json")
    with pytest.raises(UserError, match="one of the files of the model in"):
        check_result_path(link, str(model_folder))


def test_results_are_replaced_in_a_models_folder(model):
    answers, page, rows, state = (model / name for name in ("a.jsonl", "e.html", "r.jsonl", "s.json"))
    figure = accuracy_figure([Panel("x", [Series("a", [1, 2], [0.1, 0.2])])], "t", model / "f")
    predict(str(model), ["bat"], options=ModelOptions("cpu"), operating_point="full", out=answers)
    explain(str(model), "bat", operating_point="full", html=page)
    append_record(rows, {"what": "a", "commit": "b"})
    write_state(DriftTest(Watch(0, 1, 0.1, 0.3)).state, state)
    (model / "empty.jsonl").write_text("")
    for path in (answers, page, rows, state, *figure, model / "empty.jsonl", model / "new.jsonl"):
        check_result_path(path, str(model))


def test_elsewhere_any_file_is_a_target_but_what_is_read(model, tmp_path):
    (tmp_path / "any.txt").write_text("mine")
    check_result_path(tmp_path / "any.txt", str(model))
    (tmp_path / "config.json").write_text(json.dumps({"a": 1}))  # alone it makes no model
    check_result_path(tmp_path / "any.txt", str(model))


def test_the_rows_of_a_task_in_a_folder_are_read_and_no_target(tmp_path, model_folder):
    rows = tmp_path / "validation.jsonl"
    rows.write_text('{"text": "bat", "label": 0}\n')
    with pytest.raises(UserError, match="is an input of this command"):
        check_result_path(rows, str(model_folder), f"task:glue/sst2@validation:{tmp_path}")
